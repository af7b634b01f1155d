"""The persister: sealed outcomes go into the billing store, and what it has committed comes out as acknowledgements.

Per chunk: decode → one transaction off the loop → acknowledgements, after COMMIT. The billing store is the state of
this app, so it keeps no rows in Kafka; a chunk that is handled twice writes nothing twice and acknowledges the same.

With the setting ``second_part_hours`` an outcome is written in two parts. The second waits in the billing store, is
finished by the ticks of its partition, and only then acknowledged; its row there is forgotten when that is durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol, TypeVar

import structlog

from agents.due_report import DueReport
from streams.codec import Codec
from streams.core.errors import Poison
from streams.core.objects import ServicePlanChange
from streams.core.plan_change.messages import Acknowledgement, ExecutionResult, Settlement, SettlementKind
from streams.kafka.chunks import Batch, Record
from streams.kafka.runtime import Runtime
from streams.ports import Clock
from streams.settings import ClockMode
from streams.sinks.billing import BillingStore, Fence, Released, Split
from streams.topics import ACKNOWLEDGEMENTS, OUTCOMES, SERVICE_PLANS, SETTLEMENTS, TICKS

#: Second parts written in one transaction. More, and a crash repeats more; fewer, and each costs a commit.
SLICE = 500
#: Slices between two chunks of a lane, while time goes on by itself. Without a limit the closes of a deadline would
#: wait until a whole evening's second parts are written.
SLICES_PER_TICK = 10

T = TypeVar("T")
Answer = TypeVar("Answer")

log = structlog.get_logger(__name__)


class Ports(Protocol):
    """What the persister needs of the outside; the billing store's tables exist already."""

    @property
    def codec(self) -> Codec: ...

    @property
    def billing_store(self) -> BillingStore: ...

    @property
    def clock(self) -> Clock: ...


def attach(runtime: Runtime, ports: Ports) -> None:
    """Register the agents of outcomes, settlements and ticks with ``runtime``."""
    settings = runtime.settings
    persister = Persister(
        ports,
        group=runtime.group,
        virtual=settings.clock is ClockMode.VIRTUAL,
        second_part_hours=settings.second_part_hours,
    )
    runtime.agent("outcomes", topics=[OUTCOMES], handler=persister.outcomes)
    runtime.agent("settlements", topics=[SETTLEMENTS], handler=persister.settlements)
    runtime.agent("ticks", topics=[TICKS], handler=persister.ticks)


@dataclass(slots=True)
class _Held:
    """The fence of a partition, for as long as its lane lives (a lane has one memory from its opening to its end)."""

    memory: dict[str, Any]
    fence: Fence


class Persister:
    """The handlers; SQL runs in threads of its own, so that no other partition waits for the database."""

    def __init__(self, ports: Ports, *, group: str, virtual: bool, second_part_hours: int | None = None) -> None:
        self._store = ports.billing_store
        self._clock = ports.clock
        self._group = group
        self._virtual = virtual
        self._before = None if second_part_hours is None else timedelta(hours=second_part_hours)
        self._fences: dict[int, _Held] = {}
        self._threads = ThreadPoolExecutor(max_workers=self._store.parallel, thread_name_prefix="billing-store")
        self._decode_result = ports.codec.decoder(ExecutionResult)
        self._decode_settlement = ports.codec.decoder(Settlement)
        self._encode_acknowledgement = ports.codec.encoder(ACKNOWLEDGEMENTS, Acknowledgement)
        self._encode_result = ports.codec.encoder(OUTCOMES, ExecutionResult)
        self._due_report = DueReport(ports.codec)
        self._encode_plan = ports.codec.encoder(SERVICE_PLANS, ServicePlanChange)

    async def ticks(self, batch: Batch) -> AsyncGenerator[None, None]:
        """Finish the second parts that are due, earliest deadline first, slice by slice.

        The runtime has taken the time from the ticks already. A virtual clock stands still until this is done, so there
        nothing is left for the next tick, which may come after the deadline.
        """
        slices = 0
        while await self._is_due(batch) and (self._virtual or slices < SLICES_PER_TICK):
            slices += 1
            done = await self._finish(batch)
            yield
            await self._off_the_loop(partial(self._store.forget, done, fence=self._fence(batch)))
            batch.memory.pop("due")
        if slices:
            await self._report_due(batch)

    async def _finish(self, batch: Batch) -> list[str]:
        """One slice; what it has to say is emitted. Returns the changes that may be forgotten once that is durable."""
        at = batch.now
        assert at is not None  # _is_due
        now = self._now(batch, [])
        finished = await self._off_the_loop(
            lambda: self._store.finish(batch.partition, at=at, limit=SLICE, now=now, fence=self._fence(batch))
        )
        for one in finished:
            key, value = one.result.service_id.encode(), None
            if isinstance(one.answer, Poison):  # made again from the store, so that it can be redriven like any other
                value = self._encode_result(one.result)
            self._emit(batch, Record(OUTCOMES, batch.partition, -1, key, value, [], 0), one.answer)
        return [one.result.change_id for one in finished]

    async def _is_due(self, batch: Batch) -> bool:
        due = await self._next_due(batch)
        return due is not None and batch.now is not None and due <= batch.now

    async def _next_due(self, batch: Batch) -> datetime | None:
        """When the next second part of this partition is due; asked of the database whenever memory was lost.

        It may be too early, never too late: a row may go (close, a newer revision), but only :meth:`outcomes` makes
        one.
        """
        if "due" not in batch.memory:
            batch.memory["due"] = await self._off_the_loop(partial(self._store.next_due, batch.partition))
        due: datetime | None = batch.memory["due"]
        return due

    async def _wait_for(self, dues: Sequence[datetime], batch: Batch) -> None:
        """More second parts are due at these instants."""
        if not dues:
            return
        known = await self._next_due(batch)
        batch.memory["due"] = min(dues) if known is None else min(known, *dues)
        await self._report_due(batch)

    async def _report_due(self, batch: Batch) -> None:
        """Tell the virtual clock, or it would pass by the instant."""
        self._due_report.tell(batch, await self._next_due(batch))

    async def outcomes(self, batch: Batch) -> None:
        """Persist a chunk of results in one transaction."""
        records, results = _decoded(batch, self._decode_result)
        now = self._now(batch, [result.finished_at for result in results])
        before = self._before
        split = None if before is None else Split(before=before, at=batch.now, partition=batch.partition)

        def persist() -> list[Acknowledgement | Poison | None]:
            return self._store.persist(results, now=now, fence=self._fence(batch), split=split)

        answers = await self._off_the_loop(persist)
        for record, answer in zip(records, answers, strict=True):
            if answer is not None:
                self._emit(batch, record, answer)
        if split is not None:
            halves = [
                one.sealed.outcome for one, answer in zip(results, answers, strict=True) if one.sealed and not answer
            ]
            await self._wait_for([split.due_at(half.effective_from) for half in halves], batch)

    async def settlements(self, batch: Batch) -> None:
        """Close and release a chunk of changes; what a release makes true is published before it is acknowledged."""
        records, settlements = _decoded(batch, self._decode_settlement)
        now = self._now(batch, [settlement.sent_at for settlement in settlements])

        def settle() -> list[Acknowledgement | Released | Poison]:
            fence = self._fence(batch)
            closes = [one for one in settlements if one.kind is SettlementKind.CLOSE]
            releases = [one for one in settlements if one.kind is SettlementKind.RELEASE]
            closed = iter(self._store.close(closes, now=now, fence=fence) if closes else ())
            released = iter(self._store.release(releases, now=now, fence=fence) if releases else ())
            return [next(closed if one.kind is SettlementKind.CLOSE else released) for one in settlements]

        for record, answer in zip(records, await self._off_the_loop(settle), strict=True):
            if isinstance(answer, Released):
                change = answer.change
                batch.emit(SERVICE_PLANS, key=change.subject.account_id, value=self._encode_plan(change), cause=record)
                answer = answer.acknowledgement
            self._emit(batch, record, answer)

    def _emit(self, batch: Batch, record: Record, answer: Acknowledgement | Poison) -> None:
        if isinstance(answer, Poison):
            log.warning("billing_store.refused", reason=answer.reason, detail=answer.detail, offset=record.offset)
            batch.dead_letter(record, answer)
        else:
            value = self._encode_acknowledgement(answer)
            batch.emit(ACKNOWLEDGEMENTS, key=answer.service_id, value=value, cause=record)

    async def _off_the_loop(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _now(self, batch: Batch, seen: Sequence[datetime]) -> Callable[[], datetime]:
        """The clock that dates commits.

        A virtual night has no other time than its ticks; one may still be on its way here when what it caused has
        arrived, so the newest instant in the messages counts too.
        """
        if not self._virtual:
            return self._clock.now
        known = [*seen, *(() if batch.now is None else (batch.now,))]
        return lambda: max(known)

    def _fence(self, batch: Batch) -> Fence:
        """The right to write for this partition, taken once per opening of it.

        Not once per chunk: a process that was stopped for long and goes on would shut out the one that has taken over.
        """
        held = self._fences.get(batch.partition)
        if held is None or held.memory is not batch.memory:
            held = _Held(batch.memory, self._store.take_fence(self._group, batch.partition))
            self._fences[batch.partition] = held
        return held.fence


def _decoded(batch: Batch, decode: Callable[[bytes | None], T]) -> tuple[list[Record], list[T]]:
    """The records that can be read, and what they say; the others are put aside."""
    records: list[Record] = []
    messages: list[T] = []
    for record in batch.records:
        try:
            message = decode(record.value)
        except Poison as poison:
            batch.dead_letter(record, poison)
        else:
            records.append(record)
            messages.append(message)
    return records, messages
