"""Ingress beside FastAPI endpoints: at 1,000 a second one that does nothing; at most one that only validates, too."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from ops.bench.figures import Aim, Figure, ratios
from ops.bench.rig import Bench, declare, environment, kafka_of
from ops.bench.served import CLOSED_CONNECTIONS, Server, closed, load, merchant, migrate, serving
from ops.local.stack import running

NAME: Final = "ingress"
RATE: Final = 1000
WARM_S: Final = 45
"""A broker's Java compiles under load for its first half minute, on cores that all share: p99 is tripled."""


async def measure(bench: Bench) -> list[Figure]:
    """Both servers up, loaded in turns."""
    with TemporaryDirectory(prefix="kifiya-bench-") as folder:
        async with running(bench.kind, overrides=False) as stack:
            await declare(kafka_of(stack))
            await migrate(stack)
            key = await merchant(stack)
            async with AsyncExitStack() as servers:
                ours = await serving(servers, bench, environment(stack, Path(folder)), "ingress", key)
                peer = await serving(servers, bench, environment(stack, Path(folder)), "ops.bench.nothing", key)
                validating = Server(peer.url.replace("/v1/payments", "/validated"), peer.pid, key)
                return await _turns(bench, ours, peer, validating)


async def _turns(bench: Bench, ours: Server, peer: Server, validating: Server) -> list[Figure]:
    seconds = bench.size(10, 3)
    for server in (ours, peer, validating):
        await load("closed", server, bench.size(5, 2), "--connections", str(CLOSED_CONNECTIONS))
    await load("open", ours, bench.size(WARM_S, 2), "--rate", str(RATE))
    for run in range(bench.runs):
        order = (ours, validating, peer) if run % 2 == 0 else (peer, validating, ours)
        for server in (each for each in order if each is not validating):
            server.opened.append(await load("open", server, seconds, "--rate", str(RATE)))
        for server in order:
            await closed(server, seconds)
        bench.say(
            f"ingress run {run + 1}: at {RATE}/s {ours.opened[-1]['accepted_per_s']:.0f} accepted/s "
            f"{ours.opened[-1]['statuses']}, p99 {ours.opened[-1]['p99_ms']:.1f} ms beside "
            f"{peer.opened[-1]['p99_ms']:.1f}; at most {ours.most[-1]:.0f}/s beside {validating.most[-1]:.0f}/s of "
            f"only validating and {peer.most[-1]:.0f}/s of nothing"
        )
    return _figures(ours, peer, validating)


def _figures(ours: Server, peer: Server, validating: Server) -> list[Figure]:
    refused = [sum(count for status, count in run["statuses"].items() if status != "201") for run in ours.opened]
    return [
        # The last answer comes after the last request: the rate of the answers stays a little below.
        Figure(NAME, "accepted at 1,000/s offered", ours.of("accepted_per_s"), "/s", Aim(0.99 * RATE, at_least=True)),
        Figure(NAME, "not accepted at 1,000/s", refused, "requests", Aim(0), worst=True),
        Figure(NAME, "p50 from the due time", ours.of("p50_ms"), "ms"),
        Figure(NAME, "p99 from the due time", ours.of("p99_ms"), "ms", Aim(20, at_least=False)),
        Figure(NAME, "  p99 of the peer, which does nothing", peer.of("p99_ms"), "ms"),
        Figure(NAME, "  p99 of the generator's own lateness", ours.of("late_p99_ms"), "ms"),
        Figure(NAME, "most one worker accepts", ours.most, "/s", Aim(RATE, at_least=True)),
        Figure(NAME, "  most of a peer that only validates", validating.most, "/s"),
        Figure(NAME, "  ours of what only validates", ratios(ours.most, validating.most), "x", Aim(0.5, at_least=True)),
        Figure(NAME, "  most of a peer that does nothing", peer.most, "/s"),
        Figure(NAME, "  ours of what does nothing", ratios(ours.most, peer.most), "x"),
        Figure(NAME, "processor time of one request", ours.processor_us, "us"),
        Figure(NAME, "  of one that is only validated", validating.processor_us, "us"),
        Figure(NAME, "  of one that does nothing", peer.processor_us, "us"),
    ]
