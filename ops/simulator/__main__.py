"""``python -m ops.simulator``: the provider simulator as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import signal
import time

from ops.simulator.provider import Provider
from ops.simulator.server import Simulator
from ops.telemetry import configure_logging, logger


async def _serve(arguments: argparse.Namespace) -> None:
    provider = Provider(arguments.limit, arguments.window_ms * 1_000_000, time.monotonic_ns, keyless=arguments.keyless)
    simulator = Simulator(provider, arguments.latency_ms / 1000)
    async with simulator.listening(arguments.host, arguments.port) as port:
        logger().info("the simulator listens", action="listen", host=arguments.host, port=port)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()


def main() -> None:
    """Parse the arguments and serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="simulator", description="A payment provider that does what it is told.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--limit", type=int, default=2, help="requests allowed in any window")
    parser.add_argument("--window-ms", type=int, default=1000)
    parser.add_argument("--latency-ms", type=int, default=0, help="added to every answer")
    parser.add_argument("--keyless", action="store_true", help="know no idempotency keys: each POST charges anew")
    arguments = parser.parse_args()
    if arguments.limit < 1 or arguments.window_ms < 1 or arguments.latency_ms < 0:
        parser.error("--limit and --window-ms must be positive, --latency-ms not negative")
    configure_logging("simulator")
    asyncio.run(_serve(arguments))


if __name__ == "__main__":
    main()
