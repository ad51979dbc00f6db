"""The headers of a request, gathered once: else each part that asks for one would walk through all of them again."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any, Final

_KEPT: Final = "kifiya.sent"


class Sent:
    """All values of each header, by its name in lower case, as ASGI gives them."""

    __slots__ = ("_by_name", "_pairs", "_repeated")

    def __init__(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs
        self._by_name = dict(pairs)
        self._repeated = len(self._by_name) < len(pairs)

    def values(self, name: bytes) -> list[bytes]:
        """What was sent under this name, in order."""
        if self._repeated:
            return [value for each, value in self._pairs if each == name]
        value = self._by_name.get(name)
        return [] if value is None else [value]


def sent(scope: MutableMapping[str, Any]) -> Sent:
    """The headers of the request of this scope."""
    found: Sent | None = scope.get(_KEPT)
    if found is None:
        found = scope[_KEPT] = Sent(scope["headers"])
    return found
