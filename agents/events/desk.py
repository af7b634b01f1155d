"""One chunk's work in the events worker: follow objects, raise what their changes mean, count it, put the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import structlog

from agents.events.feeds import Feed, check_key, routing_key
from agents.events.limits import check_row_size
from agents.sources.finder import Finder
from streams.codec.cloudevents import event_headers
from streams.codec.rows import encode_row
from streams.core.delivery import hops
from streams.core.detectors import detect
from streams.core.errors import Poison
from streams.core.events import Finding
from streams.core.invoice_due import first_delivery
from streams.core.rows import CountRow, Kind, ObjectRow, count_key, follow, object_key
from streams.core.usage.objects import Sim, SimChange
from streams.kafka.chunks import Batch, Record
from streams.topics import FINDINGS

if TYPE_CHECKING:
    from agents.events.engine import Events

#: Kinds that are not keyed by account: every worker has read them whole.
READ_WHOLE = frozenset({Kind.PRODUCT, Kind.RATE_PLAN, Kind.BILL_RUN})


_UNKNOWN = object()

log = structlog.get_logger(__name__)


class Desk:
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

    def follow(self, feed: Feed, record: Record, change: Any) -> None:
        """Take over the object's new state and raise its events; an older or repeated revision does nothing."""
        subject = change.subject
        check_key(record, routing_key(feed.kind, subject))
        key = object_key(feed.kind, subject.id)
        before = self._row(feed.row, key)
        current = change.current
        if feed.kind is Kind.INVOICE and current is not None and before is not None:
            current = first_delivery(before.current, current)
        row = follow(before, change.revision, current)
        if row is None:
            return
        check_row_size(record, key, row)
        had, sent = self._changed.get(key), len(self._batch.outputs)
        known = None if before is None else before.current
        self._rows[key] = self._changed[key] = row
        try:
            self._events.contexts.tell(self._batch, feed.kind, before, change)
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
