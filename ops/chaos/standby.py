"""A failover of Redis to a replica that is stale: what was written since it was cut off is lost, as after a crash.

Replication is asynchronous, so every failover may lose the last writes; here it surely does, for seconds.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final
from urllib.parse import urlsplit

import redis.asyncio as redis

from ops.chaos.actors import Service
from ops.chaos.proxy import Proxy
from ops.local.child import Child
from ops.local.stack import Stack

SYNC_S: Final = 15.0
LOOK_S: Final = 0.02
ANSWER_S: Final = 5.0


class Pair:
    """Two servers under one password: the one behind ``proxy`` serves, the other waits for the next failover.

    ``serving`` and ``stack`` always tell of the one that serves.
    """

    def __init__(self, stack: Stack, proxy: Proxy, serving: Service, standby: Child, standby_url: str) -> None:
        self._stack = stack
        self._proxy = proxy
        self._serving = serving
        self._standby = standby
        self._standby_url = standby_url

    async def cut(self) -> None:
        """Have the standby follow until it knows all, and cut it off: it is stale from here on.

        Raises RedisError, OSError, TimeoutError.
        """
        async with AsyncExitStack() as exits:
            first, second = [
                await exits.enter_async_context(
                    redis.from_url(url, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S)
                )
                for url in (self._stack.redis_url, self._standby_url)
            ]
            address = urlsplit(self._stack.redis_url)
            await first.config_set("repl-diskless-sync-delay", 0)
            await second.config_set("repl-diskless-load", "swapdb")  # a file of it would be there after a kill
            await second.config_set("masterauth", address.password or "")
            await second.replicaof(address.hostname, address.port)
            async with asyncio.timeout(SYNC_S):
                await _in_sync(first, second)
            await second.replicaof("NO", "ONE")

    async def switch(self) -> None:
        """The one that serves is gone, and all connections lead to the stale one; the dead one comes back, empty.

        Raises StartError.
        """
        old, old_url = self._serving.child, self._stack.redis_url
        old.kill()
        self._serving.child, self._stack.redis_url = self._standby, self._standby_url
        self._standby, self._standby_url = old, old_url
        self._proxy.turn(urlsplit(self._stack.redis_url).port or 0)
        await Service(old).revive()


async def _in_sync(first: Any, second: Any) -> None:
    """Wait until the second server has all that the first had when they were joined."""
    while (await second.info("replication"))["master_link_status"] != "up":
        await asyncio.sleep(LOOK_S)
    wanted = (await first.info("replication"))["master_repl_offset"]
    while (await second.info("replication"))["slave_repl_offset"] < wanted:
        await asyncio.sleep(LOOK_S)
