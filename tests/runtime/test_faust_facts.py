"""What the runtime relies on in Faust, one fact per test: a new version that breaks one must not break it silently.

The real app of :class:`streams.kafka.runtime.Runtime` runs, with its conductor, agents and streams; only the pump under
it is missing: chunks are put into the consumer by hand, and what would reach a lane is recorded.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

from streams.core.errors import EXIT_FATAL
from streams.kafka.chunks import Batch, Chunk, Record
from streams.kafka.lanes import Agent
from streams.kafka.runtime import Runtime
from streams.settings import Settings
from tests.support.kafka_io import TIMEOUT_SECONDS

TOPICS = ("a", "b")


class Recorder:
    """In place of a lane."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []

    def put(self, chunk: Chunk, agent: Agent) -> None:
        self.chunks.append(chunk)


class Bench:
    """A started app, its four recorders, and what it told the pump."""

    def __init__(self, directory: Path, servers: str = "127.0.0.1:1") -> None:
        self.runtime = Runtime(Settings(data_dir=directory, bootstrap_servers=servers), "facts")
        self.runtime.agent("first", topics=["a"], handler=_ignore)
        self.runtime.agent("second", topics=["b"], handler=_ignore)
        self.app: Any = self.runtime._faust
        self.app.curfew_subscribed = self._started  # type: ignore[attr-defined]
        self.app.curfew_stopping = self._stopping  # type: ignore[attr-defined]
        self.subscribed: list[set[str]] = []
        self.flow_was_active: list[bool] = []
        self.agents_ran: list[bool] = []
        self.stopped = 0
        self.lanes = {number: Recorder() for number in range(4)}
        self.runtime._lanes = self.lanes  # type: ignore[assignment]
        self.runtime._generation = 1

    async def _started(self, topics: set[str]) -> None:
        self.subscribed.append(set(topics))
        self.flow_was_active.append(self.app.flow_control.is_active())
        self.agents_ran.append(all(agent._actors for agent in self.app.agents.values()))

    async def _stopping(self) -> None:
        self.stopped += 1

    @property
    def consumer(self) -> Any:
        return self.app.consumer

    def deliver(self, *chunks: Chunk) -> None:
        for made in chunks:
            self.consumer.deliver(made)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while not condition():
                await asyncio.sleep(0.001)

    async def start(self) -> None:
        self.runtime.directory.mkdir(parents=True)
        await self.app.start()
        await self.until(lambda: self.subscribed)
        await self.app.topics.on_partitions_assigned({TP(topic, number) for topic in TOPICS for number in range(4)})


def _ignore(batch: Batch) -> None: ...


def chunk(partition: int = 0, offset: int = 0, topic: str = "a") -> Chunk:
    return Chunk(topic, partition, 1, [Record(topic, partition, offset, b"k", b"v", [], 0)])


@asynccontextmanager
async def running(directory: Path, servers: str = "127.0.0.1:1") -> AsyncIterator[Bench]:
    bench = Bench(directory, servers)
    await bench.start()
    try:
        yield bench
    finally:
        await bench.app.stop()


def check(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await body()

    asyncio.run(main())


def test_subscribe_is_called_once_with_all_topics_after_the_agents_run(tmp_path: Path) -> None:
    """Earlier, and the pump would deliver to nobody; twice, and there would be two pumps."""

    async def body() -> None:
        async with running(tmp_path) as bench:
            bench.deliver(chunk())
            await bench.until(lambda: bench.lanes[0].chunks)

            assert bench.subscribed == [{"a", "b"}]
            assert bench.agents_ran == [True]

    check(body)


def test_flow_control_is_closed_until_it_is_resumed_and_then_stays_open(tmp_path: Path) -> None:
    """Streams skip whatever arrives while it is closed: our consumer opens it once, before the pump starts."""

    async def body() -> None:
        before = Bench(tmp_path / "unstarted").app.flow_control.is_active()
        async with running(tmp_path / "started") as bench:
            assert not before
            assert bench.flow_was_active == [True]
            assert bench.app.flow_control.is_active()

    check(body)


def test_the_conductor_delivers_by_the_index_set_on_assignment_in_order(tmp_path: Path) -> None:
    """The chunk itself arrives, undecoded, at the lane of its partition."""

    async def body() -> None:
        async with running(tmp_path) as bench:
            sent = [chunk(number % 4, number, TOPICS[number % 8 // 4]) for number in range(400)]
            bench.deliver(*sent)
            await bench.until(lambda: sum(len(lane.chunks) for lane in bench.lanes.values()) == len(sent))

            for number, lane in bench.lanes.items():
                for topic in TOPICS:
                    mine = [one for one in sent if (one.topic, one.partition) == (topic, number)]
                    found = [one for one in lane.chunks if one.topic == topic]
                    assert [id(one) for one in found] == [id(one) for one in mine]

    check(body)


def test_topics_without_acks_are_not_tracked(tmp_path: Path) -> None:
    """Else Faust would keep every message of a worker that never lets it commit, until memory is full."""

    async def body() -> None:
        async with running(tmp_path) as bench:
            bench.deliver(*(chunk(0, number) for number in range(200)))
            await bench.until(lambda: len(bench.lanes[0].chunks) == 200)

            assert not bench.consumer._unacked_messages
            assert not bench.consumer._acked
            assert not bench.app.topics.acks_enabled_for("a")

    check(body)


def test_streams_skip_events_of_another_generation_of_faust(tmp_path: Path) -> None:
    """So ours never counts Faust's generations up, and stamps each message with the current one."""

    async def body() -> None:
        async with running(tmp_path) as bench:
            make = bench.consumer._to_message

            def stale(tp: TP, one: Chunk) -> Any:
                message = make(tp, one)
                message.generation_id += 1
                return message

            bench.consumer._to_message = stale
            bench.deliver(chunk(0, 1))
            await bench.until(lambda: bench.consumer._inbox.empty())
            bench.consumer._to_message = make
            bench.deliver(chunk(0, 2))
            await bench.until(lambda: bench.lanes[0].chunks)

            assert [one.next_offset for one in bench.lanes[0].chunks] == [3]

    check(body)


def test_chunks_of_an_older_generation_of_ours_do_not_reach_a_lane(tmp_path: Path) -> None:
    """What was on its way through Faust during a rebalance is fetched again by the new owner."""

    async def body() -> None:
        async with running(tmp_path) as bench:
            old = chunk(0, 1)
            old.generation = 0
            bench.deliver(old, chunk(0, 2))
            await bench.until(lambda: bench.lanes[0].chunks)

            assert [one.next_offset for one in bench.lanes[0].chunks] == [3]

    check(body)


def test_an_exception_that_leaves_an_agent_acknowledges_the_event(tmp_path: Path) -> None:
    """Why acknowledgements of Faust must not decide about commits: it did nothing, and would commit."""

    async def body() -> None:
        bench = Bench(tmp_path)
        failed: list[Any] = []

        async def broken(stream: Any) -> None:
            async for event in stream.events():
                failed.append(event.message)
                raise RuntimeError("nothing was done")

        topic = bench.app.topic("c", key_type=None, value_type=None, key_serializer="raw", value_serializer="raw")
        bench.app.agent(topic, name="broken")(broken)
        await bench.start()
        await bench.app.topics.on_partitions_assigned({TP("c", 0)})
        bench.deliver(chunk(0, 1, "c"))
        await bench.until(lambda: failed and failed[0].acked)

        assert bench.app.topics.acks_enabled_for("c")
        assert not bench.consumer._unacked_messages
        await bench.app.stop()

    check(body)


def test_an_app_without_assignment_is_stopped_without_touching_partitions(tmp_path: Path) -> None:
    """Faust would pause, clear and seek what it believes to own; an empty assignment makes it leave all that to us."""

    async def body() -> None:
        bench = Bench(tmp_path)
        await bench.start()
        touched: list[Any] = []
        bench.consumer.pause_partitions = touched.append
        bench.app.tables.on_partitions_revoked = touched.append

        await bench.app.stop()

        assert touched == []
        assert bench.stopped == 1

    check(body)


def test_faust_opens_no_connection_and_makes_no_topic(tmp_path: Path) -> None:
    """Neither aiokafka nor a producer of its own nor a leader topic: the broker address given to it is never used."""

    async def body() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            host, port = server.getsockname()
            async with running(tmp_path, f"{host}:{port}") as bench:
                bench.deliver(chunk())
                await bench.until(lambda: bench.lanes[0].chunks)
                topics = {name for topic in bench.app.topics for name in topic.topics}
            with pytest.raises(BlockingIOError):
                server.accept()

        assert topics == {"a", "b"}

    check(body)


CRASH = """
import asyncio, sys
from pathlib import Path
from tests.runtime.test_faust_facts import Bench, chunk

async def main():
    bench = Bench(Path(sys.argv[1]))
    await bench.start()
    watch = asyncio.create_task(bench.runtime._watch_faust())
    bench.deliver(chunk(0, 1, "nobody reads this"))
    await watch

asyncio.run(main())
"""


def test_a_crash_inside_faust_ends_the_worker(tmp_path: Path) -> None:
    """A crashed service shows on the app; else the pump would keep partitions that nobody works on."""
    result = subprocess.run(
        [sys.executable, "-c", CRASH, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )

    assert result.returncode == EXIT_FATAL, result.stderr
    assert "Faust has crashed: KeyError" in result.stdout + result.stderr


def test_topics_of_an_agent_that_comes_later_reach_the_pump_once(tmp_path: Path) -> None:
    """Faust subscribes again with all topics; what it has said already says nothing new."""

    async def body() -> None:
        async with running(tmp_path) as bench:
            await bench.consumer.subscribe({"a", "b"})
            await bench.consumer.subscribe({"a", "b", "c"})

            assert bench.subscribed == [{"a", "b"}, {"a", "b", "c"}]

    check(body)
