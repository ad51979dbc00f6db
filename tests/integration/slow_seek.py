"""A stream role whose seek after a recovery takes a second: what arrives in that time shows a race of Faust's."""

from __future__ import annotations

import asyncio

from ops.kafka import consumer
from streams.__main__ import main

_seek = consumer.Consumer.perform_seek


async def _slowly(self: consumer.Consumer) -> None:
    await _seek(self)
    await asyncio.sleep(1.0)


consumer.Consumer.perform_seek = _slowly  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
