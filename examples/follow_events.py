"""A merchant's events as they happen, over Server-Sent Events: without a gap or a repeat, whatever breaks in between.

``python follow_events.py [AFTER] [COUNT]`` prints COUNT events (default: without end) from AFTER on: a cursor,
``latest`` (default) or ``beginning``. The last line on stderr is the cursor to go on from.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import httpx2

SILENCE_S = 60
"""The gateway sends a heartbeat every 15 seconds: after so long without a byte the connection is dead."""


def follow(url: str, api_key: str, after: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Events with their cursors, for ever. Keep the cursor with what you made of the event: it is where to go on.

    Raises HTTPStatusError for what no retry mends: 401, 403, 400 (no cursor), 410 (the topic holds it no more).
    """
    last = ""
    headers = {"Authorization": f"Bearer {api_key}", "Accept": "text/event-stream"}
    with httpx2.Client(base_url=url, timeout=httpx2.Timeout(10, read=SILENCE_S)) as http:
        while True:
            resume = {"Last-Event-ID": last} if last else {}
            try:
                with http.stream("GET", "/v1/events", params={"after": after}, headers={**headers, **resume}) as answer:
                    if answer.status_code < 500 and answer.status_code != 429:  # noqa: PLR2004
                        answer.raise_for_status()
                        for here, found in events(answer.iter_lines(), last):
                            last = here
                            if found is not None:
                                yield last, found
            except httpx2.TransportError as error:
                print(f"the connection broke: {type(error).__name__}", file=sys.stderr)
            time.sleep(1)


def events(lines: Iterator[str], last: str) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """The events in a stream's lines; None where only the id moved on, over events of others."""
    data = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "id":
            last = value
        elif name == "data":
            data = value
        elif not line:
            yield last, json.loads(data) if data else None
            data = ""


def main(after: str = "latest", count: str = "") -> None:
    """Print events as they come."""
    found = follow(os.environ["KIFIYA_URL"], os.environ["KIFIYA_API_KEY"], after)
    cursor = after
    for here, event in islice(found, int(count) if count else None):
        cursor = here
        print(event["at"], event["payment_id"], event["type"], event["status"], event["reason"] or "", flush=True)
    print(cursor, file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:3])
