"""Lanes: one for each partition number of a worker, in which chunks pass the four phases, one after another.

::

    decide      run the handler on an overlay over the store (reads fall through, writes stay in the overlay)
    outputs     produce every record that the chunk causes, await every acknowledgement
    changelog   produce the overlay's rows, await every acknowledgement
    apply       one atomic write of the rows into the local store; then the chunk is done and may be committed

A crash between any two of them is harmless: what was not done is decided again, on rows that do not know of it yet.
Rows before outputs would lose events for ever, because the second time the revision guard would say "seen already".
Lanes run side by side, so while one waits for Kafka another decides.

Chunks that are handled side by side within a lane take outputs and changelog in one: when that fails they are decided
again, and the changelog may hold rows of the decision that was thrown away. Their handlers can do with it.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeAlias

import structlog

from streams.core.errors import CurfewError, Fatal, Transient
from streams.exposition import Histogram
from streams.kafka.chunks import CHUNK_BYTES, CHUNK_RECORDS, Batch, Chunk, Handler, Opener, joined
from streams.kafka.failpoints import ENABLED, passing
from streams.kafka.outbox import Delivery, Outbox
from streams.kafka.recovery import Stopped
from streams.kafka.store import Overlay, Store
from streams.topics import TICKS
from streams.tracing import OFF, SpanKind, Tracer, traced, traceparent

#: Waiting times between tries of a chunk; the last one repeats until the world is well again or the partition goes.
BACK_OFF_S = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)
#: How much changelog a kill -9 may cost to read again; asking for the position costs a round trip.
POSITION_EVERY_ROWS = 20_000
#: Chunks of one partition that are worked on side by side, of agents that allow it. Each holds its records in memory.
SIDE_BY_SIDE = 256
#: A chunk takes milliseconds; seconds mean a slow broker, minutes one that is away.
CHUNK_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Agent:
    """Who handles the chunks of some topics, and how: see :meth:`streams.kafka.runtime.Runtime.agent`."""

    handler: Handler
    side_by_side: bool = False
    in_turn: bool = False


#: A chunk and whose it is.
Work: TypeAlias = tuple[Chunk, Agent]


class Abandoned(Exception):
    """The partition belongs to another worker now, or will as soon as this one lets go of it; whatever was not finished
    is that worker's."""


class StoreSource(Protocol):
    """Opens the recovered store of a partition; both calls block and run in a thread."""

    def open(self, partition: int, stopped: Callable[[], bool]) -> Store: ...

    def end(self, partition: int) -> int:
        """The changelog's end offset; only called while the lane has nothing in flight."""
        ...


@dataclass(slots=True, kw_only=True)
class Counters:
    """What a worker did since it started; read by the health endpoint."""

    chunks: int = 0
    records: int = 0
    outputs: int = 0
    rows: int = 0
    retries: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)
    chunk_seconds: Histogram = field(default_factory=lambda: Histogram(CHUNK_BOUNDS_S))


@dataclass(slots=True, kw_only=True)
class Works:
    """What all lanes of a worker share."""

    app: str
    outbox: Outbox
    stores: StoreSource
    openers: list[Opener]
    threads: ThreadPoolExecutor
    now: Callable[[int], datetime | None]
    guard: Callable[[int], None]
    on_done: Callable[[Chunk], None]
    advance: Callable[[Chunk], None]
    opening: Callable[[int], None]
    caught_up: Callable[[int], bool]
    on_fatal: Callable[[BaseException], None]
    changelog_topic: str
    tracer: Tracer = OFF
    counters: Counters = field(default_factory=Counters)


class Lane:
    """The chunks of one partition number, of whichever topic, in the order of their arrival. Those of agents that take
    turns wait apart; of what waits here and there, one is done after one of the other."""

    def __init__(self, works: Works, partition: int, generation: int) -> None:
        self._works = works
        self._partition = partition
        self._generation = generation
        #: What waits, in the order of its arrival; ``_turn`` says from which of the two the last one was.
        self._others: deque[Work] = deque()
        self._taking_turns: deque[Work] = deque()
        self._turn = False
        #: Something waits, or the lane is to close.
        self._woken = asyncio.Event()
        self._beside: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()
        self._memory: dict[str, Any] = {}
        self._store: Store | None = None
        self._rows_since_position = 0
        #: Where the changelog ends if every record in it since the opening was applied here, once.
        self._applied = 0
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"lane-{partition}")

    def put(self, chunk: Chunk, agent: Agent) -> None:
        """Queue a chunk; never blocks (the driver pauses partitions when too much is buffered)."""
        (self._taking_turns if agent.in_turn else self._others).append((chunk, agent))
        self._woken.set()

    async def close(self) -> None:
        """Finish the chunk that is being worked on, forget the queued ones, close the store."""
        self._shut()
        await asyncio.wait([self._task])

    def _shut(self) -> None:
        self._closing.set()
        self._woken.set()

    async def _run(self) -> None:
        try:
            self._store = await self._open()
            while True:
                waiting = await self._next()
                chunk, agent = waiting.popleft()
                if agent.side_by_side:
                    await self._begin_beside(chunk, agent.handler)
                else:
                    await self._finish([chunk, *_followers(chunk, waiting)], agent.handler)
                if self._rows_since_position >= POSITION_EVERY_ROWS and not self._beside:
                    await self._save_position()
        except (Abandoned, Stopped):
            pass
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):
                self._works.on_fatal(error)
        finally:
            if self._beside:
                await asyncio.wait(self._beside)
            await self._close_store()

    async def _finish(self, chunks: list[Chunk], handler: Handler, *, beside: bool = False) -> None:
        await self._process(joined(chunks), handler, beside=beside)
        for chunk in chunks:
            chunk.done = True
        passing("done.marked")
        for chunk in chunks:
            self._works.on_done(chunk)

    async def _begin_beside(self, chunk: Chunk, handler: Handler) -> None:
        """Work on a chunk while the next ones begin: they may be done before it, and are committed after it."""

        async def finish() -> None:
            try:
                await self._finish([chunk], handler, beside=True)
            except (Abandoned, Stopped):
                self._shut()
            except Exception as error:
                self._works.on_fatal(error)

        while len(self._beside) >= SIDE_BY_SIDE:
            await asyncio.wait(self._beside, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.get_running_loop().create_task(finish(), name=f"lane-{self._partition}-beside")
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _next(self) -> deque[Work]:
        """Wait until something is to be done; whose turn it is. Raises Abandoned when the lane is to close."""
        while not self._closing.is_set():
            if self._others or self._taking_turns:
                self._turn = bool(self._taking_turns) and (not self._turn or not self._others)
                return self._taking_turns if self._turn else self._others
            self._woken.clear()
            await self._woken.wait()
        raise Abandoned

    async def _open(self) -> Store:
        store: Store = await self._patiently("store", self._open_once)
        self._store = store
        self._applied = store.position
        self._rebuild_memory()
        return store

    async def _open_once(self) -> Store:
        loop = asyncio.get_running_loop()
        works = self._works
        await loop.run_in_executor(works.threads, works.opening, self._partition)
        return await loop.run_in_executor(works.threads, works.stores.open, self._partition, self._closing.is_set)

    def _rebuild_memory(self) -> None:
        self._memory.clear()
        for opener in self._works.openers:
            opener(self._batch(Chunk("", self._partition, self._generation, [])))

    def _batch(self, chunk: Chunk) -> Batch:
        assert self._store is not None
        return Batch(
            app=self._works.app,
            topic=chunk.topic,
            partition=self._partition,
            records=chunk.records,
            rows=Overlay(self._store),
            now=self._works.now(self._partition),
            memory=self._memory,
            caught_up=self._works.caught_up(self._partition),
            guard=lambda: self._works.guard(self._generation),
            closing=self._closing.is_set,
            tracer=self._works.tracer,
        )

    def _span(self, chunk: Chunk) -> AbstractContextManager[str | None]:
        """Of the trace of its records, if that is one, else linked to them. Ticks belong to no trace: they come each
        second to everybody, and what they set off has waited."""
        tracer = self._works.tracer
        if not tracer.on or chunk.topic == TICKS:
            return nullcontext()
        traces = list(dict.fromkeys(text for one in chunk.records if (text := traceparent(one.headers)) is not None))
        return tracer.span(
            f"process {chunk.topic}",
            parent=traces[0] if len(traces) == 1 else None,
            links=traces if len(traces) > 1 else (),
            kind=SpanKind.CONSUMER,
            attributes={
                "messaging.system": "kafka",
                "messaging.operation.type": "process",
                "messaging.operation.name": "process",
                "messaging.consumer.group.name": self._works.app,
                "messaging.destination.name": chunk.topic,
                "messaging.destination.partition.id": str(chunk.partition),
                "messaging.batch.message_count": len(chunk.records),
                "messaging.kafka.offset": chunk.records[0].offset,
            },
        )

    async def _process(self, chunk: Chunk, handler: Handler, *, beside: bool = False) -> None:
        async def once() -> None:
            self._works.advance(chunk)
            batch = self._batch(chunk)
            with self._span(chunk) as batch.traceparent:
                await self._decide(handler, batch, beside)

        async def again() -> None:
            if not beside:  # what chunks side by side keep in memory is not derived from rows alone
                self._rebuild_memory()  # the decision that was thrown away may have changed it
            await once()

        began = time.perf_counter()
        await self._patiently(f"{chunk.topic}[{chunk.partition}]@{chunk.records[0].offset}", once, again)
        counters = self._works.counters
        counters.chunk_seconds.observe(time.perf_counter() - began)
        counters.chunks += 1
        counters.records += len(chunk.records)

    async def _decide(self, handler: Handler, batch: Batch, beside: bool) -> None:
        passing("decide.start")
        result = handler(batch)
        if result is not None:
            if isinstance(result, AsyncGenerator):
                async with aclosing(result):  # it has put its things in order before the chunk is decided again
                    async for _ in result:
                        await self._make_durable(batch, beside=beside)
            elif inspect.isawaitable(result):
                await result
            else:
                for _ in result:
                    await self._make_durable(batch, beside=beside)
        passing("decide.end")
        await self._make_durable(batch, beside=beside)

    async def _patiently(
        self,
        what: str,
        first: Callable[[], Awaitable[Any]],
        again: Callable[[], Awaitable[Any]] | None = None,
    ) -> Any:
        """Try until it works; transient errors only, and only while the partition is ours."""
        attempt = 0
        while True:
            try:
                return await (first if attempt == 0 or again is None else again)()
            except Transient as error:
                wait = BACK_OFF_S[min(attempt, len(BACK_OFF_S) - 1)]
                attempt += 1
                self._works.counters.retries += 1
                log.warning(
                    "lane.waits", app=self._works.app, what=what, attempt=attempt, wait_s=wait, error=str(error)
                )
                try:
                    await asyncio.wait_for(self._closing.wait(), wait)
                except TimeoutError:
                    continue
                raise Abandoned from error
            except (CurfewError, Abandoned, Stopped):
                raise
            except Exception as error:
                raise Fatal(f"{self._works.app} cannot handle {what}: {type(error).__name__}: {error}") from error

    async def _make_durable(self, batch: Batch, *, beside: bool = False) -> None:
        """Outputs, then rows. Of chunks side by side both at once: their handlers can do with either without the other,
        and one round trip instead of two makes larger requests. If it fails they are decided again, though some of the
        rows may be in the changelog."""
        works = self._works
        outputs, counters, rows = batch.outputs, works.counters, batch.rows.writes
        # A crash can find the ones durable without the others; a test that kills in between makes sure that it does.
        together = beside and bool(outputs) and bool(rows) and not ENABLED
        if outputs:
            works.guard(self._generation)
            delivery = Delivery()
            self._produce(batch, delivery)
            if together:
                self._produce_rows(batch, delivery)
            await works.outbox.delivered(delivery)
            passing("outputs.durable")
            counters.outputs += len(outputs)
            outputs.clear()
            counters.dead_letters.update(batch.put_aside)
            batch.put_aside.clear()
        if rows:
            if not together:
                await self._patiently("changelog", lambda: self._write_changelog(batch))
            assert self._store is not None
            if ENABLED:
                passing("apply.middle")
            self._store.write(rows.items(), None)
            passing("apply.end")
            counters.rows += len(rows)
            self._rows_since_position += len(rows)
            self._applied += len(rows)
            batch.rows.clear()

    def _produce(self, batch: Batch, delivery: Delivery) -> None:
        outputs, emit = batch.outputs, self._works.outbox.emit
        middle = len(outputs) // 2 if ENABLED else -1
        for index, (topic, key, value, headers, partition) in enumerate(outputs):
            if index == middle:
                passing("outputs.middle")
            emit(topic, key, value, traced(headers, batch.traceparent), partition, delivery)
        passing("outputs.produced")

    def _produce_rows(self, batch: Batch, delivery: Delivery) -> None:
        works = self._works
        rows = [{"key": key, "value": value} for key, value in batch.rows.writes.items()]
        if ENABLED:
            works.outbox.emit_rows(works.changelog_topic, self._partition, rows[: len(rows) // 2], delivery)
            passing("changelog.middle")
            rows = rows[len(rows) // 2 :]
        works.outbox.emit_rows(works.changelog_topic, self._partition, rows, delivery)
        passing("changelog.produced")

    async def _write_changelog(self, batch: Batch) -> None:
        """Only rows that were decided once are written, however often it takes: the changelog must not hold a row
        of a decision that was thrown away (but for chunks side by side, see :meth:`_make_durable`)."""
        works = self._works
        works.guard(self._generation)
        delivery = Delivery()
        self._produce_rows(batch, delivery)
        await works.outbox.delivered(delivery)
        passing("changelog.durable")

    async def _save_position(self) -> None:
        """Only saves reading of the changelog at the next start; so a broker that is away is no reason to wait."""
        self._rows_since_position = 0
        loop = asyncio.get_running_loop()
        try:
            end = await loop.run_in_executor(self._works.threads, self._works.stores.end, self._partition)
        except Transient as error:
            log.info("store.position_not_saved", partition=self._partition, error=str(error))
            return
        assert self._store is not None
        # Rows of another owner, or of a write that did not get to its end, may stand before ``end``: to claim it would
        # skip them for ever. The old position stays true; it only costs reading more.
        if end == self._applied:
            self._store.write((), end)

    async def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is None:
            return
        if self._rows_since_position:
            try:
                self._store = store
                await self._save_position()
            except Exception as error:  # only costs reading more of the changelog next time
                log.info("store.position_not_saved", partition=self._partition, error=str(error))
            self._store = None
        store.close()


def _followers(chunk: Chunk, waiting: deque[Work]) -> Iterator[Chunk]:
    """Take out of ``waiting`` what came after ``chunk`` and makes one with it. A steady trickle arrives in small
    chunks; one after another they would cost two round trips each, and fall ever further behind."""
    records, size = len(chunk.records), chunk.size
    # chunks of ticks stay single, each is an instant of its own; of one topic means of one handler
    while waiting and chunk.topic != TICKS and waiting[0][0].topic == chunk.topic:
        follower = waiting[0][0]
        records, size = records + len(follower.records), size + follower.size
        if records > CHUNK_RECORDS or size > CHUNK_BYTES:
            return
        waiting.popleft()
        yield follower
