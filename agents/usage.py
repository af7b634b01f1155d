"""The usage worker: SIMs, buckets, contracts, usage and time in; findings, and news for the accounts' partitions, out.

Everything is decided by :class:`streams.core.usage.desk.Desk`; this module decodes, sends, and does due work in slices.

What makes effects happen exactly once here, beside ids that come from causes:

- **Lines** move dates forward and take revisions: taken twice, a record says nothing new.
- **Meters** count each record once by its offset and by its id, whichever rows had become durable when the process
  died (:mod:`streams.core.usage.metering`).
- **What time decides** cannot be decided again after a crash: by then late usage may be in the rows that the world was
  not told of, and a SIM that was told to be dormant would never be told to be active. So a slice of due work is
  durable as a whole before it is told (:mod:`agents.redo`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from agents import redo
from agents.due_report import DueReport
from agents.redo import Sent
from agents.timers import SLICE, SLICES_PER_BATCH
from streams.codec import Codec
from streams.core.errors import Poison
from streams.core.events import Finding
from streams.core.timers import TimerIndex
from streams.core.usage.desk import Desk, Effect, rebuild
from streams.core.usage.dormancy import Rules
from streams.core.usage.meter_desk import Setup
from streams.core.usage.objects import (
    BucketChange,
    ContractChange,
    SimChange,
    Usage,
    UsageContext,
    UsageShare,
)
from streams.kafka.chunks import Batch, Record
from streams.kafka.runtime import Runtime
from streams.kafka.store import MAX_ROW_BYTES, Overlay
from streams.settings import ClockMode
from streams.topics import CONTRACTS, FINDINGS, TICKS, USAGE_CONTEXTS

SIM, BUCKET, USAGE = "billing.sim", "billing.bucket", "billing.usage"
SHARES = "usage.shares"
SIMS_OUT, BUCKETS_OUT = "usage.sims", "usage.buckets"
RULE = "event_rule"

#: A definition travels in its rows and in each of its findings; larger ones would make rows that a changelog refuses.
MAX_RECORD_BYTES = 32 * 1024
#: A slice of due work ends early with so much to tell, or so many rows: a contract may have a hundred findings, a meter
#: forget thousands of records at once.
SLICE_BYTES = MAX_ROW_BYTES
SLICE_ROWS = 10 * SLICE
#: The clock is asked to come back at once, not at its next step, when something is due already.
AT_ONCE = timedelta(milliseconds=1)

_INDEX, _RULES = "usage index", "usage rules"

T = TypeVar("T")


class Catalogue(Protocol):
    """Topics that every worker reads whole."""

    def all(self, kind: str) -> Any: ...

    def version(self, kind: str) -> int: ...


class Ports(Protocol):
    """What this worker needs of the outside; ``usage_retention``: how long late usage is counted."""

    @property
    def codec(self) -> Codec: ...

    @property
    def catalogue(self) -> Catalogue: ...

    @property
    def usage_retention(self) -> timedelta: ...


def attach(runtime: Runtime, ports: Ports) -> None:
    """Register the agents of the usage worker with ``runtime``."""
    work = UsageWork(ports, virtual=runtime.settings.clock is ClockMode.VIRTUAL)
    runtime.agent("usage", topics=[USAGE], handler=work.usage, open=work.open)
    runtime.agent("shares", topics=[SHARES], handler=work.shares)
    runtime.agent("sims", topics=[SIM], handler=work.sims)
    runtime.agent("buckets", topics=[BUCKET], handler=work.buckets)
    runtime.agent("contracts", topics=[CONTRACTS], handler=work.contracts)
    runtime.agent("contexts", topics=[USAGE_CONTEXTS], handler=work.contexts)
    runtime.agent("ticks", topics=[TICKS], handler=work.ticks)


class UsageWork:
    """The handlers. ``virtual``: the clock stands still until the work of a tick is done, so all of it is done at once;
    with the wall's clock only so much per tick, and nothing while usage of before is still unread."""

    def __init__(self, ports: Ports, *, virtual: bool) -> None:
        codec = ports.codec
        self._catalogue = ports.catalogue
        self._retention = ports.usage_retention
        self._virtual = virtual
        self._usage = codec.decoder(Usage)
        self._share = codec.decoder(UsageShare)
        self._sim = codec.decoder(SimChange)
        self._bucket = codec.decoder(BucketChange)
        self._contract = codec.decoder(ContractChange)
        self._context = codec.decoder(UsageContext)
        self._finding = codec.encoder(FINDINGS, Finding)
        self._share_out = codec.encoder(SHARES, UsageShare)
        self._sim_out = codec.encoder(SIMS_OUT, SimChange)
        self._bucket_out = codec.encoder(BUCKETS_OUT, BucketChange)
        self._due_report = DueReport(codec)

    # -- handlers -----------------------------------------------------------------------------------------------------

    def open(self, batch: Batch) -> None:
        """Build the index from the rows, and find what was decided and may not have been told."""
        redo.open_redo(batch)
        self._index(batch, self._catalogue.version(RULE))

    def usage(self, batch: Batch) -> Iterator[None]:
        """Usage, by service."""
        return self._take(batch, self._usage, lambda one: one.service_id, lambda desk, one, at: desk.usage(one, at))

    def shares(self, batch: Batch) -> Iterator[None]:
        """Usage of pools and contracts, by pool and contract."""
        return self._take(batch, self._share, lambda one: one.meter_id, lambda desk, one, at: desk.share(one, at))

    def sims(self, batch: Batch) -> Iterator[None]:
        """Changes of SIMs, by service: the one that they are of now, or the one that they have left."""
        return self._take_moving(batch, self._sim, lambda desk, one, key: desk.sim(one, key))

    def buckets(self, batch: Batch) -> Iterator[None]:
        """Changes of buckets, by service or by bucket."""
        return self._take_moving(batch, self._bucket, lambda desk, one, key: desk.bucket(one, key))

    def contracts(self, batch: Batch) -> Iterator[None]:
        """Changes of contracts, by contract."""
        return self._take(batch, self._contract, lambda one: one.subject.id, lambda desk, one, at: desk.contract(one))

    def contexts(self, batch: Batch) -> Iterator[None]:
        """States and products of services, by service."""
        return self._take(batch, self._context, lambda one: one.service_id, lambda desk, one, at: desk.context(one))

    def ticks(self, batch: Batch) -> Iterator[None]:
        """Time has passed; the runtime has read the ticks already, only what is due now matters."""
        yield from redo.finish(batch)
        yield from self._due_work(batch)
        self._report(batch)

    # -- records ------------------------------------------------------------------------------------------------------

    def _take(
        self,
        batch: Batch,
        decode: Callable[[bytes | None], T],
        key_of: Callable[[T], str],
        take: Callable[[Desk, T, int], Iterable[Effect]],
    ) -> Iterator[None]:
        """Take each record in its order; one that cannot be taken becomes a dead letter, what it said before stays."""

        def one(desk: Desk, record: Record) -> Iterable[Effect]:
            value = decode(record.value)
            key = key_of(value)
            if record.key != key.encode():
                raise Poison("wrong_key", f"the key is {record.key!r}, for this record it must be {key!r}")
            return take(desk, value, record.offset)

        return self._each(batch, one)

    def _take_moving(
        self,
        batch: Batch,
        decode: Callable[[bytes | None], T],
        take: Callable[[Desk, T, str], Iterable[Effect]],
    ) -> Iterator[None]:
        def one(desk: Desk, record: Record) -> Iterable[Effect]:
            return take(desk, decode(record.value), (record.key or b"").decode(errors="replace"))

        return self._each(batch, one)

    def _each(self, batch: Batch, take: Callable[[Desk, Record], Iterable[Effect]]) -> Iterator[None]:
        yield from redo.finish(batch)
        desk = self._desk(batch, batch.rows)
        for record in batch.records:
            try:
                size = len(record.value or b"")
                if size > MAX_RECORD_BYTES:
                    raise Poison("too_large", f"{size} bytes, at most {MAX_RECORD_BYTES}")
                for effect in take(desk, record):
                    redo.tell(batch, [self._record(effect)])
            except Poison as error:
                batch.dead_letter(record, error)
        self._report(batch)

    # -- time ---------------------------------------------------------------------------------------------------------

    def _due_work(self, batch: Batch) -> Iterator[None]:
        if batch.now is None or not (self._virtual or batch.caught_up):
            return
        rearmed: set[str] = set()
        slices = 0
        while self._index_of(batch).is_due(batch.now) and (self._virtual or slices < SLICES_PER_BATCH):
            slices += 1
            staged, sent = self._slice(batch, rearmed)
            if sent:
                yield from redo.carry_out(batch, staged, sent)
            else:
                redo.put(batch, staged)
                yield

    def _slice(self, batch: Batch, rearmed: set[str]) -> tuple[Overlay, list[Sent]]:
        """Some due work, and what it puts; nothing of it is in the batch yet."""
        staged = Overlay(batch.rows)
        desk = self._desk(batch, staged, rearmed)
        sent: list[Sent] = []
        size = 0
        for _ in range(SLICE):
            if size > SLICE_BYTES or len(staged.writes) > SLICE_ROWS or not desk.is_due:
                break
            found = [self._record(finding) for finding in desk.fire()]
            sent += found
            size += sum(len(one.value) for one in found)
        return staged, sent

    def _report(self, batch: Batch) -> None:
        """Tell the clock when this partition wants the next tick, if that has changed."""
        if batch.now is None:
            return
        due = self._index_of(batch).next_at()
        due = due if due is None else max(due, batch.now + AT_ONCE)
        self._due_report.tell(batch, due)

    # -- state --------------------------------------------------------------------------------------------------------

    def _desk(self, batch: Batch, rows: Overlay, rearmed: set[str] | None = None) -> Desk:
        index = self._index_of(batch)
        _, rules = batch.memory[_RULES]
        return Desk(rows, index, Setup(rules=rules, retention=self._retention), batch.now, rearmed)

    def _index_of(self, batch: Batch) -> TimerIndex:
        """What is due; made anew when the rules have changed, since a shorter rule makes everything due earlier."""
        version = self._catalogue.version(RULE)
        if batch.memory[_RULES][0] != version:
            return self._index(batch, version)
        index: TimerIndex = batch.memory[_INDEX]
        return index

    def _index(self, batch: Batch, version: int) -> TimerIndex:
        rules = Rules(self._catalogue.all(RULE).values())
        index = rebuild(batch.rows, rules, self._retention)
        batch.memory[_RULES], batch.memory[_INDEX] = (version, rules), index
        return index

    # -- out ----------------------------------------------------------------------------------------------------------

    def _record(self, effect: Effect) -> Sent:
        match effect:
            case Finding():
                return Sent(FINDINGS, effect.key, self._finding(effect))
            case UsageShare():
                return Sent(SHARES, effect.meter_id, self._share_out(effect))
            case SimChange():
                return Sent(SIMS_OUT, effect.subject.account_id, self._sim_out(effect))
            case BucketChange():
                return Sent(BUCKETS_OUT, effect.subject.account_id, self._bucket_out(effect))
