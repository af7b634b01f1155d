"""One events worker on a Kafka of its own, with a virtual clock: plays steps at their instants and reads the events."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from agents.clock import ClockFace, VirtualClock, barrier_reads, due_reports
from agents.configuration.records import read_rows, write_records
from agents.events.feeds import CHANGELOG, FEEDS
from agents.supervisor import Supervisor
from streams.codec import Codec, Registry
from streams.codec.registration import register_all
from streams.core.events import Event, Finding
from streams.core.objects import BillRun, Product, RatePlan
from streams.core.routing import Route
from streams.kafka import admin as kafka_admin
from streams.kafka.catalogue import patiently
from streams.kafka.manifest import Manifest, Topic
from streams.kafka.partitioner import PARTITIONER
from streams.kafka.quiescence import Quiescence
from streams.kafka.scan import Scanner
from streams.settings import ClockMode, Settings
from streams.topics import FINDINGS
from tests.core.billing import created
from tests.support.brokers import Address
from tests.support.kafka_io import wait_until

#: Without anything due the clock goes to the next step of the play.
FAR = timedelta(days=4_000)
#: A worker starts in a few seconds, on a machine that is busy in a minute.
TIMEOUT_SECONDS = 240.0
#: Instants of one part of a long play.
PART = 40
#: What the worker writes; making all topics of the manifest would take longer than the play.
NEEDED = (
    *("plan-change.contexts", "plan-change.validated", "usage.contexts", "usage.contracts"),
    *("dead-letters.events", CHANGELOG),
)
PRODUCTS = (Product(id="fibre", name="Fibre"), Product(id="mobile", name="Mobile"))
RATE_PLANS = (
    RatePlan(id="basic", product_id="fibre", name="Basic 50"),
    RatePlan(id="plus", product_id="fibre", name="Plus 200"),
)
#: Read whole by every worker and named by invoices, so it is there before the worker starts.
BILL_RUN = BillRun(id="R1", billing_period="2018-10", state="Completed", accounts=3, invoices=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Send ``value`` to its topic when the clock has reached ``at``."""

    at: datetime
    value: Any

    @property
    def topic(self) -> str:
        """The topic of this class of records."""
        if isinstance(self.value, Finding):
            return FINDINGS
        return next(topic for topic, (_, cls, _) in FEEDS.items() if isinstance(self.value, cls))

    @property
    def key(self) -> str:
        """The Kafka key that a well-behaved writer gives."""
        if isinstance(self.value, Finding):
            return self.value.key
        subject = self.value.subject
        key: str = subject.id if self.topic in ("billing.account", "billing.bill-run") else subject.account_id
        return key


@dataclass
class Stage:
    """Call :meth:`start`, :meth:`play` as often as you like with rising instants, and :meth:`close`."""

    address: Address
    directory: Path
    ticks: list[datetime] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.settings = Settings(
            bootstrap_servers=self.address.bootstrap_servers,
            schema_registry_url=self.address.schema_registry_url,
            data_dir=self.directory,
            clock=ClockMode.VIRTUAL,
        )
        self.registry = Registry(self.address.schema_registry_url)
        self.codec = Codec(self.registry)
        self.manifest = Manifest.load()
        self.supervisor = Supervisor(
            log_dir=self.directory / "logs",
            grace_s=TIMEOUT_SECONDS,
            env={
                "CURFEW_BOOTSTRAP_SERVERS": self.address.bootstrap_servers,
                "CURFEW_SCHEMA_REGISTRY_URL": self.address.schema_registry_url,
                "CURFEW_DATA_DIR": str(self.directory),
                "CURFEW_CLOCK": ClockMode.VIRTUAL.value,
                "CURFEW_LOG_FORMAT": "json",
            },
        )
        self.reads = barrier_reads({"events": self.manifest.groups["events"]}, self.manifest.topics)

    def start(self, routes: Iterable[Route], rules: Iterable[Any]) -> None:
        """Topics, schemas, configuration, and the worker."""
        topics = [topic for topic in self.manifest.topics.values() if topic.name in NEEDED or self._is_needed(topic)]
        kafka_admin.create_topics(kafka_admin.admin_client(self.kafka()), topics)
        subjects = self.manifest.subjects()
        names = [f"{topic.name}-value" for topic in topics]
        register_all(self.registry, {name: subjects[name] for name in names if name in subjects})
        self.write("catalog.product", {one.id: one for one in PRODUCTS})
        self.write("catalog.rate-plan", {one.id: one for one in RATE_PLANS})
        self.write("billing.bill-run", {BILL_RUN.id: created(BILL_RUN)})
        self.write("config.routes", {route.name: route for route in routes})
        self.write("config.event-rules", {rule.name: rule for rule in rules})
        self.supervisor.add("events", "worker", "events")

    @staticmethod
    def _is_needed(topic: Topic) -> bool:
        return "events" in topic.readers or topic.read_whole or topic.name.startswith("queue.")

    def write(self, topic: str, records: Mapping[str, object | None]) -> None:
        """Set the values of these keys."""
        write_records(self.settings, self.codec, topic, records)

    def kafka(self) -> dict[str, Any]:
        return self.settings.kafka(log_level=0, error_cb=lambda error: None)

    def play(self, steps: Iterable[Step], until: datetime, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Go from instant to instant, to those of the steps and to what the worker reports, and send the steps.

        ``meanwhile`` is called now and then, in the main thread.
        """
        coming = sorted(steps, key=lambda step: step.at)
        instants = frozenset(step.at for step in coming)
        start = min([*instants, until])
        error: list[BaseException] = []

        def send(now: datetime) -> None:
            self.ticks.append(now)
            due = [step for step in coming if step.at <= now]
            del coming[: len(due)]
            self._send(due)

        def run() -> None:
            due = due_reports(self.kafka(), self.codec)
            patiently(due.start)
            face = ClockFace(config=self.kafka(), codec=self.codec)
            try:
                VirtualClock(
                    face=face, quiescence=Quiescence(self.kafka(), self.reads), due=due, step=FAR,
                    exactly=instants, on_tick=send,
                ).run(self._stop, start=start, until=until)  # fmt: skip
            except BaseException as failure:
                error.append(failure)
            finally:
                due.stop()
                face.close()

        thread = threading.Thread(target=run, name="clock")
        thread.start()

        def ended() -> bool:
            meanwhile()
            return not thread.is_alive()

        try:
            wait_until(ended, f"the clock is at {until}, was at {self.ticks[-1:]}", TIMEOUT_SECONDS)
        finally:
            self._stop.set()
            thread.join()
            self._stop.clear()
        assert error == []

    def play_in_parts(
        self, steps: Iterable[Step], until: datetime, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        """As :meth:`play`, for long ones: each part has its own time to come to an end. No instant is left out, since a
        part ends where the next one begins."""
        coming = sorted(steps, key=lambda step: step.at)
        starts = sorted({step.at for step in coming})[::PART]
        for start, end in zip(starts, [*starts[1:], until], strict=True):
            self.play([step for step in coming if start <= step.at and (step.at < end or end == until)], end, meanwhile)

    def _send(self, steps: list[Step]) -> None:
        producer = Producer({**self.kafka(), "partitioner": PARTITIONER, "acks": "all"})
        failures: list[str] = []

        def delivered(error: object, _message: object) -> None:
            if error is not None:
                failures.append(str(error))

        for step in steps:
            value = self.codec.encode(step.topic, step.value)
            producer.produce(step.topic, value, step.key, on_delivery=delivered)
        assert producer.flush(60.0) == 0
        assert failures == []

    def events(self, queue: str) -> list[Event]:
        """All events that are in a queue."""
        topic = f"queue.{queue}"
        with Scanner(self.kafka()) as scanner:
            records = list(scanner.read(topic, scanner.spans(topic)))
        return [self.codec.decode(record.value(), Event) for record in records]

    def rows(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """Rows of the worker's store, as its changelog has them."""
        return list(read_rows(self.settings, CHANGELOG, prefix))

    def close(self) -> list[str]:
        """End the worker; returns those that had to be killed."""
        self._stop.set()
        return self.supervisor.stop()
