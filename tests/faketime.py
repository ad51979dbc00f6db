"""The library that sets the clocks of single processes: on a machine without it, what needs it is skipped by name."""

from __future__ import annotations

from typing import Final

import pytest

from ops.chaos.clocks import library
from ops.local.child import StartError


def _installed() -> bool:
    try:
        library()
    except StartError:
        return False
    return True


needed: Final = pytest.mark.skipif(not _installed(), reason="libfaketime is not installed: apt-get install libfaketime")
