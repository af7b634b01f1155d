"""Keeps the units of all subscriptions: makes them of what the queues bring, asks for attempts, settles their results.

Runs on the wall clock, whatever business time does: a receiver that was down comes back in real minutes. So the retries
are woken by ticks of this worker's own, on ``delivery.ticks``, which nobody waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, Protocol, assert_never

import structlog

from streams.codec import Codec
from streams.core.clock import Tick
from streams.core.delivery import hops
from streams.core.delivery.book import Book
from streams.core.delivery.desk import Again, Desk, Incoming
from streams.core.delivery.effects import Bury, Disable, Effect, Send
from streams.core.delivery.index import Index, rebuild
from streams.core.delivery.messages import Attempt, Header, Reopen, Replay, Result
from streams.core.delivery.units import Unit
from streams.core.errors import Poison, Transient
from streams.core.events import Event
from streams.core.subscription_filter import Acceptance
from streams.core.subscriptions import Subscription
from streams.filters import CelLanguage
from streams.kafka import dead_letters
from streams.kafka.chunks import Batch, Record
from streams.kafka.runtime import Runtime
from streams.ports import Clock
from streams.topics import REPLAYS, RESULTS

ATTEMPTS: Final = "delivery.attempts"
TICKS: Final = "delivery.ticks"
REOPENS: Final = "delivery.reopens"
SUBSCRIPTION: Final = "subscription"
#: Ids are in the rows of finished units and in every message about one. Anybody may write to a queue.
MAX_ID_CHARS: Final = 1_000
#: The shortest wait of the default schedule is 5 s; a second of lateness is nothing to it.
TICK_S: Final = 1.0
#: After an outage thousands of retries are due at one tick; a slice of them is made durable before the next begins.
SLICE: Final = 500

log = structlog.get_logger(__name__)


class Catalogue(Protocol):
    """Configuration that is read whole, by name; ``version`` grows whenever something of the kind changes."""

    def version(self, kind: str) -> int: ...

    def all(self, kind: str) -> Mapping[str, Any]: ...


class Queues(Collection[str], Protocol):
    """The queues of the cluster; one that is not known yet is asked for."""

    def known_now(self) -> Collection[str]: ...


class Ports(Protocol):
    """What the delivery and dispatch workers need of the outside."""

    @property
    def codec(self) -> Codec: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def catalogue(self) -> Catalogue: ...

    @property
    def queues(self) -> Queues: ...


def attach(runtime: Runtime, ports: Ports) -> None:
    """Register intake, results and ticks with ``runtime``."""
    delivery = Delivery(ports)
    runtime.agent(
        "intake",
        topics=_topics(ports.queues),
        handler=delivery.intake,
        open=delivery.open,
        following=lambda: _topics(ports.queues.known_now()),
        in_turn=True,
    )
    runtime.agent("results", topics=[RESULTS], handler=delivery.results)
    runtime.agent("reopens", topics=[REOPENS], handler=delivery.reopens)
    runtime.agent("replays", topics=[REPLAYS], handler=delivery.replays)
    runtime.agent("retries", topics=[TICKS], handler=delivery.retries)
    runtime.background(lambda: _tick(runtime, ports))


def _topics(queues: Collection[str]) -> list[str]:
    return [f"queue.{name}" for name in sorted(queues)]


class LiveBook:
    """The subscriptions as they are now; made anew only when the catalogue has changed."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._version: int | None = None
        self._acceptance = Acceptance(CelLanguage())
        self._book = Book((), self._acceptance)

    def __call__(self) -> Book:
        # Read before the subscriptions: if they change in between, the next call makes the book once more.
        version = self._catalogue.version(SUBSCRIPTION)
        if version != self._version:
            found: list[Subscription] = list(self._catalogue.all(SUBSCRIPTION).values())
            self._book, self._version = Book(found, self._acceptance), version
        return self._book


class Delivery:
    """The handlers; all of a partition share its rows and its index."""

    def __init__(self, ports: Ports) -> None:
        self._clock = ports.clock
        self._book = LiveBook(ports.catalogue)
        self._event = ports.codec.decoder(Event)
        self._result = ports.codec.decoder(Result)
        self._reopen = ports.codec.decoder(Reopen)
        self._replay = ports.codec.decoder(Replay)
        self._attempt = ports.codec.encoder(ATTEMPTS, Attempt)

    def open(self, batch: Batch) -> None:
        """Derive the index of a partition from its rows."""
        batch.memory["index"] = rebuild(batch.rows)

    def intake(self, batch: Batch) -> None:
        """Units of what a queue brings."""
        queue = batch.topic.removeprefix("queue.")
        incoming = [one for record in batch.records if (one := self._incoming(batch, queue, record)) is not None]
        first, last = batch.records[0].offset, batch.records[-1].offset
        for effect in self._desk(batch).accept(queue, first, incoming, last + 1):
            self._act(batch, effect)

    def _incoming(self, batch: Batch, queue: str, record: Record) -> Incoming | None:
        try:
            event = self._event(record.value)
            if max(len(event.event_id), len(event.key)) > MAX_ID_CHARS:
                raise Poison("invalid", f"an id of the event has more than {MAX_ID_CHARS} characters")
        except Poison as error:
            batch.dead_letter(record, error)
            return None
        assert record.value is not None  # the decoder refused it otherwise
        return Incoming(
            queue=queue,
            partition=record.partition,
            offset=record.offset,
            key=record.key,
            value=record.value,
            headers=tuple(Header(name=name, value=value or b"") for name, value in record.headers),
            event=event,
        )

    def results(self, batch: Batch) -> None:
        """What attempts brought."""
        desk = self._desk(batch)
        for record in batch.records:
            try:
                result = self._result(record.value)
            except Poison as error:
                batch.dead_letter(record, error)
                continue
            for effect in desk.settle(result):
                self._act(batch, effect)

    def reopens(self, batch: Batch) -> None:
        """Dead letters that a person has sent back."""
        desk = self._desk(batch)
        for record in batch.records:
            try:
                wanted = self._reopen(record.value)
                if wanted.queue_partition != batch.partition:
                    raise Poison("wrong_partition", f"the unit is in partition {wanted.queue_partition}")
            except Poison as error:
                batch.dead_letter(record, error)
                continue
            for effect in desk.reopen(wanted):
                self._act(batch, effect)

    def replays(self, batch: Batch) -> None:
        """Events that a person sends again."""
        commands = [one for record in batch.records if (one := self._again(batch, record)) is not None]
        for effect in self._desk(batch).replay(commands, batch.records[-1].offset + 1):
            self._act(batch, effect)

    def _again(self, batch: Batch, record: Record) -> Again | None:
        try:
            wanted = self._replay(record.value)
        except Poison as error:
            batch.dead_letter(record, error)
            return None
        try:
            event: Event | Poison = self._event(wanted.value)
        except Poison as error:
            event = error
        if wanted.queue_partition != batch.partition:
            event = Poison("wrong_partition", f"the event is in partition {wanted.queue_partition}")
        if not hops.is_run(wanted.run):
            event = Poison("bad_run", f"{wanted.run!r} cannot be the name of a run")
        return Again(offset=record.offset, wanted=wanted, event=event)

    def retries(self, batch: Batch) -> Iterator[None]:
        """What has become due, in slices."""
        for count, effect in enumerate(self._desk(batch).wake(), 1):
            self._act(batch, effect)
            if count % SLICE == 0:
                yield

    def _desk(self, batch: Batch) -> Desk:
        index: Index = batch.memory["index"]
        now_ms = int(self._clock.now().timestamp() * 1000)
        return Desk(rows=batch.rows, index=index, book=self._book(), partition=batch.partition, now_ms=now_ms)

    def _act(self, batch: Batch, effect: Effect) -> None:
        match effect:
            case Send(attempt=attempt):
                value = self._attempt(attempt)
                # Keyed by subscription: one partition, so one dispatch worker, has the gate of its endpoint.
                batch.emit(ATTEMPTS, key=attempt.subscription_id, value=value)
            case Bury(unit=unit, reason=reason, detail=detail):
                key, letter, headers = dead_letter(unit, batch.partition, reason, detail, batch.app)
                batch.emit(dead_letters.topic(batch.app), key=key, value=letter, headers=headers)
            case Disable(subscription=name, version=version):
                log.warning(
                    "delivery.endpoint_disabled", subscription=name, version=version,
                    remedy="see why with `curfew subscriptions show`, then `curfew subscriptions resume`",
                )  # fmt: skip
            case _:
                assert_never(effect)


def dead_letter(
    unit: Unit, partition: int, reason: str, detail: str, app: str
) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]:
    """(key, value, headers) of a unit's dead letter: the queue's record as it was, why it died, which unit it was."""
    topic = f"queue.{unit.queue}"
    original = Record(
        topic=topic,
        partition=partition,
        offset=unit.offset,
        key=unit.key,
        value=unit.value,
        headers=[(header.name, header.value) for header in unit.headers],
        timestamp_ms=0,
    )
    value, headers = dead_letters.envelope(original, Poison(reason, detail).at(topic, partition, unit.offset), app)
    ours = {
        "curfew-unit-id": unit.unit_id,
        "curfew-subscription-id": unit.subscription_id,
        "curfew-subscription": unit.subscription,
        "curfew-recipient": unit.recipient,
        "curfew-lane": unit.lane or "",
        "curfew-replay-run": unit.replay or "",
        "curfew-replay-of": unit.replay_of or "",
        "curfew-attempts": str(unit.attempts),
        "curfew-status": "" if unit.last_status is None else str(unit.last_status),
        "curfew-response": unit.last_body or "",
    }
    headers = [(name, text) for name, text in headers if name not in ours]
    return dead_letters.key_of(original), value, headers + [(name, text.encode()) for name, text in ours.items()]


async def _tick(runtime: Runtime, ports: Ports) -> None:
    seq = 0
    while True:
        await asyncio.sleep(TICK_S)
        seq += 1
        try:
            value = ports.codec.encode(TICKS, Tick(epoch="delivery", seq=seq, now=ports.clock.now()))
        except Transient as error:
            log.warning("delivery.no_tick", error=str(error))
            continue
        for partition in runtime.partitions:
            runtime.publish(TICKS, key=None, value=value, partition=partition)
