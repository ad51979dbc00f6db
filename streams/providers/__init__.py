"""Providers by name. A new one is an adapter and a line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from schemas.lanes import KEYLESS_SANDBOX, SANDBOX, Lane
from streams.providers.port import Outcome, OutcomeKind, Provider
from streams.providers.simulator import KeylessSimulatorProvider, SimulatorProvider

__all__ = ["PROVIDERS", "Outcome", "OutcomeKind", "Provider", "open_provider"]

PROVIDERS: Final[dict[str, Callable[[Lane], Provider]]] = {
    SANDBOX: SimulatorProvider,
    KEYLESS_SANDBOX: KeylessSimulatorProvider,
}


def open_provider(lane: Lane) -> Provider:
    """The provider of a lane; use it as an async context manager. Raises ValueError for an unknown one."""
    try:
        return PROVIDERS[lane.provider](lane)
    except KeyError:
        raise ValueError(f"lane {lane.name!r}: provider {lane.provider!r} is not one of {sorted(PROVIDERS)}") from None
