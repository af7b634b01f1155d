"""What of an assignment is done, may be committed, holds too much, or has caught up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka import assignment
from streams.kafka.assignment import NOTHING, Assignment, Progress
from streams.kafka.chunks import Chunk, Record
from streams.topics import TICKS


def a_chunk(offset: int, *, topic: str = "t", size: int = 0) -> Chunk:
    """One record."""
    return Chunk(topic, 0, 1, [Record(topic, 0, offset, None, None, [], 0)], size)


@given(order=st.permutations(range(6)))
def test_only_the_unbroken_prefix_of_done_chunks_may_be_committed(order: list[int]) -> None:
    """Whatever the order in which they end: a crash repeats what is behind the gap, and loses nothing before it."""
    progress = Progress(0)
    chunks = [Chunk("t", 0, 1, [Record("t", 0, offset, None, None, [], 0)]) for offset in range(6)]
    for chunk in chunks:
        progress.add(chunk)
    committed = 0

    for index in order:
        chunks[index].done = True
        committed = progress.committable() or committed
        prefix = next((i for i, chunk in enumerate(chunks) if not chunk.done), len(chunks))
        assert committed == prefix
        assert progress.outstanding == len(chunks) - prefix


def test_the_end_of_a_partition_is_committed_once_everything_before_it_is_done() -> None:
    """It may lie behind the last record: transactions end with a mark, and a lag of one would stay for ever."""
    progress = Progress(0)
    chunk = Chunk("t", 0, 1, [Record("t", 0, 3, None, None, [], 0)])
    progress.add(chunk)
    progress.reach_end(6)
    early = progress.committable()
    chunk.done = True

    assert early is None
    assert progress.committable() == 6
    assert progress.committable() is None


def test_a_partition_has_caught_up_when_all_is_done_that_was_there_at_first() -> None:
    """Whatever came since; and also where the end is a mark that is no record."""
    progress = Progress(3, end=5)
    chunks = [Chunk("t", 0, 1, [Record("t", 0, offset, None, None, [], 0)]) for offset in (3, 4, 5)]
    found = []
    for chunk in chunks:
        progress.add(chunk)
    for chunk in chunks[:2]:
        chunk.done = True
        found.append(progress.caught_up)
        progress.committable()
    marked = Progress(3, end=5)
    before = marked.caught_up
    marked.reach_end(5)

    assert found == [False, True]
    assert progress.caught_up
    assert (before, marked.caught_up, Progress(5, end=5).caught_up) == (False, True, True)


def test_an_end_that_is_known_already_is_nothing_to_commit() -> None:
    progress = Progress(5)
    progress.reach_end(5)

    assert progress.committable() is None


def test_nothing_new_is_nothing_to_commit() -> None:
    progress = Progress(5)
    progress.add(Chunk("t", 0, 1, [Record("t", 0, 5, None, None, [], 0)]))

    assert progress.committable() is None


def test_what_is_done_is_to_be_committed_until_kafka_has_it() -> None:
    """A commit that is refused is simply asked for again; one that has been overtaken does not count."""
    held = Assignment({("t", 0): 5, ("u", 0): 7}, {}, {("u", 0): 7})
    chunks = [a_chunk(5), a_chunk(6)]
    for chunk in chunks:
        held.add(chunk)
    first = held.to_commit()
    chunks[0].done = True
    held.done(chunks[0])
    second = held.to_commit()
    chunks[1].done = True
    held.done(chunks[1])
    third = held.to_commit()
    held.committed(second)
    left = held.to_commit()
    held.committed(third)

    assert (first, second, third) == ({("u", 0): 7}, {("u", 0): 7, ("t", 0): 6}, {("u", 0): 7, ("t", 0): 7})
    assert left == {("t", 0): 7}
    assert held.idle


def test_a_partition_that_holds_too_much_is_paused_once_and_resumed_when_it_is_nearly_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its share of the buffer is what matters: a full one must not starve the others."""
    monkeypatch.setattr(assignment, "BUFFER_BYTES", 80)
    held = Assignment({("t", 0): 0, ("u", 0): 0}, {}, {})
    chunks = [a_chunk(offset, size=15) for offset in range(4)]

    paused = [held.add(chunk) for chunk in chunks]
    resumed = [held.done(chunk) for chunk in chunks]

    assert paused == [False, False, True, False]
    assert resumed == [False, False, False, True]


def test_a_partition_number_has_caught_up_when_all_of_its_topics_have() -> None:
    """But the ticks: time jumps to the newest one. What is not assigned has caught up with nothing."""
    held = Assignment({("t", 0): 0, ("u", 0): 3, (TICKS, 0): 0}, {("t", 0): 1, ("u", 0): 4, (TICKS, 0): 9}, {})
    first = a_chunk(0)
    held.add(first)
    first.done = True
    held.done(first)
    before = held.caught_up(0)
    held.reach_end(("u", 0), 4)

    assert (before, held.caught_up(0)) == (False, True)
    assert not held.caught_up(1)
    assert not NOTHING.caught_up(0)


def test_the_lag_is_what_is_not_done() -> None:
    """Of partitions that are ours and whose end is known."""
    held = Assignment({("t", 0): 4, ("u", 0): 4}, {}, {})

    assert held.lags({("t", 0): 10, ("u", 0): -1, ("v", 0): 3}) == {("t", 0): 6}
