"""What the kernel says of a process: its resident memory, the processor time that it has used."""

from __future__ import annotations

import os
from pathlib import Path

from ops.bench.rig import NotMeasured


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError as error:
        raise NotMeasured(f"process {pid} cannot be looked at in /proc") from error


def resident_bytes(pid: int) -> int:
    """Resident memory. Raises NotMeasured where the process is gone, or the system has no /proc."""
    for line in _read(pid, "status").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise NotMeasured(f"process {pid} has ended")


def processor_s(pid: int) -> float:
    """Processor time of all its threads so far, which other processes do not lengthen. Raises NotMeasured."""
    fields = _read(pid, "stat").rpartition(")")[2].split()  # the name before it may hold anything
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
