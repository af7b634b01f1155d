"""The usage worker and the events worker on a Kafka of their own, with a virtual clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agents.clock import barrier_reads
from agents.events.feeds import CHANGELOG
from streams.codec.registration import register_all
from streams.core.routing import Route
from streams.core.usage.objects import Bucket, BucketChange, Contract, ContractChange, SimChange, Usage
from streams.kafka import admin as kafka_admin
from streams.kafka.manifest import Topic
from tests.events.scenarios.stage import PRODUCTS, RATE_PLANS, Stage, Step

WORKERS = ("usage", "events")
TOPICS: dict[type[Any], str] = {
    Usage: "billing.usage",
    SimChange: "billing.sim",
    BucketChange: "billing.bucket",
    ContractChange: "billing.contract",
}
#: What the workers write and nobody of them reads.
NEEDED = (
    *("plan-change.contexts", "plan-change.validated", CHANGELOG, "usage-store-changelog"),
    *("dead-letters.events", "dead-letters.usage"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageStep(Step):
    """A step of the usage half too."""

    @property
    def topic(self) -> str:
        return TOPICS[type(self.value)] if type(self.value) in TOPICS else super(UsageStep, self).topic

    @property
    def key(self) -> str:
        if isinstance(self.value, Usage):
            return self.value.service_id
        if type(self.value) not in TOPICS:
            return super(UsageStep, self).key
        subject = self.value.subject
        if isinstance(subject, Contract):
            return subject.account_id
        return subject.service_id or (subject.id if isinstance(subject, Bucket) else "")


class UsageStage(Stage):
    """Both workers on one stage."""

    def __post_init__(self) -> None:
        Stage.__post_init__(self)
        self.reads = barrier_reads({name: self.manifest.groups[name] for name in WORKERS}, self.manifest.topics)

    def start(self, routes: Iterable[Route], rules: Iterable[Any]) -> None:
        """Topics, schemas, configuration, and the workers."""
        topics = [topic for topic in self.manifest.topics.values() if topic.name in NEEDED or self._is_needed(topic)]
        kafka_admin.create_topics(kafka_admin.admin_client(self.kafka()), topics)
        subjects = self.manifest.subjects()
        names = [f"{topic.name}-value" for topic in topics]
        register_all(self.registry, {name: subjects[name] for name in names if name in subjects})
        self.write("catalog.product", {one.id: one for one in PRODUCTS})
        self.write("catalog.rate-plan", {one.id: one for one in RATE_PLANS})
        self.write("config.routes", {route.name: route for route in routes})
        self.write("config.event-rules", {rule.name: rule for rule in rules})
        for name in WORKERS:
            self.supervisor.add(name, "worker", name)

    @staticmethod
    def _is_needed(topic: Topic) -> bool:
        readers = set(topic.readers) & set(WORKERS)
        return bool(readers) or topic.read_whole or topic.name.startswith("queue.")
