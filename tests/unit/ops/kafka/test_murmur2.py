"""The home of a key is where Java's default partitioner sends it, as aiokafka's own hash does."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import murmur2 as aiokafkas
from hypothesis import given
from hypothesis import strategies as st

from ops.kafka.clients import partition_for
from ops.kafka.murmur2 import murmur2


@pytest.mark.parametrize(
    ("key", "hashed"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536), (b"abc", 479470107)],
)
def test_kafkas_own_cases(key: bytes, hashed: int) -> None:
    """Of ``UtilsTest.testMurmur2`` in Apache Kafka."""
    assert murmur2(key) == hashed % 2**32


@given(st.binary(max_size=300))
def test_it_is_the_hash_of_aiokafka(key: bytes) -> None:
    assert murmur2(key) == aiokafkas(key) % 2**32
    assert partition_for(key, 12) == (aiokafkas(key) & 0x7FFFFFFF) % 12
