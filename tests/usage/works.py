"""The usage worker without Kafka: the real agent, codec, batches and rows of one partition; only no broker."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from agents.usage import BUCKET, BUCKETS_OUT, SHARES, SIM, SIMS_OUT, USAGE, UsageWork
from streams.codec import Codec, LocalIds, LocalSchemas
from streams.core.event_rules import EventRule
from streams.core.events import Finding
from streams.core.usage.objects import (
    BucketChange,
    ContractChange,
    SimChange,
    Usage,
    UsageContext,
    UsageShare,
)
from streams.kafka.chunks import Output, Record
from streams.topics import CONTRACTS, FINDINGS, TICKS, USAGE_CONTEXTS
from tests.events.works import Shelf
from tests.support.batch import Lane, Outputs
from tests.usage.makers import RETENTION

TOPICS: dict[type[Any], str] = {
    Usage: USAGE,
    UsageShare: SHARES,
    SimChange: SIM,
    BucketChange: BUCKET,
    ContractChange: CONTRACTS,
    UsageContext: USAGE_CONTEXTS,
}


@dataclass(frozen=True)
class FixedPorts:
    """Ports for one worker."""

    codec: Codec
    catalogue: Shelf
    usage_retention: timedelta = RETENTION


@dataclass
class Works:
    """One partition; every call of :meth:`feed` and :meth:`tick` is one chunk."""

    virtual: bool = True
    shelf: Shelf = field(default_factory=Shelf)

    def __post_init__(self) -> None:
        schemas = LocalSchemas()
        self.codec = Codec(LocalIds(schemas), schemas)
        self.work = UsageWork(FixedPorts(self.codec, self.shelf), virtual=self.virtual)
        self.lane = Lane("usage", open=self.work.open)

    def rule(self, *rules: EventRule) -> None:
        """Configuration arrives."""
        for rule in rules:
            self.shelf.put("event_rule", rule.name, rule)

    def feed(self, *values: Any, key: str | None = None, **crash: int) -> list[Any]:
        """What leaves because of these values, which all have one topic; shares come back by themselves."""
        topic = TOPICS[type(values[0])]
        encoded = [(key or key_of(value), self.codec.encode(topic, value)) for value in values]
        return self.replay(self.lane.chunk(topic, encoded), **crash)

    def replay(self, records: list[Record], **crash: int) -> list[Any]:
        """A chunk (again); see :meth:`tests.support.batch.Lane.replay` for crashes."""
        handler = {
            USAGE: self.work.usage, SHARES: self.work.shares, SIM: self.work.sims, BUCKET: self.work.buckets,
            CONTRACTS: self.work.contracts, USAGE_CONTEXTS: self.work.contexts, TICKS: self.work.ticks,
        }[records[0].topic]  # fmt: skip
        found = self.decoded(self.lane.replay(handler, records, **crash))
        shares = [one for one in found if isinstance(one, UsageShare)]
        return [*found, *(self.feed(*shares) if shares and not crash else [])]

    def tick(self, now: datetime, **crash: int) -> list[Any]:
        """Time passes."""
        self.lane.now = now
        return self.replay(self.lane.chunk(TICKS, [(None, b"")]), **crash)

    def decoded(self, outputs: Outputs) -> list[Any]:
        classes = {FINDINGS: Finding, SHARES: UsageShare, SIMS_OUT: SimChange, BUCKETS_OUT: BucketChange}
        return [
            self.codec.decode(one.value, classes[one.topic]) if one.topic in classes else one
            for one in outputs
            if one.topic != "clock.due"
        ]

    @property
    def told(self) -> list[Finding]:
        """Every finding that ever left."""
        return [one for one in self.decoded(self.lane.sent) if isinstance(one, Finding)]

    @property
    def dead(self) -> list[Output]:
        """Records that were put aside."""
        return [one for one in self.lane.sent if one.topic == "dead-letters.usage"]


def key_of(value: Any) -> str:
    """The Kafka key that a well-behaved writer gives."""
    match value:
        case UsageShare():
            return value.meter_id
        case BucketChange():
            return value.subject.service_id or value.subject.id
        case ContractChange():
            return value.subject.id
        case SimChange():
            return value.subject.service_id
    key: str = value.service_id
    return key
