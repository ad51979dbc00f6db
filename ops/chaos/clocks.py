"""Wall clocks that jump: libfaketime in the processes concerned, and for each a file that says how far it is off.

Nothing but wall clocks: CLOCK_MONOTONIC, waits and the times of files stay true. Only ``time.sleep`` fails under it:
left to the true monotonic clock, libfaketime has no clock_nanosleep to call. Nothing in the roles sleeps so.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ops.chaos.case import aims_at
from ops.local.child import StartError, give

_PLACES: Final = ("lib/*/faketime", "lib/faketime", "lib64/faketime", "local/lib/faketime")
_FILE: Final = "libfaketimeMT.so.1"


def library(root: Path = Path("/usr")) -> Path:
    """Where libfaketime, the one for threads, lies below ``root``. Raises StartError that says how to get it."""
    for place in _PLACES:
        for path in sorted(root.glob(f"{place}/{_FILE}")):
            return path
    raise StartError("a clock that jumps needs libfaketime: apt-get install libfaketime")


class Clocks:
    """The clocks that some fault sets, by the name of their process, in files of ``folder``. Raises StartError.

    ``whats``: the targets of these faults. The other processes run without the library.
    """

    def __init__(self, folder: Path, whats: Iterable[str]) -> None:
        self._folder = folder
        self._whats = frozenset(whats)
        self._library = library() if self._whats else Path()

    def settings(self, name: str) -> dict[str, str]:
        """What the process of this name needs in its environment; nothing where no fault is about its clock."""
        if not any(aims_at(what, name) for what in self._whats):
            return {}
        if not self._file(name).exists():
            self.jump(name, 0)
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file(name)),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # else Python's threads spin while they wait for one another
            "FAKETIME_DISABLE_SHM": "1",  # a process that is killed would leave it behind
            "NO_FAKE_STAT": "1",
        }

    def jump(self, name: str, ms: int) -> None:
        """Set the clock of this process, and of those that follow under its name, ``ms`` ahead of the true time."""
        path = self._file(name)
        part = path.with_name(f"{path.name}.part")
        part.write_text(f"{ms / 1000:+.3f}\n")
        part.chmod(0o644)
        give(part)
        part.replace(path)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.clock"
