"""Tables on the terminal: what comes from strangers is shown, never interpreted."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Final

PIPED_WIDTH: Final = 400
"""Columns where the output is no terminal: nothing is cut, so that grep finds it."""


def show(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print these rows. The first column is never cut."""
    from rich.console import Console  # noqa: PLC0415 - heavy, and needed here only
    from rich.table import Table  # noqa: PLC0415

    from ops.readable import printable  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*(printable(str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    Console(highlight=False, markup=False, emoji=False, width=width).print(table)
