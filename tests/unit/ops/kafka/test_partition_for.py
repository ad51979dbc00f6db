"""A key's partition is the one that every other client chooses."""

from __future__ import annotations

from aiokafka.partitioner import murmur2
from hypothesis import example, given
from hypothesis import strategies as st

from ops.kafka.clients import partition_for


@given(key=st.binary(max_size=80), count=st.integers(1, 1000))
@example(key=b"", count=7)
@example(key=b"\xff" * 7, count=12)
def test_the_partition_is_that_of_kafka_s_clients(key: bytes, count: int) -> None:
    assert partition_for(key, count) == (murmur2(key) & 0x7FFFFFFF) % count
