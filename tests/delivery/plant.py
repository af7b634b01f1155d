"""One partition of the delivery worker, decided chunk by chunk: real handlers, batches and rows, no Kafka."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from agents.calculations import declarations
from agents.calculations.pool import CalculationPool
from agents.delivery.dispatch import Dispatcher
from agents.delivery.maker import Maker
from agents.delivery.units import ATTEMPTS, REOPENS, TICKS, Delivery
from streams.codec import Codec, LocalIds, LocalSchemas
from streams.core.delivery.messages import Attempt, Result, Verdict
from streams.core.delivery.units import Done, Table
from streams.core.events import Audience, Event
from streams.core.ids import event_id
from streams.core.subscriptions import Forward, Ordering, Subscription, Webhook, succeed
from streams.kafka.chunks import Batch, Handler, Output, Record
from streams.kafka.store import MemoryStore, Overlay
from streams.sinks.email import EmailSender
from streams.sinks.email_templates import Templates
from streams.sinks.webhook import WebhookSender
from streams.topics import REPLAYS, RESULTS
from streams.tracing import OFF, Tracer

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PARTITION = 3
#: What a receiver says to an event of a subscription (by name).
Answer = Callable[[Event, str], Verdict]


@dataclass(slots=True)
class SetClock:
    """A clock that stands still until it is told otherwise."""

    at: datetime = START

    def now(self) -> datetime:
        return self.at


@dataclass(slots=True)
class ListCatalogue:
    """The live subscriptions, as the worker's catalogue has them."""

    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    changes: int = 0

    def version(self, kind: str) -> int:
        return self.changes

    def all(self, kind: str) -> dict[str, Subscription]:
        assert kind == "subscription"
        return dict(self.subscriptions)


class SetQueues(tuple[str, ...]):
    """The queues of the cluster, all known."""

    __slots__ = ()

    def known_now(self) -> SetQueues:
        return self


QUEUES = SetQueues(("customer-events", "partner", "operations"))


@dataclass(slots=True, kw_only=True)
class PlantPorts:
    codec: Codec
    clock: SetClock
    catalogue: ListCatalogue
    queues: SetQueues = QUEUES


def subscription(name: str = "crm", **fields: Any) -> Subscription:
    """A webhook subscription on customer-events unless ``fields`` say otherwise."""
    webhook = {"webhook": Webhook(url="http://127.0.0.1:1/", secret_ref="env:X")}
    action = {} if {"forward", "email", "calculation"} & fields.keys() else webhook
    return succeed(
        None,
        Subscription(**{"name": name, "id": "", "version": 0, "created_at": START, "queue": "customer-events",
                        **action, **fields}),
    )  # fmt: skip


def forward(name: str, source: str, target: str, **fields: Any) -> Subscription:
    return subscription(name, queue=source, forward=Forward(queue=target), **fields)


def event(sequence: int, account: str = "A1", **fields: Any) -> Event:
    """The event of revision ``sequence`` of the one service of an account."""
    given: dict[str, Any] = {
        "event_id": event_id("service.state_transitioned", "service", f"S-{account}", sequence),
        "type": "service.state_transitioned",
        "occurred_at": START,
        "subject_kind": "service",
        "subject_id": f"S-{account}",
        "account_id": account,
        "sequence": sequence,
        "facts": {"from": "Active", "to": "Suspended"},
        "current": {"state": "Suspended"},
        "audience": Audience.CUSTOMER,
        "parameters": {"service.name": "Line 1"},
    }
    return Event(**{**given, **fields})


class Plant:
    """Feeds chunks to the handlers and keeps what they emit, by topic."""

    def __init__(self, *subscriptions: Subscription, sender: WebhookSender | None = None) -> None:
        self.clock = SetClock()
        self.calculations: tuple[str, ...] = ()
        self.catalogue = ListCatalogue()
        self.codec = Codec(LocalIds(LocalSchemas()))
        self.ports = PlantPorts(codec=self.codec, clock=self.clock, catalogue=self.catalogue)
        self.store = MemoryStore()
        self.rows_made = MemoryStore()
        self.guard: Callable[[], None] = lambda: None
        self.tracer: Tracer = OFF
        self.memory: dict[str, Any] = {}
        self.ends: dict[str, int] = {}
        self.outputs: list[Output] = []
        self.made: list[tuple[Attempt, Verdict]] = []
        self.delivery = Delivery(self.ports)
        self.dispatcher: Dispatcher | None = None
        if sender is not None:
            self.restart_dispatcher(sender)
        for one in subscriptions:
            self.apply(one)
        self.reopen()

    def apply(self, wanted: Subscription) -> Subscription:
        """Save a subscription as its next version."""
        live = succeed(self.catalogue.subscriptions.get(wanted.name), wanted)
        self.catalogue.subscriptions[wanted.name] = live
        self.catalogue.changes += 1
        return live

    def reopen(self) -> None:
        """As after a restart: what is in memory is derived from the rows again."""
        self.memory.clear()
        self.delivery.open(self._batch("", []))

    # What comes in

    def feed(self, *events: Event, queue: str = "customer-events", **how: Any) -> list[Output]:
        """One chunk of a queue."""
        topic = f"queue.{queue}"
        return self.chunk(topic, [(one.key.encode(), self.codec.encode(topic, one), []) for one in events], **how)

    def settle(self, attempt: Attempt, verdict: Verdict = Verdict.DELIVERED, **fields: Any) -> list[Output]:
        """The result of an attempt."""
        return self.chunk(RESULTS, [(b"", self.codec.encode(RESULTS, self.result(attempt, verdict, **fields)), [])])

    def result(self, attempt: Attempt, verdict: Verdict = Verdict.DELIVERED, **fields: Any) -> Result:
        given = {name: getattr(attempt, name) for name in Attempt.__slots__ if name in Result.__slots__}
        failure = None if verdict is Verdict.DELIVERED else "http_500"
        defaults: dict[str, Any] = {
            "subscription_version": 1, "verdict": verdict, "reason": failure, "detail": None, "latency_ms": 1,
            "status": 200 if failure is None else 500, "retry_after_s": None, "body": None,
            "finished_at": self.clock.at,
        }  # fmt: skip
        return Result(**{**given, **defaults, **fields})

    def fail(self, attempt: Attempt, **fields: Any) -> list[Output]:
        return self.settle(attempt, Verdict.FAILED, **fields)

    def answer(self, attempts: list[Attempt], verdict: Answer = lambda one, name: Verdict.DELIVERED) -> None:
        """Make attempts and those that their results cause, by the rule of ``follows``; :attr:`made` is the account."""
        waiting = deque(attempts)
        while waiting:
            attempt = waiting.popleft()
            delivered = {one.attempt_id for one, result in self.made if result is Verdict.DELIVERED}
            if attempt.follows is not None and attempt.follows not in delivered:
                waiting += self.attempts(self.settle(attempt, Verdict.POSTPONED, reason="order", status=None))
                continue
            result = verdict(self.codec.decode(attempt.value, Event), attempt.subscription)
            self.made.append((attempt, result))
            waiting += self.attempts(self.settle(attempt, result))

    def sequences(self, verdict: Verdict = Verdict.DELIVERED) -> dict[str, list[int]]:
        """Sequence numbers of the attempts that were made with this result, by key."""
        found: dict[str, list[int]] = {}
        for attempt, result in self.made:
            if result is verdict:
                one = self.codec.decode(attempt.value, Event)
                found.setdefault(one.key, []).append(one.sequence)
        return found

    def tick(self, seconds: float = 0) -> list[Output]:
        """Let wall time pass, then one tick."""
        self.clock.at += timedelta(seconds=seconds)
        return self.chunk(TICKS, [(None, b"tick", [])])

    def chunk(
        self, topic: str, records: list[tuple[bytes | None, bytes, list[tuple[str, bytes | None]]]], *,
        crash: bool = False, again: bool = False,
    ) -> list[Output]:  # fmt: skip
        """Decide one chunk. ``crash``: killed after the outputs, before the rows. ``again``: the offsets of the last
        chunk of the topic once more."""
        start = self.ends.get(topic, 0) - (len(records) if again else 0)
        batch = self._batch(
            topic,
            [
                Record(topic, PARTITION, start + index, key, value, headers, 0)
                for index, (key, value, headers) in enumerate(records)
            ],
        )
        self.ends[topic] = start + len(records)
        made = batch.outputs
        outcome = self._handler(topic)(batch)
        if isinstance(outcome, Iterator):
            for _ in outcome:
                self.store.write(batch.rows.writes.items(), None)
                batch.rows.clear()
        self.outputs.extend(made)
        if crash:
            self.reopen()
        else:
            self.store.write(batch.rows.writes.items(), None)
        return list(made)

    async def dispatch(self, attempts: list[Attempt]) -> list[Result]:
        """Make attempts with the real dispatcher; forwards arrive in :attr:`outputs`."""
        before = len(self.outputs)
        async for _ in self.handling(attempts):
            pass
        made = self.outputs[before:]
        return [self.codec.decode(one.value, Result) for one in made if one.topic == RESULTS]

    async def handling(self, attempts: list[Attempt]) -> AsyncGenerator[None, None]:
        """The same step by step: each step is a point at which the chunk's rows become durable."""
        assert self.dispatcher is not None
        values = [self.codec.encode(ATTEMPTS, attempt) for attempt in attempts]
        batch = self._batch(
            ATTEMPTS, [Record(ATTEMPTS, PARTITION, 0, None, value, [], 0) for value in values], self.rows_made
        )
        async with aclosing(self.dispatcher.handle(batch)) as steps:
            async for _ in steps:
                yield
                self.rows_made.write(batch.rows.writes.items(), None)
                batch.rows.clear()
        self.rows_made.write(batch.rows.writes.items(), None)
        self.outputs.extend(batch.outputs)

    def restart_dispatcher(self, sender: WebhookSender) -> None:
        """As after its end: only its rows are left."""
        mailer = EmailSender(server=None, sender="curfew@localhost", templates=Templates(None), clock=self.clock)
        self.pool = CalculationPool(self.calculations, declarations.load(self.calculations))
        self.maker = Maker(self.ports, sender, mailer, self.pool)
        self.dispatcher = Dispatcher(self.ports, self.maker)
        self.dispatcher.open(self._batch(ATTEMPTS, [], self.rows_made))

    async def run(self, attempts: list[Attempt]) -> None:
        """Dispatch attempts, apply their results, and so on with the attempts that follow, until none is left."""
        while attempts:
            results = await self.dispatch(attempts)
            made = self.chunk(RESULTS, [(None, self.codec.encode(RESULTS, result), []) for result in results])
            attempts = self.attempts(made)

    # What came out

    def attempts(self, outputs: list[Output] | None = None) -> list[Attempt]:
        wanted = self.outputs if outputs is None else outputs
        return [self.codec.decode(one.value, Attempt) for one in wanted if one.topic == ATTEMPTS]

    def dead(self) -> list[Output]:
        return [one for one in self.outputs if one.topic == "dead-letters.delivery"]

    def rows(self, prefix: str) -> dict[str, bytes]:
        return {key.decode(): value for key, value in self.store.scan(prefix.encode())}

    def done(self, unit_id: str) -> Done:
        """What is left of a finished unit."""
        found = Table(Overlay(self.store)).done(unit_id)
        assert found is not None, f"{unit_id} is not finished"
        return found

    def _handler(self, topic: str) -> Handler:
        if topic == RESULTS:
            return self.delivery.results
        if topic == REOPENS:
            return self.delivery.reopens
        if topic == REPLAYS:
            return self.delivery.replays
        return self.delivery.retries if topic == TICKS else self.delivery.intake

    def _batch(self, topic: str, records: list[Record], store: MemoryStore | None = None) -> Batch:
        return Batch(
            app="delivery", topic=topic, partition=PARTITION, records=records, rows=Overlay(store or self.store),
            now=None, memory=self.memory, guard=self.guard, tracer=self.tracer,
        )  # fmt: skip


def numbers(attempts: list[Attempt], codec: Codec) -> list[int]:
    """The events' sequence numbers."""
    return [codec.decode(attempt.value, Event).sequence for attempt in attempts]


__all__ = ["START", "Ordering", "Plant", "event", "forward", "numbers", "replace", "subscription"]
