"""The events worker without Kafka: real codec, real batches, real rows in a memory store, only no broker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agents.events.engine import Events, totals
from agents.events.feeds import FEEDS
from agents.sources.rows import ROWS, SourceRows
from streams.codec import Codec, LocalIds, LocalSchemas
from streams.core.clock import NextDue
from streams.core.events import Event, Finding
from streams.core.routing import Route, RouteAudience
from streams.core.sources import SourceRow
from streams.kafka.chunks import Batch, Handler, Output, Record
from streams.kafka.store import MemoryStore, Overlay
from streams.topics import FINDINGS, TICKS

QUEUES = ("customer-events", "billing-events", "operations")
ALL_EVENTS = Route(
    name="all",
    event_types=(
        "service.*",
        "account.*",
        "account_package.*",
        "package.*",
        "invoice.*",
        "refund.*",
        "credit.*",
        "payment.*",
        "bill_run.*",
        "rate_plan_change.*",
    ),
    queues=("operations",),
    audience=RouteAudience.ALL,
)


@dataclass
class Shelf:
    """A catalogue in dictionaries; ``put`` raises the version, as a record of its topic would."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)

    def put(self, kind: str, id: str, value: Any) -> None:
        self.objects.setdefault(kind, {})[id] = value
        self.versions[kind] = self.version(kind) + 1

    def get(self, kind: str, id: str) -> object | None:
        return self.objects.get(kind, {}).get(id)

    def all(self, kind: str) -> Mapping[str, Any]:
        return self.objects.get(kind, {})

    def version(self, kind: str) -> int:
        return self.versions.get(kind, 0)


@dataclass(frozen=True)
class FixedPorts:
    """Ports for one worker."""

    codec: Codec
    catalogue: Shelf
    queues: tuple[str, ...] = QUEUES
    partitions: int = 4


class Works:
    """One partition of the events worker; every call of :meth:`feed` is one chunk."""

    def __init__(self, *routes: Route) -> None:
        schemas = LocalSchemas()
        self.codec = Codec(LocalIds(schemas), schemas)
        self.catalogue = Shelf()
        for route in routes or (ALL_EVENTS,):
            self.catalogue.put("route", route.name, route)
        ports = FixedPorts(self.codec, self.catalogue)
        self.events = Events(ports, virtual=True)
        self.source_rows = SourceRows(ports)
        self.store = MemoryStore()
        self.now: datetime | None = None
        self.caught_up = True
        self.memory: dict[str, Any] = {}
        self.reopen()
        self.offsets: dict[str, int] = {}
        self.outputs: list[Output] = []

    def feed(
        self,
        topic: str,
        values: Iterable[object],
        *,
        key: str | None = None,
        headers: Iterable[tuple[str, bytes | None]] = (),
        crash: bool = False,
    ) -> list[Event]:
        """Events that these changes (or findings, or raw bytes) cause; with ``crash`` nothing of it becomes durable."""
        first = self.offsets.get(topic, 0)
        records = [self._record(topic, first + n, value, key, list(headers)) for n, value in enumerate(values)]
        sent = len(self.outputs)
        handlers: Mapping[str, Handler] = {FINDINGS: self.events.findings, ROWS: self.source_rows.rows}
        self._run(handlers.get(topic, self.events.changes), topic, records, crash)
        if not crash:
            self.offsets[topic] = first + len(records)
        return self._events_since(sent)

    def tick(self, now: datetime, *, crash: bool = False) -> list[Event]:
        """Events that are raised because it is ``now``; with ``crash`` nothing of it becomes durable."""
        self.now, sent = now, len(self.outputs)
        self._run(self.events.timers.run, TICKS, [], crash)
        return self._events_since(sent)

    def reopen(self) -> None:
        """What a restart does: memory is gone and built again from the rows."""
        self.memory.clear()
        self.events.timers.open(self._batch("", []))

    def next_due(self) -> datetime | None:
        """What was reported to the clock last."""
        reports = [self.codec.decode(out.value, NextDue) for out in self.outputs if out.topic == "clock.due"]
        return reports[-1].due if reports else None

    def _batch(self, topic: str, records: list[Record]) -> Batch:
        return Batch("events", topic, 0, records, Overlay(self.store), self.now, self.memory, self.caught_up)

    def _run(self, handler: Handler, topic: str, records: list[Record], crash: bool) -> None:
        """Hand over one chunk; every slice becomes durable, or nothing of the first one."""
        batch = self._batch(topic, records)
        for _ in _slices(handler(batch)):
            self.outputs.extend(batch.outputs)
            batch.outputs.clear()
            if crash:
                self.reopen()
                return
            self.store.write(list(batch.rows.writes.items()), None)
            batch.rows.clear()

    def _events_since(self, sent: int) -> list[Event]:
        return [self.codec.decode(out.value, Event) for out in self.outputs[sent:] if out.topic.startswith("queue.")]

    @property
    def counts(self) -> Mapping[str, int]:
        """What the worker has counted, from its rows."""
        return totals(self.store.scan(b""))

    def queued(self, queue: str) -> list[Event]:
        """Every event that was ever sent to a queue."""
        return [self.codec.decode(out.value, Event) for out in self.outputs if out.topic == f"queue.{queue}"]

    def dead(self) -> list[Output]:
        """Records that were put aside."""
        return [out for out in self.outputs if out.topic == "dead-letters.events"]

    def row(self, topic: str, key: bytes) -> Any:
        """A row of the store, decoded as rows of this feed are."""
        raw = self.store.get(key)
        return None if raw is None else self.events.feeds[topic].row(raw)

    def _record(
        self, topic: str, offset: int, value: object, key: str | None, headers: list[tuple[str, bytes | None]]
    ) -> Record:
        if isinstance(value, bytes):
            return Record(topic, 0, offset, (key or "A1").encode(), value, headers, 0)
        encoded = self.codec.encode(topic, value)
        return Record(topic, 0, offset, (key or key_of(topic, value)).encode(), encoded, headers, 0)


def _slices(steps: Any) -> Iterator[None]:
    yield from steps or ()
    yield


def key_of(topic: str, value: Any) -> str:
    """The Kafka key that a well-behaved writer gives."""
    if isinstance(value, Finding):
        return value.key
    if isinstance(value, SourceRow):
        return value.account_id or ""
    subject = value.subject
    key: str = subject.id if topic in ("billing.account", "billing.bill-run") else subject.account_id
    return key


def topic_of(change: object) -> str:
    """The topic of this class of changes."""
    return next(topic for topic, (_, cls, _) in FEEDS.items() if isinstance(change, cls))
