"""A stream role that can forward nothing to a lane, as when the broker does not ack in time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ops.kafka.clients import Message, Publisher, PublishTimedOut
from streams.__main__ import main

_publish = Publisher.publish


async def _fails(self: Publisher, messages: Sequence[Message], timeout_s: float = 30.0) -> None:
    if any(message.topic.startswith("payments.lane.") for message in messages):
        await asyncio.sleep(3.0)  # meanwhile offsets are committed: not these
        raise PublishTimedOut("no ack")
    await _publish(self, messages, timeout_s)


Publisher.publish = _fails  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
