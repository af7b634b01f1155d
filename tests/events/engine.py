"""The events and the usage worker without Kafka, each over all partitions, with the topics between them.

Real handlers, codec and rows; only the broker is a queue per topic and partition here, so a test decides who comes
next, how many records a chunk has, and when a worker is killed.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from agents import usage
from agents.events import engine, feeds
from agents.plan_changes import orders
from agents.sources import rows
from streams.codec import Codec, LocalIds, LocalSchemas
from streams.core.clock import NextDue
from streams.core.events import Event
from streams.core.routing import Route
from streams.kafka.chunks import Handler, Output, Record
from streams.kafka.manifest import Manifest
from streams.kafka.partitioner import partition_of
from streams.topics import CONTRACTS, DUE, FINDINGS, REQUESTS, TICKS, USAGE_CONTEXTS
from tests.events.works import QUEUES, Shelf
from tests.support.batch import Lane

SCHEMAS = LocalSchemas()
EVENTS, USAGE = "events", "usage"
#: Longer than any play: what the usage worker forgets is not what these tests are about.
RETENTION = timedelta(days=400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A record of an input topic, sent at ``at``."""

    at: datetime
    topic: str
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Ports:
    """What both workers need of the outside."""

    codec: Codec
    catalogue: Shelf
    partitions: int
    queues: tuple[str, ...] = QUEUES
    usage_retention: timedelta = RETENTION


class Chance:
    """Who comes next, decided by a seed. ``kill`` is the share of chunks after whose outputs the worker is gone."""

    def __init__(self, seed: int, kill: float = 0.0) -> None:
        self._random = random.Random(seed)
        self._kill = kill

    def next(self, waiting: list[Place]) -> Place:
        return self._random.choice(waiting)

    def size(self, waiting: int) -> int:
        return min(waiting, self._random.choice((1, 2, 5, 50)))

    def dies(self) -> bool:
        return self._random.random() < self._kill


class InOrder(Chance):
    """The quiet way: one topic after the other, one record at a time, and nobody dies."""

    def __init__(self) -> None:
        super().__init__(0)

    def next(self, waiting: list[Place]) -> Place:
        return min(waiting)

    def size(self, waiting: int) -> int:
        return 1


#: Worker, topic, partition.
Place = tuple[str, str, int]


class Engine:
    """Call :meth:`send`, :meth:`drain` and :meth:`tick` as often as you like; :attr:`raised` has every event."""

    codec = Codec(LocalIds(SCHEMAS), SCHEMAS)
    manifest = Manifest.load()

    def __init__(self, routes: Iterable[Route], catalogue: Shelf, chance: Chance) -> None:
        self.partitions = self.manifest.topics[FINDINGS].partitions
        self._chance = chance
        for route in routes:
            catalogue.put("route", route.name, route)
        ports = Ports(self.codec, catalogue, self.partitions)
        events, work = engine.Events(ports, virtual=True), usage.UsageWork(ports, virtual=True)
        self._handlers: dict[tuple[str, str], Handler] = {
            **{(EVENTS, topic): events.changes for topic in feeds.FEEDS},
            (EVENTS, FINDINGS): events.findings,
            (EVENTS, REQUESTS): orders.Orders(ports).requests,
            (EVENTS, rows.ROWS): rows.SourceRows(ports).rows,
            (EVENTS, TICKS): events.timers.run,
            (USAGE, usage.USAGE): work.usage,
            (USAGE, usage.SHARES): work.shares,
            (USAGE, usage.SIM): work.sims,
            (USAGE, usage.BUCKET): work.buckets,
            (USAGE, CONTRACTS): work.contracts,
            (USAGE, USAGE_CONTEXTS): work.contexts,
            (USAGE, TICKS): work.ticks,
        }
        openers: dict[str, Callable[..., None]] = {EVENTS: events.timers.open, USAGE: work.open}
        self._lanes = {
            (app, number): Lane(app, partition=number, open=opener)
            for app, opener in openers.items()
            for number in range(self.partitions)
        }
        self._due: dict[tuple[str, int], datetime | None] = {}
        self._waiting: dict[Place, deque[Record]] = {}
        self._log: dict[Place, list[Record]] = {}

    @property
    def reads(self) -> set[str]:
        """The topics that somebody reads here, without the ticks."""
        return {topic for _, topic in self._handlers if topic != TICKS}

    def send(self, inputs: Iterable[Input]) -> None:
        """The records are in their topics."""
        for one in inputs:
            self._append(one.topic, one.key, one.value, -1)

    def rewind(self) -> None:
        """Everything that was ever in the topics comes again, to workers that know it all."""
        for place, records in self._log.items():
            self._waiting[place] = deque(records)

    def drain(self) -> None:
        """Until nobody has anything to read: a chunk here, a chunk there."""
        while waiting := sorted(place for place, records in self._waiting.items() if records):
            place = self._chance.next(waiting)
            records = self._waiting[place]
            size = self._chance.size(len(records))
            self._run(place, list(records)[:size])
            for _ in range(size):
                records.popleft()

    def tick(self, now: datetime) -> None:
        """It is ``now``, in all partitions; then everything that follows from it."""
        for lane in self._lanes.values():
            lane.now = now
        for app, number in self._lanes:
            self._run((app, TICKS, number), self._lanes[app, number].chunk(TICKS, [(None, b"")]))
        self.drain()

    @property
    def raised(self) -> Counter[tuple[str, str]]:
        """Type and id of every event in a queue, and how often it is there."""
        sent = [out for lane in self._lanes.values() for out in lane.sent if out.topic.startswith("queue.")]
        heads = [dict(out.headers or ()) for out in sent]
        return Counter((head["ce_type"].decode(), head["ce_id"].decode()) for head in heads)

    @property
    def events(self) -> list[Event]:
        """Every event that is in a queue."""
        sent = [out for lane in self._lanes.values() for out in lane.sent if out.topic.startswith("queue.")]
        return [self.codec.decode(out.value, Event) for out in sent]

    @property
    def due(self) -> set[datetime]:
        """The instants that the partitions wait for, as they have told the clock."""
        return {due for due in self._due.values() if due is not None}

    @property
    def dead(self) -> list[Output]:
        """Records that were put aside."""
        return [out for lane in self._lanes.values() for out in lane.sent if out.topic.startswith("dead-letters.")]

    def _run(self, place: Place, records: list[Record]) -> None:
        """One chunk; a worker that dies has sent some of its outputs, kept no row, and reads the chunk again."""
        app, topic, number = place
        lane, handler = self._lanes[app, number], self._handlers[app, topic]
        while self._chance.dies():
            before = len(lane.sent)
            lane.replay(handler, records, crash_after_outputs=self._chance.size(4))
            self._forward(lane, before)
        before = len(lane.sent)
        lane.replay(handler, records)
        self._forward(lane, before)

    def _forward(self, lane: Lane, before: int) -> None:
        for out in lane.sent[before:]:
            if out.topic == DUE:
                report = self.codec.decode(out.value, NextDue)
                self._due[report.group, report.partition] = report.due
            self._append(out.topic, out.key, out.value, out.partition)

    def _append(self, topic: str, key: str | bytes | None, value: bytes | None, partition: int) -> None:
        for app in (EVENTS, USAGE):
            if (app, topic) in self._handlers:
                number = partition if partition >= 0 else partition_of(key or b"", self.partitions)
                lane = self._lanes[app, number]
                [record] = lane.chunk(topic, [(key.decode() if isinstance(key, bytes) else key, value)])
                self._waiting.setdefault((app, topic, number), deque()).append(record)
                self._log.setdefault((app, topic, number), []).append(record)
