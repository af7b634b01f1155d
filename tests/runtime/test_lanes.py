"""A lane alone, without Kafka: nothing leaves it in these tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from streams.core.errors import Transient
from streams.kafka import lanes
from streams.kafka.chunks import CHUNK_RECORDS, Batch, Chunk, Handler, Record
from streams.kafka.lanes import Agent, Lane, Works
from streams.kafka.outbox import Delivery, DeliveryFailed, Outbox
from streams.kafka.store import MemoryStore, Store
from streams.topics import TICKS


class Stores:
    """Empty ones."""

    def open(self, partition: int, stopped: Callable[[], bool]) -> Store:
        return MemoryStore()

    def end(self, partition: int) -> int:
        return 0


def chunk(topic: str, start: int, records: int) -> Chunk:
    """So many records from offset ``start`` on."""
    return Chunk(topic, 0, 1, [Record(topic, 0, start + n, b"k", b"v", [], 0) for n in range(records)], size=records)


class Refusing:
    """An outbox that does not deliver the first time; ``sent`` is all that was handed to it, in order."""

    def __init__(self) -> None:
        self.waits = 0
        self.sent: list[str] = []

    def emit(self, topic: str, *_: object) -> None:
        self.sent.append(topic)

    def emit_rows(self, topic: str, partition: int, rows: list[dict[str, bytes | None]], delivery: Delivery) -> None:
        self.sent.extend([topic] * len(rows))

    async def delivered(self, delivery: Delivery) -> None:
        self.sent.append("awaited")
        self.waits += 1
        if self.waits == 1:
            raise DeliveryFailed("the first time")


def works_of(
    threads: ThreadPoolExecutor,
    *,
    outbox: Refusing | None = None,
    stores: Stores | None = None,
    on_done: Callable[[Chunk], None] = lambda _: None,
) -> Works:
    """What a lane needs; an error of its own fails the test."""

    def on_fatal(error: BaseException) -> None:
        raise AssertionError from error

    return Works(
        app="test", outbox=cast("Outbox", outbox), stores=stores or Stores(), openers=[], threads=threads,
        opening=lambda _: None, now=lambda _: None, guard=lambda _: None, on_done=on_done, advance=lambda _: None,
        caught_up=lambda _: True, on_fatal=on_fatal, changelog_topic="rows",
    )  # fmt: skip


async def handled(
    *waiting: Chunk,
    handler: Handler | None = None,
    outbox: Refusing | None = None,
    stores: Stores | None = None,
    in_turn: str | None = None,
) -> tuple[list[tuple[str, list[int]]], list[Chunk]]:
    """What a lane gives to its handler, (topic, offsets) of each batch, and the chunks in the order they were done; all
    of ``waiting`` are there before it begins. ``in_turn``: the topic of an agent that takes turns."""
    batches: list[tuple[str, list[int]]] = []
    done: list[Chunk] = []
    finished = asyncio.Event()

    def handle(batch: Batch) -> None:
        batches.append((batch.topic, [record.offset for record in batch.records]))

    def on_done(one: Chunk) -> None:
        done.append(one)
        if len(done) == len(waiting):
            finished.set()

    with ThreadPoolExecutor(1) as threads:
        works = works_of(threads, outbox=outbox, stores=stores, on_done=on_done)
        lane = Lane(works, 0, 1)
        for one in waiting:
            lane.put(one, Agent(handler or handle, side_by_side=handler is not None, in_turn=one.topic == in_turn))
        await asyncio.wait_for(finished.wait(), 30.0)
        await lane.close()
    return batches, done


def run(*waiting: Chunk, in_turn: str | None = None) -> Any:
    return asyncio.run(handled(*waiting, in_turn=in_turn))


def test_small_chunks_that_wait_are_done_as_one() -> None:
    """A trickle would fall behind otherwise; each of them is told to be done, in order."""
    waiting = [chunk("t", start, 2) for start in (0, 2, 4)]

    batches, done = run(*waiting)

    assert batches == [("t", [0, 1, 2, 3, 4, 5])]
    assert done == waiting
    assert all(one.done for one in waiting)


def test_the_order_among_topics_stays() -> None:
    """What came in between is done in between."""
    batches, _ = run(chunk("t", 0, 1), chunk("t", 1, 1), chunk("u", 0, 1), chunk("t", 2, 1), chunk("t", 3, 1))

    assert batches == [("t", [0, 1]), ("u", [0]), ("t", [2, 3])]


def test_what_takes_turns_does_not_hold_up_what_came_behind_much_of_it() -> None:
    """Chunks of the others are done one for one with its own, whoever came first; each topic keeps its order."""
    many = [chunk("in", start, CHUNK_RECORDS) for start in range(0, 4 * CHUNK_RECORDS, CHUNK_RECORDS)]

    batches, _ = run(*many, chunk("t", 0, 1), chunk("u", 0, 1), chunk("t", 1, 1), in_turn="in")

    assert [(topic, offsets[0] // CHUNK_RECORDS if topic == "in" else offsets[0]) for topic, offsets in batches] == [
        ("in", 0), ("t", 0), ("in", 1), ("u", 0), ("in", 2), ("t", 1), ("in", 3)
    ]  # fmt: skip


def test_a_batch_has_no_more_records_than_a_chunk_may_have() -> None:
    """A crash repeats a whole batch."""
    batches, done = run(
        chunk("t", 0, CHUNK_RECORDS - 1), chunk("t", CHUNK_RECORDS, 1), chunk("t", CHUNK_RECORDS + 1, 1)
    )

    assert [len(offsets) for _, offsets in batches] == [CHUNK_RECORDS, 1]
    assert len(done) == 3


def test_every_chunk_of_ticks_is_an_instant_of_its_own() -> None:
    """What is due at the first is raised at the first."""
    batches, _ = run(chunk(TICKS, 0, 1), chunk(TICKS, 1, 1))

    assert batches == [(TICKS, [0]), (TICKS, [1])]


def test_side_by_side_outputs_and_rows_take_one_round_trip_and_what_failed_ends_before_it_is_tried_again() -> None:
    """A handler that is still open when its chunk is decided anew would take away what the second one relies on."""
    outbox = Refusing()
    steps: list[str] = []

    async def handle(batch: Batch) -> AsyncGenerator[None, None]:
        steps.append("begun")
        try:
            batch.emit("out", key=None, value=b"v")
            batch.rows.put(b"row", b"v")
            yield
        finally:
            steps.append("ended")

    asyncio.run(handled(chunk("a", 0, 1), handler=handle, outbox=outbox))

    assert steps == ["begun", "ended"] * 2
    assert outbox.sent == ["out", "rows", "awaited"] * 2


def test_a_broker_that_is_away_when_a_lane_notes_its_position_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The position only saves reading the changelog again."""
    monkeypatch.setattr(lanes, "POSITION_EVERY_ROWS", 1)

    class Away(Stores):
        asked = 0

        def end(self, partition: int) -> int:
            self.asked += 1
            raise Transient("the broker is away")

    async def handle(batch: Batch) -> None:
        batch.rows.put(b"row", b"v")

    stores, waiting = Away(), [chunk(topic, 0, 1) for topic in "abc"]
    outbox = Refusing()
    outbox.waits = 1  # it delivers

    _, done = asyncio.run(handled(*waiting, handler=handle, outbox=outbox, stores=stores))

    assert sorted(one.topic for one in done) == ["a", "b", "c"]
    assert stores.asked > 0


def test_a_lane_that_has_nothing_to_do_takes_up_what_comes_and_ends_when_it_is_told() -> None:
    """It sleeps until then, and what waits at its end is left to whoever has the partition next."""
    batches: list[int] = []

    async def main() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def handle(batch: Batch) -> None:
            batches.append(batch.records[0].offset)
            begun.set()
            await go_on.wait()

        with ThreadPoolExecutor(1) as threads:
            lane = Lane(works_of(threads), 0, 1)
            await asyncio.sleep(0.01)
            lane.put(chunk("t", 0, 1), Agent(handle))
            await asyncio.wait_for(begun.wait(), 30.0)
            lane.put(chunk("u", 0, 1), Agent(handle))
            closing = asyncio.create_task(lane.close())
            await asyncio.sleep(0)
            go_on.set()
            await asyncio.wait_for(closing, 30.0)

            idle = Lane(works_of(threads), 0, 1)
            await asyncio.sleep(0.01)
            await asyncio.wait_for(idle.close(), 30.0)

    asyncio.run(main())

    assert batches == [0]
