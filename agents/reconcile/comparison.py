"""Reconciliation: do the topics of plan changes and the billing store tell the same story?

Reads, in this order, the persister's dead letters, acknowledgements, the store's decisions, outcomes, and the rows of
every persisted outcome. While the workers go on, nothing can look like drift only because it moved: what was
acknowledged before the store is read is in it, what is in it was in the topic before, and a dead letter that is
redriven meanwhile is one still, or persisted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Any, Final, TypeVar

from confluent_kafka import Message

from agents.reconcile import letters
from agents.reconcile.tables import Found, SideBySide, instant, milliseconds
from streams.codec import Codec
from streams.core.canonical import fingerprint
from streams.core.clock import Tick
from streams.core.errors import Misconfigured, Poison
from streams.core.plan_change.messages import Acknowledgement, ExecutionResult
from streams.kafka.partitioner import partition_of
from streams.kafka.scan import Scanner, Span, Spans
from streams.sinks.billing import BillingStore, StoredOutcome
from streams.topics import ACKNOWLEDGEMENTS, OUTCOMES, TICKS

#: A deadline that passed less long ago is not called overdue: its close may still be on the way to the store. As long
#: as the scheduler waits before it asks again.
GRACE: Final = timedelta(minutes=10)
#: Two clock processes may write, so the last tick need not be the highest.
TICKS_READ: Final = 100
#: Changes whose rows are compared in one go.
COMPARED: Final = 1_000
#: Records between two reports of progress.
REPORT_EVERY: Final = 50_000

T = TypeVar("T")


class Drift(StrEnum):
    """What may be wrong with one change."""

    DEAD_LETTERED = "dead_lettered"  # an outcome that the persister has put aside: it will not be written by itself
    NOT_PERSISTED = "not_persisted"  # an outcome whose deadline has passed, neither persisted nor recorded as missed
    ACKNOWLEDGED_ABSENT = "acknowledged_absent"  # said to be persisted, missed or released, and the store knows nothing
    HASH_DIFFERS = "hash_differs"  # another outcome is persisted than was sealed
    SEAL_BROKEN = "seal_broken"  # the stored outcome is not what its hash says
    ROWS_DIFFER = "rows_differ"  # memberships, options, fees or tasks are not those of the outcome
    NOT_IN_TOPIC = "not_in_topic"  # persisted, and the topic that still reaches back so far has no such outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """Where the evidence is."""

    outcomes: str = OUTCOMES
    acknowledgements: str = ACKNOWLEDGEMENTS
    ticks: str = TICKS
    dead_letters: str = letters.TOPIC


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is wrong. ``revision`` and ``deadline`` are None where nobody says."""

    kind: Drift
    change_id: str
    service_id: str
    revision: int | None
    deadline: datetime | None
    detail: str


@dataclass(slots=True, kw_only=True)
class Report:
    """``differences`` are the first ones, ``found`` counts all. ``waiting``: outcomes whose deadline is to come;
    ``retired``: persisted changes whose outcome the topic's retention has removed; ``unreadable``: records of the
    topics that nobody can read (the workers have put them aside)."""

    outcomes: int = 0
    persisted: int = 0
    missed: int = 0
    waiting: int = 0
    retired: int = 0
    unreadable: int = 0
    found: Counter[Drift] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)


def business_time(config: Mapping[str, Any], codec: Codec, topics: Topics) -> datetime | None:
    """The highest of the last ticks; None if there is none (any more)."""
    newest: datetime | None = None
    with Scanner(config) as scanner:
        spans = scanner.spans(topics.ticks)
        last = {number: Span(max(span.start, span.end - TICKS_READ), span.end) for number, span in spans.items()}
        for message in scanner.read(topics.ticks, last):
            tick = codec.decode(message.value(), Tick)
            newest = tick.now if newest is None else max(newest, tick.now)
    return newest


def reconcile(
    config: Mapping[str, Any],
    codec: Codec,
    store: BillingStore,
    *,
    now: datetime | None,
    limit: int,
    topics: Topics | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """Compare; ``limit`` bounds the differences that are kept, not those that are counted.

    ``now`` is business time; without one no deadline has passed. Raises Transient when Kafka, the registry or the
    database do not answer, and Misconfigured when there are no such topics.
    """
    run = _Run(codec, store, topics or Topics(), limit, progress)
    with Scanner(config) as scanner, SideBySide() as tables:
        run.read(scanner, tables)
        run.compare(tables, None if now is None else now - GRACE)
    return run.report


class _Run:
    def __init__(
        self, codec: Codec, store: BillingStore, topics: Topics, limit: int, progress: Callable[[str], None]
    ) -> None:
        self._codec = codec
        self._store = store
        self._topics = topics
        self._limit = limit
        self._progress = progress
        self._spans: Spans = {}
        self._oldest: dict[int, datetime] = {}
        self.report = Report()

    def read(self, scanner: Scanner, tables: SideBySide) -> None:
        name = self._topics.dead_letters
        found = letters.read_letters(scanner, self._existing(scanner, name), self._codec, name)
        tables.add_letters(
            (
                one.change_id,
                one.revision,
                one.hash,
                milliseconds(one.deadline),
                one.service_id,
                f"{one.place}: {one.message or one.reason}",
            )
            for one in self._counted(found, f"outcomes of {name}")
        )
        name, decode_acknowledgement = self._topics.acknowledgements, self._codec.decoder(Acknowledgement)
        read = self._decoded(scanner.read(name, self._existing(scanner, name)), decode_acknowledgement, name)
        tables.add_acknowledgements((ack.change_id, ack.kind, ack.revision, ack.service_id) for _, ack in read)
        tables.add_decisions(
            (
                one.change_id,
                milliseconds(one.deadline),
                one.missed,
                one.revision,
                one.hash,
                one.service_id,
                one.plan_revision is not None,
            )
            for one in self._counted(self._store.changes(), "decisions of the billing store")
        )
        name, decode_result = self._topics.outcomes, self._codec.decoder(ExecutionResult)
        self._spans = self._existing(scanner, name)
        results = self._decoded(scanner.read(name, self._spans), decode_result, name)
        tables.add_outcomes(self._sealed(results))

    def compare(self, tables: SideBySide, passed: datetime | None) -> None:
        self.report.outcomes, self.report.persisted, self.report.missed = tables.counts()
        self.report.waiting = tables.waiting(passed)
        self._found(Drift.ACKNOWLEDGED_ABSENT, tables.absent())
        self._found(Drift.DEAD_LETTERED, tables.dead())
        if passed is not None:
            self._found(Drift.NOT_PERSISTED, tables.overdue(passed))
        self._found(Drift.HASH_DIFFERS, tables.other_hash())
        persisted = self._counted(tables.persisted(), "persisted changes compared with their rows")
        while some := list(islice(persisted, COMPARED)):
            stored = self._store.outcomes([one.change_id for one, _ in some])
            for one, in_topic in some:
                self._compare_rows(one, in_topic, stored.get(one.change_id))

    def _compare_rows(self, one: Found, in_topic: bool, stored: StoredOutcome | None) -> None:
        if stored is None:
            self._add(Drift.ROWS_DIFFER, one, "its outcome was deleted while this was running")
            return
        if fingerprint(stored.outcome) != stored.hash:
            self._add(Drift.SEAL_BROKEN, one, "column body of table outcome")
        elif stored.differing:
            self._add(Drift.ROWS_DIFFER, one, ", ".join(stored.differing))
        if in_topic:
            return
        if self._was_removed(one.service_id, stored.outcome.sealed_at):
            self.report.retired += 1
        else:
            self._add(Drift.NOT_IN_TOPIC, one, f"sealed at {stored.outcome.sealed_at.isoformat()}")

    def _was_removed(self, service_id: str, sealed_at: datetime) -> bool:
        """Whether the retention of the topic explains that a record is not there: older than all that is."""
        partition = partition_of(service_id, len(self._spans))
        if self._spans[partition].start == 0:
            return False
        return partition not in self._oldest or sealed_at <= self._oldest[partition]

    def _sealed(
        self, results: Iterable[tuple[Message, ExecutionResult]]
    ) -> Iterator[tuple[str, int, str, int, str, int, int]]:
        for message, result in results:
            partition = message.partition() or 0
            self._oldest.setdefault(partition, result.finished_at)
            if result.sealed is not None:
                outcome = result.sealed.outcome
                deadline = milliseconds(outcome.effective_from)
                place = partition, message.offset() or 0
                yield outcome.change_id, outcome.revision, result.sealed.hash, deadline, outcome.service_id, *place

    def _existing(self, scanner: Scanner, topic: str) -> Spans:
        spans = scanner.spans(topic)
        if not spans:
            raise Misconfigured(
                f"there is no topic {topic}: `curfew topics apply` makes it; is this the right cluster?"
            )
        return spans

    def _decoded(
        self, messages: Iterator[Message], decode: Callable[[bytes | None], T], topic: str
    ) -> Iterator[tuple[Message, T]]:
        for message in self._counted(messages, f"records of {topic}"):
            try:
                yield message, decode(message.value())
            except Poison:
                self.report.unreadable += 1

    def _counted(self, items: Iterator[T], what: str) -> Iterator[T]:
        for number, item in enumerate(items, 1):
            if number % REPORT_EVERY == 0:
                self._progress(f"{number:,} {what}")
            yield item

    def _found(self, kind: Drift, found: Iterable[Found]) -> None:
        for one in found:
            self._add(kind, one, one.detail)

    def _add(self, kind: Drift, one: Found, detail: str) -> None:
        self.report.found[kind] += 1
        if len(self.report.differences) < self._limit:
            self.report.differences.append(
                Difference(
                    kind=kind,
                    change_id=one.change_id,
                    service_id=one.service_id,
                    revision=one.revision,
                    deadline=None if one.deadline is None else instant(one.deadline),
                    detail=detail,
                )
            )


def wall_time() -> datetime:
    """Business time of a cluster whose clocks tick by the machine's: also when they have all stopped."""
    return datetime.now(UTC)
