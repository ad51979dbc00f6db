"""``python -m ops.bench.load open|closed|waves``: creates payments over HTTP in a process of its own, prints JSON.

Open: request *i* is due at ``begin + i / rate`` whatever became of those before, and its latency counts from then on
(no coordinated omission). Closed: each connection sends its next request as soon as it has an answer. Waves: all
connections send the same request, with one key, at once; when all have an answer, the next one.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from ops.bench.figures import percentile
from ops.bench.wire import Answers, request

CONNECTIONS: Final = 256
DRAIN_S: Final = 10.0
ACCEPTED: Final = 201

Done = Callable[[int], None]


class Connection(asyncio.Protocol):
    """One request in hand at a time; ``done`` gets the answer's status, 0 where the connection broke."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answers = Answers()
        self._done: Done | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to write."""
        self._transport = transport  # type: ignore[assignment]  # TCP connections have no other kind

    def send(self, data: bytes, done: Done) -> None:
        """Write a request."""
        if self._transport is None or self._transport.is_closing():
            done(0)
            return
        self._done = done
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Tell the status of an answer that has come whole."""
        for status in self._answers.feed(data):
            self._finish(status)

    def connection_lost(self, exc: Exception | None) -> None:
        """What is in hand has failed."""
        del exc
        self._finish(0)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()

    def _finish(self, status: int) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(status)


@dataclass(slots=True)
class Tally:
    """What came back: statuses, latencies from the due time, how late the generator itself was."""

    statuses: Counter[int] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    last_at: float = 0.0

    def report(self, began: float) -> dict[str, Any]:
        """The figures, as JSON has them. A request without an answer has no latency, and stands as status 0."""
        seconds = max(self.last_at - began, 1e-9)
        return {
            "accepted_per_s": self.statuses[ACCEPTED] / seconds,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "p50_ms": percentile(self.latencies_s, 50) * 1000,
            "p99_ms": percentile(self.latencies_s, 99) * 1000,
            "max_ms": max(self.latencies_s, default=0.0) * 1000,
            "late_p99_ms": percentile(self.late_s, 99) * 1000 if self.late_s else 0.0,
        }


class Load:
    """Connections to one server, and the requests."""

    def __init__(self, url: str, api_key: str = "") -> None:
        where = urlsplit(url)
        self._host, self._port = where.hostname or "127.0.0.1", where.port or 80
        self._path = where.path
        self._api_key = api_key
        self._run = uuid.uuid4().hex[:12]
        self._free: deque[Connection] = deque()
        self._all: list[Connection] = []
        self._waiting: deque[tuple[int, float]] = deque()
        self._tally = Tally()
        self._in_hand = 0

    async def connect(self, count: int) -> None:
        """Open so many connections. Raises OSError."""
        loop = asyncio.get_running_loop()
        for _ in range(count):
            _, connection = await loop.create_connection(Connection, self._host, self._port)
            self._all.append(connection)
        self._free.extend(self._all)

    def close(self) -> None:
        """Hang up everywhere."""
        for connection in self._all:
            connection.close()

    async def open(self, rate: float, seconds: float) -> dict[str, Any]:
        """Send ``rate`` requests a second, each when it is due."""
        clock, total = time.perf_counter, int(rate * seconds)
        began = clock()
        for number in range(total):
            due = began + number / rate
            while (early := due - clock()) > 0:
                await asyncio.sleep(early)  # up to a millisecond too long, which counts; to spin would take a core
            self._tally.late_s.append(clock() - due)
            self._waiting.append((number, due))
            self._pump()
            if number % 16 == 0:
                await asyncio.sleep(0)  # a generator that is behind must still read answers
        end = clock() + DRAIN_S
        while (self._in_hand or self._waiting) and clock() < end:
            await asyncio.sleep(0.005)
        self._tally.statuses[0] += self._in_hand + len(self._waiting)
        return self._tally.report(began)

    def _request(self, number: int) -> bytes:
        return request(self._path, f"{self._run}-{number}", self._api_key)

    def _pump(self) -> None:
        while self._waiting and self._free:
            number, due = self._waiting.popleft()
            connection = self._free.popleft()
            self._in_hand += 1
            connection.send(self._request(number), self._counted(connection, due))

    def _counted(self, connection: Connection, due: float) -> Done:
        def done(status: int) -> None:
            self._in_hand -= 1
            now = time.perf_counter()
            self._tally.statuses[status] += 1
            self._tally.last_at = now
            if status:
                self._tally.latencies_s.append(now - due)
                self._free.append(connection)
                self._pump()

        return done

    async def closed(self, seconds: float) -> dict[str, Any]:
        """Keep each connection busy for so long."""
        began = time.perf_counter()
        end, number = began + seconds, 0

        def again(connection: Connection) -> None:
            nonlocal number
            if time.perf_counter() < end:
                number += 1
                self._in_hand += 1
                connection.send(self._request(number), done_of(connection, time.perf_counter()))

        def done_of(connection: Connection, sent: float) -> Done:
            counted = self._counted(connection, sent)

            def done(status: int) -> None:
                counted(status)
                if status:
                    again(connection)

            return done

        for connection in self._all:
            again(connection)
        while self._in_hand and time.perf_counter() < end + DRAIN_S:
            await asyncio.sleep(0.01)
        return self._tally.report(began)

    async def waves(self, keys: int) -> dict[str, Any]:
        """Send each of so many keys over all connections at once. ``made`` is how often so many of a wave got 201."""
        began, made = time.perf_counter(), Counter[int]()
        for number in range(keys):
            accepted = self._tally.statuses[ACCEPTED]
            sent = time.perf_counter()
            for connection in self._all:
                self._in_hand += 1
                connection.send(self._request(number), self._counted(connection, sent))
            while self._in_hand and time.perf_counter() < sent + DRAIN_S:
                await asyncio.sleep(0.002)
            made[self._tally.statuses[ACCEPTED] - accepted] += 1
            if self._in_hand:  # its connections cannot take another one
                self._tally.statuses[0] += self._in_hand
                break
        return self._tally.report(began) | {"made": {str(each): count for each, count in sorted(made.items())}}


async def _main(arguments: argparse.Namespace) -> dict[str, Any]:
    load = Load(arguments.url, arguments.api_key)
    await load.connect(arguments.connections)
    gc.freeze()
    try:
        if arguments.way == "open":
            return await load.open(arguments.rate, arguments.seconds)
        if arguments.way == "waves":
            return await load.waves(arguments.keys)
        return await load.closed(arguments.seconds)
    finally:
        load.close()


def main() -> None:
    """Parse the arguments, load, print one JSON object."""
    parser = argparse.ArgumentParser(prog="load")
    parser.add_argument("way", choices=["open", "closed", "waves"])
    parser.add_argument("--url", required=True)
    parser.add_argument("--api-key", default="")
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    sys.stdout.write(json.dumps(asyncio.run(_main(parser.parse_args()))) + "\n")


if __name__ == "__main__":
    main()
