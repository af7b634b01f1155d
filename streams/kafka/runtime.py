"""A worker: one Faust app, its agents, and everything under them.

::

    pump (thread) ── chunks ──> Faust conductor ──> agent's stream ──> lane of the partition ──> four phases
         ^                                                                                          │
         └────────────── committed offsets <── unbroken prefix of done chunks <─────────────────────┘
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, cast

import faust
import structlog
import uvloop
from confluent_kafka import KafkaError, KafkaException
from faust.app.base import BootStrategy as AppBootStrategy
from faust.types import TP

from streams.core.errors import EXIT_FATAL, Fatal, Misconfigured, Transient
from streams.kafka.assignment import NOTHING, Assignment, Partition
from streams.kafka.chunks import Chunk, Handler, Opener
from streams.kafka.cluster import Layout, inspect_layout
from streams.kafka.driver import Consumer, Transport
from streams.kafka.garbage import collect_seldom
from streams.kafka.health import Health
from streams.kafka.lanes import Abandoned, Agent, Counters, Lane, Works
from streams.kafka.outbox import Outbox
from streams.kafka.pump import SESSION_TIMEOUT_MS, STALLED_AFTER_S, Pump
from streams.kafka.stall import StallWatch
from streams.kafka.stores import Stores
from streams.kafka.ticks import BusinessTime, TickReader
from streams.kafka.worker_metrics import worker_metrics
from streams.settings import ClockMode, Settings
from streams.topics import TICKS
from streams.tracing import tracer

#: Commits are spaced by this: each costs the broker a write. Idle groups commit at once, so that whoever reads the
#: group's offsets (the virtual clock, the lag monitor) sees within 50 ms that nothing is in flight.
COMMIT_INTERVAL_S = 0.025
#: A refused commit (a rebalance, a broker that moves) is tried again after this long.
COMMIT_RETRY_S = 0.2
#: A person who has made a queue expects it to work at once; asking costs the broker one small request.
FOLLOW_EVERY_S = 2.0
#: Topics that an agent should read; may block, and raise Transient when nobody knows at the moment.
Following: TypeAlias = Callable[[], Collection[str]]

log = structlog.get_logger(__name__)


class Runtime:
    """Builds and runs one worker.

    ``app`` is its name and consumer group; ``instance`` tells workers of the same app apart and must be stable over
    restarts (static membership: a restarted worker gets its partitions back without a rebalance).
    """

    _pump: Pump  # there when Faust has subscribed

    def __init__(
        self,
        settings: Settings,
        app: str,
        *,
        instance: str = "1",
        read_tick: TickReader | None = None,
        stateful: bool = True,
        memory_store: bool = False,
        group: str | None = None,
        health_port: int | None = None,
        changelog: str | None = None,
    ) -> None:
        self.settings = settings
        self.app = app
        self.instance = instance
        self.group = group or app
        self.changelog_topic = changelog or f"{app}-store-changelog"
        self.counters = Counters()
        self._tracer = tracer(settings, app, instance)
        self._stateful = stateful
        self._memory_store = memory_store
        self._health_port = health_port
        self._time = BusinessTime(settings.kafka(), read_tick, wall=settings.clock is ClockMode.WALL)
        self._openers: list[Opener] = []
        self._background: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._at_end: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._agents: dict[str, Agent] = {}
        self._topics: list[str] = []
        self._leading: list[str] = []
        self._lanes: dict[int, Lane] = {}
        self._assignment = NOTHING
        self._generation = 0
        self._known_ends: dict[Partition, int] = {}
        self._faust = self._build_app()

    # -- building ---------------------------------------------------------------------------------------------------

    def _build_app(self) -> faust.App:
        app = _App(
            self.group,
            broker=f"kafka://{self.settings.bootstrap_servers}",  # never connected to: the transport is ours
            store="memory://",
            datadir=str(self.directory / "faust"),
            key_serializer="raw",
            value_serializer="raw",
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            broker_commit_interval=3600.0,  # Faust's own commit loop has nothing to do
            # Chunks wait in the stream only until the agent hands them to a lane; a bound here could block the inbox.
            stream_buffer_maxsize=1_000_000,
            stream_wait_empty=False,
            worker_redirect_stdouts=False,
        )
        app.transport = Transport(app.conf.broker, app)
        cast("Any", app.topics)._resubscribe_sleep_lock_seconds = FOLLOW_EVERY_S
        app.curfew_subscribed = self._on_subscribed
        app.curfew_stopping = self._on_stopping
        return app

    @property
    def directory(self) -> Path:
        """Where this worker keeps what it may lose: stores are copies of changelogs."""
        return (self.settings.data_dir / "workers" / f"{self.group}-{self.instance}").absolute()

    def agent(
        self,
        name: str,
        *,
        topics: Sequence[str],
        handler: Handler,
        open: Opener | None = None,
        following: Following | None = None,
        side_by_side: bool = False,
        in_turn: bool = False,
    ) -> None:
        """Register a Faust agent: ``handler`` gets every chunk of ``topics``; ``open`` rebuilds what it keeps in
        ``batch.memory`` whenever a partition is opened.

        ``following`` says, again and again and in a thread, which topics there are by now: a topic that is not read yet
        is read too, from its beginning, as soon as it is there. Such a worker needs one agent that does not follow.

        ``side_by_side``: chunks of a partition are handled at the same time, for handlers that wait for the outside.
        Such a handler writes no row that another chunk's decision needs, and keeps nothing in ``batch.memory``; what it
        has to hand at a yield becomes durable at once, rows not after outputs, so it can do with either alone.

        ``in_turn``: what waits of such agents is one queue, of all others another, and the lane takes from both in
        turn, instead of all in the order of arrival. For what comes from outside: much of it may wait, and what is
        under way shall go on.
        """
        agent = Agent(handler, side_by_side, in_turn)
        if open is not None:
            self._openers.append(open)
        if following is None:
            self._leading.extend(topics)
        else:
            self.background(lambda: self._follow(name, agent, following))
        self._add_agent(name, topics, agent)

    async def _follow(self, name: str, agent: Agent, following: Following) -> None:
        while True:
            await asyncio.sleep(FOLLOW_EVERY_S)
            try:
                topics = await asyncio.get_running_loop().run_in_executor(self._threads, following)
                new = sorted(set(topics) - self._agents.keys())
                if not new:
                    continue
                await asyncio.get_running_loop().run_in_executor(
                    self._threads, inspect_layout, self.settings.kafka(), [*self._leading, *new], None
                )
            except (Transient, KafkaException) as error:
                log.warning("worker.does_not_hear_of_new_topics", app=self.app, error=str(error))
                continue
            except Misconfigured as error:
                log.error("worker.cannot_read_new_topics", app=self.app, error=str(error))
                continue
            log.info("worker.follows", app=self.app, agent=name, topics=new)
            await self._add_agent(f"{name}-{len(self._agents)}", new, agent).maybe_start()

    def _add_agent(self, name: str, topics: Sequence[str], agent: Agent) -> Any:
        self._topics.extend(topics)
        for topic in topics:
            if topic in self._agents:
                raise ValueError(f"two agents of app {self.app} consume {topic}: one worker decides a record once")
            self._agents[topic] = agent

        # acks=False: Faust acknowledges in a finally, so exceptions would acknowledge too; the lanes keep account.
        source = self._faust.topic(
            *topics, key_type=None, value_type=None, key_serializer="raw", value_serializer="raw", acks=False
        )

        async def hand_over(stream: Any) -> None:
            async for chunk in stream:
                lane = self._lanes.get(chunk.partition)
                if lane is not None and chunk.generation == self._generation:
                    lane.put(chunk, agent)

        return self._faust.agent(source, name=f"{self.app}.{name}")(hand_over)

    def background(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``task()`` for as long as the worker runs. It may only produce: what it learns comes back as records."""
        self._background.append(task)

    def at_end(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Await ``close()`` when the worker stops, after the last chunk, which may need what it closes."""
        self._at_end.append(close)

    def publish(
        self, topic: str, *, key: str | bytes | None, value: bytes | None, partition: int = -1
    ) -> None:  # for background tasks
        """Produce one record outside of a chunk (ticks, reports); delivery is not awaited."""
        self._outbox.emit(topic, key, value, None, partition)

    @property
    def partitions(self) -> Iterable[int]:
        """Partition numbers that this worker has at the moment."""
        return tuple(self._lanes)

    @property
    def idle(self) -> bool:
        """Whether everything that was fetched so far is handled and committed."""
        return self._assignment.idle

    def stop(self) -> None:
        """End :meth:`run` gracefully; called on the event loop."""
        self._stop.set()

    # -- running ----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; returns the exit code. Call it in the main thread."""
        collect_seldom()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(self._main())

    async def _main(self) -> int:
        stop = asyncio.Event()
        self._stop = stop
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="curfew")
        layout = await self._wait_for_layout(stop)
        if layout is None:
            return 0
        kafka = self.settings.kafka(**{"client.id": f"curfew-{self.app}-{self.instance}"})
        self._outbox = Outbox(kafka)
        self._outbox.start()
        self._stores = Stores(
            kafka, self.directory / "store", layout, self.changelog_topic,
            rocks=self._stateful and not self._memory_store, stateful=self._stateful,
        )  # fmt: skip
        self._stall = StallWatch(limit_s=STALLED_AFTER_S)
        self._works = Works(
            app=self.app,
            outbox=self._outbox,
            stores=self._stores,
            openers=self._openers,
            threads=self._threads,
            now=self._time.now,
            guard=self._guard,
            on_done=self._on_done,
            advance=self._advance,
            opening=self._time.open,
            caught_up=lambda number: self._assignment.caught_up(number),
            on_fatal=self._die,
            changelog_topic=self.changelog_topic,
            tracer=self._tracer,
            counters=self.counters,
        )
        self._done = asyncio.Event()
        self.directory.mkdir(parents=True, exist_ok=True)  # Faust makes only the last part of the path
        health = Health(self._health_port, self.health, host=self.settings.health_host, metrics=self.metrics)
        await health.start()
        await self._faust.start()
        committer = loop.create_task(self._guarded(self._commit_loop))
        crash = loop.create_task(self._watch_faust())
        tasks = [loop.create_task(self._guarded(task)) for task in self._background]
        log.info("worker.started", app=self.app, instance=self.instance, topics=len(self._topics))
        await stop.wait()
        log.info("worker.stopping", app=self.app, instance=self.instance)
        for task in (committer, crash, *tasks):
            task.cancel()
        await self._faust.stop()
        for close in self._at_end:
            await close()
        await health.stop()
        self._outbox.stop()
        await loop.run_in_executor(None, self._outbox.close)
        self._stores.close()
        self._stall.stop()
        await loop.run_in_executor(None, self._tracer.close)
        log.info("worker.stopped", app=self.app, instance=self.instance, records=self.counters.records)
        return 0

    async def _wait_for_layout(self, stop: asyncio.Event) -> Layout | None:
        """Check the topics before anything is subscribed; a broker that is not up yet is waited for."""
        loop = asyncio.get_running_loop()
        changelog = self.changelog_topic if self._stateful else None
        waited = 0
        while not stop.is_set():
            try:
                return await loop.run_in_executor(
                    self._threads, inspect_layout, self.settings.kafka(), self._topics, changelog
                )
            except KafkaException as error:
                if waited % 10 == 0:
                    log.warning(
                        "worker.waits_for_kafka", servers=self.settings.bootstrap_servers, error=error.args[0].str(),
                        remedy="start the broker, or set CURFEW_BOOTSTRAP_SERVERS",
                    )  # fmt: skip
                waited += 1
                await asyncio.sleep(1.0)
        return None

    async def _watch_faust(self) -> None:
        """A crashed Faust service hands over nothing any more, while the pump would keep the partitions."""
        await self._faust._crashed.wait()
        self._die(Fatal(f"Faust has crashed: {self._faust.crash_reason!r}"))

    async def _guarded(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await task()
        except Exception as error:
            self._die(error)

    async def _on_subscribed(self, topics: set[str]) -> None:
        config = self.settings.kafka(
            **{
                "group.id": self.group,
                "group.instance.id": f"{self.group}-{self.instance}",
                "client.id": f"curfew-{self.app}-{self.instance}",
            }
        )
        if hasattr(self, "_pump"):
            self._pump.subscribe(sorted(topics))
            return
        self._pump = Pump(config, sorted(topics), self, self._leading if len(self._leading) < len(topics) else ())
        self._pump.start()

    async def _on_stopping(self) -> None:
        if hasattr(self, "_pump"):
            await self._pump.stop()

    # -- what the pump tells ----------------------------------------------------------------------------------------

    async def on_assigned(self, start: dict[Partition, int], fresh: dict[Partition, int], generation: int) -> None:
        self._generation = generation
        self._assignment = Assignment(start, self._pump.ends, fresh)
        self._done.set()
        await self._faust.topics.on_partitions_assigned({TP(*partition) for partition in start})
        self._time.assigned({number: offset for (topic, number), offset in start.items() if topic == TICKS})
        for number in sorted({number for _, number in start}):
            self._lanes[number] = Lane(self._works, number, generation)
        log.info("worker.assigned", app=self.app, generation=generation, partitions=sorted(self._lanes))

    async def on_revoked(self, partitions: set[Partition]) -> dict[Partition, int]:
        lanes, self._lanes = self._lanes, {}
        await asyncio.gather(*(lane.close() for lane in lanes.values()))
        offsets, self._assignment = self._assignment.to_commit(), NOTHING
        log.info("worker.revoked", app=self.app, partitions=sorted({number for _, number in partitions}))
        return offsets

    def on_lost(self) -> None:
        self._generation = -1  # guard() now refuses every write of the chunks in flight
        self._assignment = NOTHING

    def on_chunks(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            if chunk.generation != self._generation:
                continue
            self._pump.busy = True
            if self._assignment.add(chunk):
                self._pump.pause((chunk.topic, chunk.partition))
            cast("Consumer", self._faust.consumer).deliver(chunk)

    def on_ends(self, ends: dict[Partition, int], generation: int) -> None:
        if generation != self._generation:
            return
        for partition, offset in ends.items():
            self._assignment.reach_end(partition, offset)
        self._done.set()

    def on_failed(self, error: BaseException) -> None:
        self._die(error)

    # -- what the lanes tell ----------------------------------------------------------------------------------------

    def _on_done(self, chunk: Chunk) -> None:
        if chunk.generation != self._generation:
            return
        if self._assignment.done(chunk):
            self._pump.resume((chunk.topic, chunk.partition))
        self._done.set()

    def _advance(self, chunk: Chunk) -> None:
        if chunk.topic == TICKS:
            self._time.handle(chunk.partition, chunk.records)

    def _guard(self, generation: int) -> None:
        """Refuse to write for partitions that may belong to another worker by now.

        A record that a stopped and resumed process still had in its hands would beat the new owner's in compaction.
        """
        if self._stall.stalled:
            self._die(Fatal(self._stall.reason))
        if generation != self._generation:
            raise Abandoned

    def _die(self, error: BaseException) -> NoReturn:
        """Leave at once and commit nothing: a restart begins where the last commit ended."""
        log.error("worker.died", app=self.app, instance=self.instance, error=str(error), kind=type(error).__name__,
                  exc_info=error if self.settings.log_level == "debug" else None)  # fmt: skip
        sys.stderr.flush()
        os._exit(EXIT_FATAL)

    # -- commits ----------------------------------------------------------------------------------------------------

    async def _commit_loop(self) -> None:
        while True:
            await self._done.wait()
            self._done.clear()
            if offsets := self._assignment.to_commit():
                self._pump.commit(offsets)
            await asyncio.sleep(COMMIT_INTERVAL_S)

    def on_committed(self, offsets: dict[Partition, int], error: KafkaError | None) -> None:
        if error is not None:
            # Nothing advanced: the same offsets go again with the next commit, or the next owner repeats the chunks.
            log.warning("worker.not_committed", app=self.app, error=error.str())
            asyncio.get_running_loop().call_later(COMMIT_RETRY_S, self._done.set)
            return
        self._assignment.committed(offsets)
        self._pump.busy = not self.idle

    # -- looking in -------------------------------------------------------------------------------------------------

    def metrics(self) -> str:
        """For Prometheus. The ends are those of the scrape before: only the pump's thread may ask for them."""
        if hasattr(self, "_pump"):
            self._pump.ask_ends(lambda ends: setattr(self, "_known_ends", ends))
        alive, facts = self.health()
        return worker_metrics(
            app=self.app,
            instance=self.instance,
            alive=alive,
            outstanding=facts["chunks_outstanding"],
            counters=self.counters,
            lags=self._assignment.lags(self._known_ends),
            now={number: self._time.now(number) for number in self._lanes},
        )

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether the worker is alive, and what it did so far.

        Alive means only that its pump has come back from a poll within a session. It need not have a partition, a lane
        may wait for Kafka or for a hook as long as it takes (the lag tells of that), and while a hand-over or a broker
        that is away holds the pump for longer it does not count as alive.
        """
        polled = getattr(self, "_pump", None) and time.monotonic() - self._pump.last_poll
        alive = polled is not None and polled < SESSION_TIMEOUT_MS / 1000
        return bool(alive), {
            "app": self.app,
            "instance": self.instance,
            "partitions": sorted(self._lanes),
            "chunks_outstanding": self._assignment.outstanding,
            "records": self.counters.records,
            "outputs": self.counters.outputs,
            "rows": self.counters.rows,
            "retries": self.counters.retries,
            "now": {str(n): str(self._time.now(n)) for n in sorted(self._lanes)},
            "at": datetime.now(UTC).isoformat(),
        }


class _App(faust.App):
    """Faust's app without its own producer: everything leaves through the outbox."""

    class BootStrategy(AppBootStrategy):
        enable_kafka_producer = False
        enable_web = False

    async def _wait_for_table_recovery_completed(self) -> bool:
        """There are no Faust tables: stores are recovered by their lane, before its first chunk."""
        return False

    curfew_subscribed: Callable[[set[str]], Coroutine[Any, Any, None]]
    curfew_stopping: Callable[[], Coroutine[Any, Any, None]]
