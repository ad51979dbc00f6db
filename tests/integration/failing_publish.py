"""A stream role whose third publication fails, as when the broker does not ack in time."""

from __future__ import annotations

from collections.abc import Sequence

from ops.kafka.clients import Message, Publisher, PublishTimedOut
from streams.__main__ import main

_publish = Publisher.publish
_calls = 0


async def _fails_once(self: Publisher, messages: Sequence[Message], timeout_s: float = 30.0) -> None:
    global _calls  # noqa: PLW0603 - a process of its own
    _calls += 1
    if _calls == 3:  # noqa: PLR2004
        raise PublishTimedOut("no ack")
    await _publish(self, messages, timeout_s)


Publisher.publish = _fails_once  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
