"""Memory of the ingress while it takes as much as it can for ten minutes."""

from __future__ import annotations

import asyncio
from typing import Final

from ops.bench.figures import Aim, Figure
from ops.bench.proc import resident_bytes
from ops.bench.rig import Bench, NotMeasured
from ops.bench.served import CLOSED_CONNECTIONS, load, one_ingress

NAME: Final = "lasting"
MOST_MB: Final = 20.0
WARM: Final = 0.2
"""The share of the time after which all that is remembered is: caches are full, and Python has its arenas."""
_EVERY_S: Final = 2.0
_MB: Final = 1e6


async def measure(bench: Bench) -> list[Figure]:
    """One closed loop; its memory after a fifth of the time, at its end, and at most in between."""
    seconds = bench.size(600, 20)
    async with one_ingress(bench) as (server, _):
        loading = asyncio.create_task(load("closed", server, seconds, "--connections", str(CLOSED_CONNECTIONS)))
        sizes: list[float] = []
        while not loading.done():
            sizes.append(resident_bytes(server.pid) / _MB)
            await asyncio.wait({loading}, timeout=_EVERY_S)
        found = loading.result()
    warm = sizes[int(len(sizes) * WARM) :]
    if len(warm) < 3:  # noqa: PLR2004 - a beginning, a middle and an end
        raise NotMeasured("the load was over before its memory could be looked at")
    taken = found["statuses"].get("201", 0)
    bench.say(f"lasting: {taken:,} taken, {warm[0]:.0f} MB, at most {max(warm):.0f} MB, {warm[-1]:.0f} MB")
    return [
        Figure(NAME, f"accepted in {seconds:g} s, {found['accepted_per_s']:,.0f}/s", [taken], "requests"),
        Figure(NAME, "resident after a fifth of the time", [warm[0]], "MB"),
        Figure(NAME, "  more at its end", [warm[-1] - warm[0]], "MB", Aim(MOST_MB)),
        Figure(NAME, "  more at most", [max(warm) - warm[0]], "MB", Aim(MOST_MB)),
    ]
