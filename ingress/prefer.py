"""``Prefer: wait=N`` (RFC 7240): how long a client is willing to wait for the end of what it asked for. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

WAIT_MAX_S: Final = 30
"""A longer wait is cut to this: proxies and load balancers give up on a silent connection after a minute."""

_HEADER_MAX: Final = 1000
_PREFERENCE: Final = re.compile(r'(?:[^,"]|"[^"]*")+')
_WAIT: Final = re.compile(r'\s*wait\s*=\s*("?)([0-9]{1,9})\1\s*(?:;.*)?', re.ASCII | re.IGNORECASE)


def wait_s(headers: Iterable[str]) -> int:
    """Seconds to wait, at most WAIT_MAX_S; 0 where none are asked for. What cannot be read is ignored (RFC 7240)."""
    joined = ",".join(headers)
    if len(joined) > _HEADER_MAX:
        return 0
    for preference in _PREFERENCE.findall(joined):
        found = _WAIT.fullmatch(preference)
        if found:
            return min(int(found[2]), WAIT_MAX_S)
    return 0
