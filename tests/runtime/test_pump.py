"""The pump on a real broker, with rebalances at the moments that hurt."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError

from streams.kafka.assignment import Partition
from streams.kafka.chunks import Chunk
from streams.kafka.pump import Pump
from streams.kafka.runtime import COMMIT_INTERVAL_S, COMMIT_RETRY_S
from tests.faults.flow import Flow
from tests.support.brokers import Cluster
from tests.support.kafka_io import TIMEOUT_SECONDS

pytestmark = pytest.mark.kafka


#: Between two looks whether the rebalance has taken place.
POLL_SECONDS = 1.0


class Recorder:
    """In place of the runtime: notes what the pump says, and commits nothing."""

    def __init__(self) -> None:
        self.starts: dict[int, dict[Partition, int]] = {}
        self.offsets: defaultdict[tuple[int, int], list[int]] = defaultdict(list)  # (generation, partition)
        self.failed: list[BaseException] = []
        self.committed: list[tuple[dict[Partition, int], KafkaError | None]] = []

    async def on_assigned(self, start: dict[Partition, int], fresh: dict[Partition, int], generation: int) -> None:
        self.starts[generation] = start

    async def on_revoked(self, partitions: set[Partition]) -> dict[Partition, int]:
        return {}

    def on_chunks(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            self.offsets[chunk.generation, chunk.partition] += [record.offset for record in chunk.records]

    def on_ends(self, ends: dict[Partition, int], generation: int) -> None: ...

    def on_committed(self, offsets: dict[Partition, int], error: KafkaError | None) -> None:
        self.committed.append((offsets, error))

    def on_lost(self) -> None: ...

    def on_failed(self, error: BaseException) -> None:
        self.failed.append(error)

    def all_of(self, generation: int) -> int:
        return sum(len(offsets) for (number, _), offsets in self.offsets.items() if number == generation)


class Trap:
    """A consumer in which a rebalance takes place between ``poll`` and ``consume``, once it is armed."""

    def __init__(self, consumer: Any, pump: Pump, join: Callable[[], None]) -> None:
        self._consumer = consumer
        self._pump = pump
        self._join = join
        self._polled: Any = None
        self.armed = False
        self.sprung = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def poll(self, timeout: float) -> Any:
        self._polled = self._consumer.poll(timeout)
        return self._polled

    def consume(self, count: int, timeout: float) -> list[Any]:
        if not self.armed or self._polled.error() is not None:  # an end of a partition is not worth a trap
            return list(self._consumer.consume(count, timeout))
        self.armed = False
        generation = self._pump.generation
        self._join()
        messages, deadline = list[Any](), time.monotonic() + TIMEOUT_SECONDS
        while self._pump.generation == generation:
            assert time.monotonic() < deadline, "the rebalance does not take place"
            # Only the call in which it takes place counts: the client drops from it what is of the old assignment, as
            # it would drop from one long call what these have brought before.
            messages = self._consumer.consume(count, POLL_SECONDS)
        messages += self._consumer.consume(count, POLL_SECONDS)
        self.sprung.set()
        return messages


@contextmanager
def member(flow: Flow) -> Iterator[Callable[[], None]]:
    """Another member of the group, which joins when the returned function is called. It reads another topic, so that
    its joining is a rebalance and all partitions of the input come back to the pump."""
    leaving = threading.Event()

    def run() -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": flow.servers, "group.id": flow.name, "enable.auto.commit": False,
                "partition.assignment.strategy": "range", "session.timeout.ms": 15_000,
            }
        )  # fmt: skip
        consumer.subscribe([flow.output])
        while not leaving.is_set():
            consumer.poll(0.1)
        consumer.close()

    thread = threading.Thread(target=run)
    try:
        yield thread.start
    finally:
        leaving.set()
        if thread.ident is not None:
            thread.join()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS * 2):
        while not condition():
            await asyncio.sleep(0.01)


def make(flow: Flow, recorder: Recorder) -> Pump:
    return Pump({"bootstrap.servers": flow.servers, "group.id": flow.name}, [flow.input], recorder)


def test_a_record_fetched_before_a_rebalance_is_not_taken_into_the_next_generation(flow: Flow) -> None:
    """It would be handled and committed in front of records that have to be fetched again: those would be lost."""

    async def body() -> Recorder:
        recorder = Recorder()
        pump = make(flow, recorder)
        with member(flow) as join:
            trap = Trap(pump._consumer, pump, join)
            pump._consumer = trap  # type: ignore[assignment]
            flow.feed(400)
            pump.start()
            await until(lambda: recorder.all_of(1) == 400)
            trap.armed = True
            await asyncio.to_thread(flow.feed, 50)
            await until(trap.sprung.is_set)
            mine = {number for _, number in recorder.starts[pump.generation]}
            ends = flow.ends()
            await until(lambda: all(len(recorder.offsets[pump.generation, number]) >= ends[number] for number in mine))
            await pump.stop()
        assert recorder.failed == []
        return recorder

    recorder = asyncio.run(body())

    assert len(recorder.starts) >= 2
    for (generation, number), offsets in recorder.offsets.items():
        start = recorder.starts[generation][flow.input, number]
        assert offsets == list(range(start, start + len(offsets))), f"generation {generation}, partition {number}"


def test_a_pause_that_was_asked_for_before_a_rebalance_is_forgotten(flow: Flow) -> None:
    """Nobody would take it back: the partition would stand still for ever, without any error."""

    async def body() -> Recorder:
        recorder = Recorder()
        pump = make(flow, recorder)

        async def asks_at_the_wrong_moment(partitions: set[Partition]) -> dict[Partition, int]:
            for partition in partitions:
                pump.pause(partition)
                pump.commit({partition: 0})
            return {}

        recorder.on_revoked = asks_at_the_wrong_moment  # type: ignore[method-assign]
        with member(flow) as join:
            flow.feed(400)
            pump.start()
            await until(lambda: recorder.all_of(1) == 400)
            join()
            await until(lambda: pump.generation == 2 and 2 in recorder.starts)
            mine = {number for _, number in recorder.starts[2]}
            await asyncio.to_thread(flow.feed, 200)
            ends = flow.ends()
            await until(lambda: all(len(recorder.offsets[2, number]) == ends[number] for number in mine))
            await pump.stop()
        return recorder

    recorder = asyncio.run(body())

    assert recorder.failed == []
    assert recorder.committed == [], "a commit of the old assignment would set the offsets back"


def test_a_partition_paused_before_a_rebalance_is_read_after_it(flow: Flow) -> None:
    """The new assignment starts unpaused: whoever counts what is buffered counts from zero too."""

    async def body() -> Recorder:
        recorder = Recorder()
        pump = make(flow, recorder)
        with member(flow) as join:
            flow.feed(400)
            pump.start()
            await until(lambda: recorder.all_of(1) == 400)
            for number in range(4):
                pump.pause((flow.input, number))
            await until(lambda: not pump._wishes)
            join()
            await until(lambda: pump.generation == 2 and 2 in recorder.starts)
            mine = {number for _, number in recorder.starts[2]}
            ends = flow.ends()
            await until(lambda: all(len(recorder.offsets[2, number]) == ends[number] for number in mine))
            await pump.stop()
        return recorder

    assert asyncio.run(body()).failed == []


@pytest.mark.slow
def test_commits_asked_for_while_the_broker_is_away_do_not_overtake_each_other(
    private_flow: tuple[Flow, Cluster],
) -> None:
    """The client repeats one that was not answered after it has sent the next: the group would stand where it was,
    and whoever waits for it to be done would wait for ever."""
    flow, stack = private_flow
    flow.feed(4_000)
    ends = {(flow.input, number): end for number, end in flow.ends().items()}

    flowing, back = threading.Event(), threading.Event()

    async def body() -> Recorder:
        recorder = Recorder()
        config = {"bootstrap.servers": flow.servers, "group.id": flow.name, "session.timeout.ms": 120_000}
        pump = Pump(config, [flow.input], recorder)
        pump.start()
        await until(lambda: recorder.all_of(1) == 4_000)
        flowing.set()
        done = 0
        while not back.is_set():  # at a worker's pace
            done += 1
            pump.commit({partition: min(done, end - 1) for partition, end in ends.items()})
            await asyncio.sleep(COMMIT_INTERVAL_S)
        while (ends, None) not in recorder.committed:
            pump.commit(ends)
            await asyncio.sleep(COMMIT_RETRY_S)
        await pump.stop()
        return recorder

    with ThreadPoolExecutor(1) as pool:  # the broker ends with the thread that starts it
        running = pool.submit(asyncio.run, body())
        assert flowing.wait(TIMEOUT_SECONDS)
        stack.kill_broker()
        stack.restart_broker()
        back.set()
        assert running.result().failed == []
    assert flow.committed() == flow.ends()
