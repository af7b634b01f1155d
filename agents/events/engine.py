"""Turns object changes and findings into events with parameters, and sends them to their queues.

Per record: decode → is it new (revision) → put the row → detect → enrich from the account's rows → route → emit. The
pure core decides all of it; this module decodes, fetches and encodes. The store of a partition has the objects of its
accounts; the catalogue and bill runs, which span accounts, are read whole.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog

from agents.events.contexts import Contexts
from agents.events.invoice_timers import InvoiceTimers
from agents.events.usage_contexts import UsageContexts
from agents.sources.finder import Finder
from streams.codec import Codec
from streams.codec.cloudevents import event_headers
from streams.codec.rows import encode_row, object_row_decoder, row_decoder
from streams.core.delivery import hops
from streams.core.detectors import detect
from streams.core.errors import Poison
from streams.core.events import Event, Finding
from streams.core.invoice_due import first_delivery
from streams.core.objects import (
    Account,
    AccountChange,
    BillRun,
    BillRunChange,
    Credit,
    CreditChange,
    Invoice,
    InvoiceChange,
    Package,
    PackageChange,
    Payment,
    PaymentChange,
    Refund,
    RefundChange,
    Service,
    ServiceChange,
    ServicePlan,
    ServicePlanChange,
)
from streams.core.routing import Route, Router
from streams.core.rows import CountRow, Kind, ObjectRow, count_key, follow, object_key
from streams.core.sources import DataSource, SourceRow, extended, fitting
from streams.core.subscription_filter import Acceptance, asked
from streams.core.usage.objects import Bucket, BucketChange, Contract, ContractChange, Sim, SimChange
from streams.filters import CelLanguage
from streams.kafka.chunks import Batch, Record
from streams.kafka.runtime import Runtime
from streams.kafka.store import MAX_ROW_BYTES
from streams.settings import ClockMode

FINDINGS = "events.findings"
TICKS = "clock.ticks"
CHANGELOG = "events-store-changelog"

#: Topic → (kind, class of its changes, class of its objects).
FEEDS: Mapping[str, tuple[Kind, type[Any], type[Any]]] = {
    "billing.account": (Kind.ACCOUNT, AccountChange, Account),
    "billing.service": (Kind.SERVICE, ServiceChange, Service),
    "billing.package": (Kind.PACKAGE, PackageChange, Package),
    "billing.invoice": (Kind.INVOICE, InvoiceChange, Invoice),
    "billing.refund": (Kind.REFUND, RefundChange, Refund),
    "billing.credit": (Kind.CREDIT, CreditChange, Credit),
    "billing.payment": (Kind.PAYMENT, PaymentChange, Payment),
    "billing.bill-run": (Kind.BILL_RUN, BillRunChange, BillRun),
    "billing.service-plan": (Kind.SERVICE_PLAN, ServicePlanChange, ServicePlan),
    "billing.contract": (Kind.CONTRACT, ContractChange, Contract),
    # Kept by service and by bucket in the usage worker, which sends their changes on to the account.
    "usage.sims": (Kind.SIM, SimChange, Sim),
    "usage.buckets": (Kind.BUCKET, BucketChange, Bucket),
}

#: A route may name a queue that is not there yet; so many seconds later it is looked for again.
RECHECK_S = 10.0
#: Kinds that are not keyed by account: every worker has read them whole.
READ_WHOLE = frozenset({Kind.PRODUCT, Kind.RATE_PLAN, Kind.BILL_RUN})

#: A record is copied into a row and into events, which hold previous and current state and parameters of it. One that
#: is larger would make outputs over Kafka's 1 MiB: the worker could not write them and would never get past it.
MAX_RECORD_BYTES = 256 * 1024
#: Rows spell out the names of fields, which Avro leaves out: one of many short entries is many times its record, and a
#: row that is refused at the end of a chunk would stop the worker. Under this size no record makes too large a row.
SURELY_SMALL_BYTES = 16 * 1024

_UNKNOWN = object()

log = structlog.get_logger(__name__)


class Catalogue(Protocol):
    """Topics that every worker reads whole; ``version`` of a kind changes whenever something of it does."""

    def get(self, kind: str, id: str) -> object | None: ...

    def all(self, kind: str) -> Mapping[str, Any]: ...

    def version(self, kind: str) -> int: ...


class Ports(Protocol):
    """What the events worker needs of the outside.

    ``queues`` are the names of the queues that exist, ``partitions`` the number that the topics of this worker have.
    """

    @property
    def codec(self) -> Codec: ...

    @property
    def catalogue(self) -> Catalogue: ...

    @property
    def queues(self) -> Collection[str]: ...

    @property
    def partitions(self) -> int: ...


def attach(runtime: Runtime, ports: Ports) -> None:
    """Register the agents of the object changes, of the findings and of the ticks with ``runtime``."""
    events = Events(ports, virtual=runtime.settings.clock is ClockMode.VIRTUAL)
    runtime.agent("changes", topics=list(FEEDS), handler=events.changes, open=events.timers.open)
    runtime.agent("findings", topics=[FINDINGS], handler=events.findings)
    runtime.agent("ticks", topics=[TICKS], handler=events.timers.run)


class LiveRouter:
    """The router for the routes, subscriptions and data sources as they are now; made anew only when one of them has
    changed. ``sources`` are the data sources that it knows."""

    def __init__(self, catalogue: Catalogue, queues: Collection[str]) -> None:
        self._catalogue = catalogue
        self._queues = queues
        self._versions: tuple[int, ...] | None = None
        self._recheck_at = float("inf")
        self._incomplete = False
        self.sources: Mapping[str, DataSource] = {}
        self._language = CelLanguage()
        self._router = Router((), language=self._language)

    def __call__(self) -> Router:
        versions = tuple(self._catalogue.version(kind) for kind in ("route", "subscription", "source"))
        if versions != self._versions or time.monotonic() > self._recheck_at:
            self._incomplete = False
            routes = [self._existing(route) for route in self._catalogue.all("route").values()]
            subscriptions = self._catalogue.all("subscription").values()
            acceptance = Acceptance(self._language)
            asks = [asked(one, acceptance) for one in subscriptions]
            self.sources = fitting(self._catalogue.all("source").values())
            graph = extended(self.sources.values())
            self._router = Router(routes, asks, language=self._language, graph=graph)
            self._versions = versions
            self._recheck_at = time.monotonic() + RECHECK_S if self._incomplete else float("inf")
        return self._router

    def _existing(self, route: Route) -> Route:
        """Without queues that do not exist: a record for one would stop the worker, and with it all other routes."""
        existing = tuple(queue for queue in route.queues if queue in self._queues)
        unknown = [queue for queue in route.queues if queue not in existing]
        if unknown:
            self._incomplete = True
            log.warning(
                "routes.unknown_queue", route=route.name, queues=unknown, remedy="create it, or correct the route"
            )
        return replace(route, queues=existing)


@dataclass(frozen=True, slots=True)
class _Feed:
    """What is needed per record of one topic, bound once."""

    kind: Kind
    decode: Callable[[bytes | None], Any]
    row: Callable[[bytes], ObjectRow[Any]]


class Events:
    """The handlers. Nothing is kept between chunks but compiled things: a chunk may be decided again.

    ``virtual``: time moves only when nothing is in flight.
    """

    def __init__(self, ports: Ports, *, virtual: bool = False) -> None:
        codec = ports.codec
        self.codec = codec
        self.catalogue = ports.catalogue
        self.router = LiveRouter(ports.catalogue, ports.queues)
        self.feeds = {
            topic: _Feed(kind, codec.decoder(change), object_row_decoder(cls))
            for topic, (kind, change, cls) in FEEDS.items()
        }
        self.row_decoders: dict[str, Callable[[bytes], ObjectRow[Any]]] = {
            feed.kind: feed.row for feed in self.feeds.values()
        }
        self.row_decoders[Kind.SERVICE_SIM] = object_row_decoder(Sim)
        self.contexts = Contexts(codec, ports.partitions)
        self.usage_contexts = UsageContexts(codec)
        self.timers = InvoiceTimers(codec, ports.catalogue, lambda batch: _Desk(self, batch), virtual=virtual)
        self.decode_finding = codec.decoder(Finding)
        self.encode_finding = codec.encoder(FINDINGS, Finding)
        self.decode_source_row = codec.decoder(SourceRow)
        self.decode_counts = row_decoder(CountRow)
        self.encoders: dict[str, tuple[str, Callable[[Event], bytes]]] = {}

    def changes(self, batch: Batch) -> Iterator[None]:
        """Follow the objects of one feed and raise what their changes mean; then all that is due."""
        feed, desk = self.feeds[batch.topic], _Desk(self, batch)
        for record in batch.records:
            try:
                check_size(record)
                desk.follow(feed, record, feed.decode(record.value))
            except Poison as error:
                batch.dead_letter(record, error)
        desk.close()
        yield from self.timers.run(batch)

    def findings(self, batch: Batch) -> None:
        """Raise what others have found, with parameters from this partition's rows."""
        desk, decode = _Desk(self, batch), self.decode_finding
        for record in batch.records:
            try:
                check_size(record)
                finding = decode(record.value)
                _check_key(record, finding.key)
                desk.raise_events(record, (finding,))
            except Poison as error:
                batch.dead_letter(record, error)
        desk.close()

    def encoder(self, queue: str) -> tuple[str, Callable[[Event], bytes]]:
        """(topic, encoder) of a queue."""
        found = self.encoders.get(queue)
        if found is None:
            topic = f"queue.{queue}"
            found = self.encoders[queue] = topic, self.codec.encoder(topic, Event)
        return found


class _Desk:
    """One chunk's work: its rows, decoded and encoded at most once, and its counts."""

    def __init__(self, events: Events, batch: Batch) -> None:
        self._events = events
        self._batch = batch
        self._router = events.router()
        self._source_rows = Finder(events.router.sources, batch.rows, events.decode_source_row, events.catalogue)
        self._rows: dict[bytes, ObjectRow[Any] | None] = {}
        self._changed: dict[bytes, ObjectRow[Any]] = {}
        self._links: dict[bytes, ObjectRow[Any]] = {}
        raw = batch.rows.get(count_key(batch.topic))
        self._known = CountRow(next_offset=0, counts={}) if raw is None else events.decode_counts(raw)
        self._counts: Counter[str] = Counter()

    def follow(self, feed: _Feed, record: Record, change: Any) -> None:
        """Take over the object's new state and raise its events; an older or repeated revision does nothing."""
        subject = change.subject
        _check_key(record, _routing_key(feed.kind, subject))
        key = object_key(feed.kind, subject.id)
        before = self._row(feed.row, key)
        current = change.current
        if feed.kind is Kind.INVOICE and current is not None and before is not None:
            current = first_delivery(before.current, current)
        row = follow(before, change.revision, current)
        if row is None:
            return
        _check_row_size(record, key, row)
        had, sent = self._changed.get(key), len(self._batch.outputs)
        known = None if before is None else before.current
        self._rows[key] = self._changed[key] = row
        try:
            self._events.contexts.tell(self._batch, feed.kind, known, change)
            self._events.usage_contexts.tell(self._batch, feed.kind, known, change)
            self.raise_events(record, detect(feed.kind, change, known, self._router.registered))
        except Poison:  # as if the record had not come: redriven, it must not be "seen already"
            del self._batch.outputs[sent:]
            self._rows[key] = before
            del self._changed[key]
            if had is not None:
                self._changed[key] = had
            raise
        self._events.timers.follow(self._batch, self, feed.kind, before, row, change)
        if feed.kind is Kind.SIM:
            self._link(known, change)
        skipped = row.gaps - (0 if before is None else before.gaps)
        if skipped:
            self._count(record, f"gaps {feed.kind}", skipped)

    def raise_events(self, record: Record, findings: Iterable[Finding]) -> None:
        """Enrich, route, emit and count what one record means: all of it, or nothing when Poison is raised."""
        sent = len(self._batch.outputs)
        try:
            traceparent = self._batch.trace_of(record)
            names = [name for finding in findings for name in self._raise_event(finding, traceparent)]
        except Poison:
            del self._batch.outputs[sent:]
            raise
        for name in names:
            self._count(record, name)

    def raise_due(self, finding: Finding) -> list[str]:
        """The same for what time has raised; refused, it goes to the dead letters as a finding, to be redriven."""
        sent = len(self._batch.outputs)
        try:
            return self._raise_event(finding, None)
        except Poison as error:
            del self._batch.outputs[sent:]
            value = self._events.encode_finding(finding)
            self._batch.dead_letter(
                Record(FINDINGS, self._batch.partition, -1, finding.key.encode(), value, [], 0), error
            )
            return []

    def _raise_event(self, finding: Finding, traceparent: str | None) -> list[str]:
        """Returns what to count."""
        routed = self._router.route(finding, self._look_up, traceparent)
        unfit = [f"unfit {route}" for route in routed.unfit]
        if not routed.dispatches:
            return [f"{'withheld' if routed.withheld else 'unrouted'} {finding.type}", *unfit]
        key = finding.key
        for dispatch in routed.dispatches:
            headers = event_headers(dispatch.event)
            if finding.hops:
                headers += [(one.name, one.value) for one in hops.marks(finding.hops, finding.path)]
            for queue in dispatch.queues:
                topic, encode = self._events.encoder(queue)
                self._batch.emit(topic, key=key, value=encode(dispatch.event), headers=headers)
        return [f"raised {finding.type}", *unfit]

    def close(self) -> None:
        """Put the rows. The counts go first: rows become durable in this order, and after a crash between them the
        records come again, are no news to the objects' rows, and could not be counted any more."""
        if self._counts:
            next_offset = self._batch.records[-1].offset + 1
            counts = CountRow(next_offset=next_offset, counts=dict(self._counts + Counter(self._known.counts)))
            self._batch.rows.put(count_key(self._batch.topic), encode_row(counts))
            gaps = {name: count for name, count in self._counts.items() if name.startswith("gaps ")}
            if gaps:
                log.warning(
                    "events.revisions_missing", topic=self._batch.topic, partition=self._batch.partition, **gaps
                )
        # Links first: they have no revision of their own, and would not come again with a SIM that is known.
        for key, row in (*self._links.items(), *self._changed.items()):
            self._batch.rows.put(key, encode_row(row))

    def _link(self, before: Sim | None, change: SimChange) -> None:
        """Remember the SIM of a service: of several the one that was activated last."""
        after, decode = change.current, self._events.row_decoders[Kind.SERVICE_SIM]
        if before is not None and (after is None or after.service_id != before.service_id):
            key = object_key(Kind.SERVICE_SIM, before.service_id)
            row = self._row(decode, key)
            if row is not None and row.current is not None and row.current.id == before.id:
                self._rows[key] = self._links[key] = ObjectRow(revision=change.revision)
        if after is not None:
            key = object_key(Kind.SERVICE_SIM, after.service_id)
            row = self._row(decode, key)
            if row is None or row.current is None or row.current.id == after.id or _newer(after, row.current):
                self._rows[key] = self._links[key] = ObjectRow(revision=change.revision, current=after)

    def _count(self, record: Record, name: str, number: int = 1) -> None:
        if record.offset >= self._known.next_offset:
            self._counts[name] += number

    def _row(self, decode: Callable[[bytes], ObjectRow[Any]], key: bytes) -> ObjectRow[Any] | None:
        found = self._rows.get(key, _UNKNOWN)
        if found is _UNKNOWN:
            raw = self._batch.rows.get(key)
            found = self._rows[key] = None if raw is None else decode(raw)
        return found  # type: ignore[return-value]

    def row(self, kind: Kind, id: str) -> ObjectRow[Any] | None:
        """The row of an object of this partition, as this chunk has made it."""
        return self._row(self._events.row_decoders[kind], object_key(kind, id))

    def _look_up(self, kind: str, id: str) -> object | None:
        if kind in READ_WHOLE:
            return self._events.catalogue.get(kind, id)
        if kind in self._source_rows:
            return self._source_rows(kind, id)
        row = self._row(self._events.row_decoders[kind], object_key(kind, id))
        return None if row is None else row.current


def _newer(sim: Sim, other: Sim) -> bool:
    if sim.activated_at is None or other.activated_at is None:
        return sim.activated_at is not None
    return (sim.activated_at, sim.id) > (other.activated_at, other.id)


def totals(rows: Iterable[tuple[bytes, bytes]]) -> Counter[str]:
    """Sum of the count rows among ``rows`` (key, value): ``raised <type>``, ``unrouted <type>``, ``withheld <type>``,
    ``gaps <kind>``, ``unfit <route>`` (its filter had no answer). Give it the rows of all partitions, each partition's
    latest ones."""
    decode = row_decoder(CountRow)
    found: Counter[str] = Counter()
    for key, value in rows:
        if key.startswith(count_key("")):
            found.update(decode(value).counts)
    return found


def _routing_key(kind: Kind, subject: Any) -> str:
    """What a record of this kind has to be keyed by: the account, so that joins are local; bill runs by themselves."""
    key: str = subject.id if kind in (Kind.ACCOUNT, Kind.BILL_RUN) else subject.account_id
    return key


def check_size(record: Record) -> None:
    """Raise Poison (``too_large``) for a record that this worker does not take over into its rows."""
    size = len(record.value or b"")
    if size > MAX_RECORD_BYTES:
        raise Poison("too_large", f"{size} bytes, at most {MAX_RECORD_BYTES}: send large contents as a reference")


def _check_row_size(record: Record, key: bytes, row: ObjectRow[Any]) -> None:
    if len(record.value or b"") > SURELY_SMALL_BYTES and (size := len(encode_row(row))) > MAX_ROW_BYTES:
        raise Poison(
            "too_large", f"{size} bytes in row {key!r}, at most {MAX_ROW_BYTES}: the object has too many parts"
        )


def _check_key(record: Record, expected: str) -> None:
    if record.key != expected.encode():
        raise Poison("wrong_key", f"the key is {record.key!r}, for this record it must be {expected!r}")
