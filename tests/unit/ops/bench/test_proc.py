"""What the kernel says of this very process."""

from __future__ import annotations

import os
import time

import pytest

from ops.bench import proc
from ops.bench.rig import NotMeasured


def test_memory_grows_by_what_is_taken() -> None:
    before = proc.resident_bytes(os.getpid())
    taken = bytearray(os.urandom(32 * 1024 * 1024))
    assert 24e6 < proc.resident_bytes(os.getpid()) - before < 80e6
    assert taken


def test_processor_time_is_that_of_working_not_of_waiting() -> None:
    before = proc.processor_s(os.getpid())
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    assert 0.15 < proc.processor_s(os.getpid()) - before < 2


@pytest.mark.parametrize("read", [proc.resident_bytes, proc.processor_s])
def test_a_process_that_is_gone_cannot_be_measured(read: object) -> None:
    assert callable(read)
    with pytest.raises(NotMeasured, match="process 999999999 cannot be looked at"):
        read(999_999_999)
