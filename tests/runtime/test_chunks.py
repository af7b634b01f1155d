"""Cutting records into chunks, and what a batch lets out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.errors import Poison
from streams.kafka.chunks import (
    CHUNK_BYTES,
    CHUNK_RECORDS,
    RECORD_OVERHEAD_BYTES,
    Batch,
    Chunk,
    Record,
    split,
)
from streams.kafka.outbox import MAX_MESSAGE_BYTES
from streams.kafka.store import MemoryStore, Overlay

SIZES = st.lists(
    st.one_of(
        st.integers(min_value=0, max_value=200), st.sampled_from([CHUNK_BYTES // 2, CHUNK_BYTES, 2 * CHUNK_BYTES])
    ),
    max_size=60,
)


def records(sizes: list[int]) -> list[Record]:
    return [Record("t", 1, 10 + index, b"k", bytes(size), [], 0) for index, size in enumerate(sizes)]


def cut(made: list[Record]) -> list[Chunk]:
    return list(split("t", 1, 7, made))


@settings(deadline=None)
@given(sizes=SIZES, repeat=st.integers(min_value=1, max_value=40))
def test_chunks_one_after_another_are_the_records(sizes: list[int], repeat: int) -> None:
    """Nothing is lost, doubled or reordered, and no chunk is empty."""
    made = records(sizes + [10] * len(sizes) * repeat)

    chunks = cut(made)

    assert [record for chunk in chunks for record in chunk.records] == made
    assert all(chunk.records for chunk in chunks)
    assert {(chunk.topic, chunk.partition, chunk.generation) for chunk in chunks} <= {("t", 1, 7)}


@settings(deadline=None)
@given(sizes=SIZES, repeat=st.integers(min_value=1, max_value=40))
def test_chunks_are_bounded_and_as_full_as_they_may_be(sizes: list[int], repeat: int) -> None:
    """At most 500 records; over the byte bound only by the last record; only the last chunk is neither."""
    chunks = cut(records(sizes + [10] * len(sizes) * repeat))

    for chunk in chunks:
        last = RECORD_OVERHEAD_BYTES + len(chunk.records[-1].value or b"")
        assert len(chunk.records) <= CHUNK_RECORDS
        assert chunk.size - last < CHUNK_BYTES
    for chunk in chunks[:-1]:
        assert len(chunk.records) == CHUNK_RECORDS or chunk.size >= CHUNK_BYTES


def test_the_next_offset_of_a_chunk_is_after_its_last_record() -> None:
    """Also where compaction or a transaction left a gap before it."""
    chunk = Chunk("t", 0, 1, [Record("t", 0, 4, None, None, [], 0), Record("t", 0, 9, None, None, [], 0)])

    assert chunk.next_offset == 10


def batch() -> Batch:
    return Batch(
        app="app", topic="t", partition=0, records=[], rows=Overlay(MemoryStore()), now=None, memory={}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [
        (b"k", bytes(MAX_MESSAGE_BYTES), []),
        (b"k" * 600_000, bytes(600_000), []),
        (b"k", bytes(900_000), [("h", bytes(200_000))]),
    ],
    ids=["value", "key and value", "headers and value"],
)
def test_an_output_that_kafka_would_refuse_is_poison(
    key: bytes, value: bytes, headers: list[tuple[str, bytes]]
) -> None:
    """As a refused record it would be tried again for ever, and its partition would stand still."""
    made = batch()

    with pytest.raises(Poison, match="too_large"):
        made.emit("out", key=key, value=value, headers=headers)

    assert made.outputs == []


def test_a_dead_letter_is_one_output_with_the_coordinates_in_the_error() -> None:
    made = batch()
    error = Poison("bad")

    made.dead_letter(Record("t", 0, 42, b"k", b"v", [], 0), error)

    [output] = made.outputs
    assert (output.topic, output.key, output.value) == ("dead-letters.app", b"k", b"v")
    assert str(error).endswith("(record t[0]@42)")
