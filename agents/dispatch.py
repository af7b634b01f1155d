"""Makes the attempts: webhooks over HTTP, and forwards to other queues. Keeps no rows; one result for every attempt.

It may make an attempt twice when it is killed before its results are durable; the receiver then sees one ``webhook-id``
and one ``curfew-attempt`` twice.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, NamedTuple

from agents.delivery import ATTEMPTS, RESULTS, LiveBook, Ports
from streams.core.delivery import hops
from streams.core.delivery.messages import Attempt, Result, Verdict
from streams.core.errors import Poison
from streams.core.events import Event
from streams.core.subscriptions import Subscription
from streams.kafka.chunks import Batch
from streams.kafka.runtime import Runtime
from streams.ports import Clock
from streams.settings import Settings
from streams.sinks.email import EmailSender
from streams.sinks.email_templates import Templates
from streams.sinks.secrets import Secrets
from streams.sinks.smtp import MailServer
from streams.sinks.webhook import Exchange, WebhookSender

#: A chunk whose endpoint is slow ends after this and one time-out; the rest of it is postponed. Without it, 256 units
#: of a receiver that never answers would hold a partition, and a stopping worker, for minutes.
BEGIN_WITHIN_S: Final = 5.0
#: Attempts of which the result is remembered: the delivery worker asks again for what it asked before it crashed.
REMEMBERED: Final = 20_000


def attach(runtime: Runtime, ports: Ports) -> None:
    """Register the dispatcher with ``runtime``."""
    settings = runtime.settings
    sender = WebhookSender(
        secrets=Secrets(settings.webhook_secrets),
        clock=ports.clock,
        development=settings.environment == "development",
        networks=settings.webhook_allow_networks,
    )
    mailer = email_sender(settings, ports.clock)
    dispatcher = Dispatcher(ports, sender, mailer)
    runtime.agent("dispatch", topics=[ATTEMPTS], handler=dispatcher.handle)
    runtime.background(lambda: _close_at_end(sender, mailer))


def email_sender(settings: Settings, clock: Clock) -> EmailSender:
    """As the settings say; raises Misconfigured for an ``smtp_url`` that is none."""
    url = settings.smtp_url
    return EmailSender(
        server=None if url is None else MailServer(url.get_secret_value()),
        sender=settings.email_from,
        templates=Templates(settings.email_templates),
        clock=clock,
    )


async def _close_at_end(sender: WebhookSender, mailer: EmailSender) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await sender.close()
        mailer.close()


class Forwarded(NamedTuple):
    """The record for the other queue."""

    topic: str
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


class Dispatcher:
    """Handles a chunk of attempts at once, bounded per endpoint."""

    def __init__(self, ports: Ports, sender: WebhookSender, mailer: EmailSender) -> None:
        self._clock = ports.clock
        self._queues = ports.queues
        self._book = LiveBook(ports.catalogue)
        self._attempt = ports.codec.decoder(Attempt)
        self._event = ports.codec.decoder(Event)
        self._result = ports.codec.encoder(RESULTS, Result)
        self._sender = sender
        self._mailer = mailer
        self._remembered: OrderedDict[str, Result] = OrderedDict()

    async def handle(self, batch: Batch) -> None:
        """Make the attempts of a chunk. All is decoded first: a registry that is down must not cost an attempt."""
        wanted: dict[str, tuple[Attempt, Event | Poison]] = {}
        for record in batch.records:
            try:
                attempt = self._attempt(record.value)
            except Poison as error:
                batch.dead_letter(record, error)
                continue
            wanted[attempt.attempt_id] = attempt, self._decoded(attempt)
        begin_by = time.monotonic() + BEGIN_WITHIN_S
        made = await asyncio.gather(*(self._in_turn(train, begin_by) for train in _trains(wanted)))
        for result, forwarded in (one for train in made for one in train):
            if forwarded is not None:
                batch.emit(forwarded.topic, key=forwarded.key, value=forwarded.value, headers=forwarded.headers)
            batch.emit(RESULTS, key=result.unit_id, value=self._result(result), partition=batch.partition)

    def _decoded(self, attempt: Attempt) -> Event | Poison:
        try:
            return self._event(attempt.value)
        except Poison as error:
            return error

    async def _in_turn(
        self, train: list[tuple[Attempt, Event | Poison]], begin_by: float
    ) -> list[tuple[Result, Forwarded | None]]:
        return [await self._make(attempt, event, begin_by) for attempt, event in train]

    async def _make(self, attempt: Attempt, event: Event | Poison, begin_by: float) -> tuple[Result, Forwarded | None]:
        if isinstance(event, Poison):
            undecodable = Exchange(verdict=Verdict.PERMANENT, reason=event.reason, detail=event.detail)
            return self._conclude(attempt, None, undecodable), None
        subscription = self._book().by_id.get(attempt.subscription_id)
        if subscription is None:
            detail = f"there is no subscription {attempt.subscription!r} any more"
            unknown = Exchange(verdict=Verdict.FAILED, reason="no_subscription", detail=detail)
            return self._conclude(attempt, None, unknown), None
        if attempt.follows is not None and not self._was_delivered(attempt.follows):
            early = Exchange(verdict=Verdict.POSTPONED, reason="order", detail="the event before was not delivered")
            return self._conclude(attempt, subscription, early), None
        if subscription.forward is not None:
            return self._forward(attempt, event, subscription, subscription.forward.queue)
        known = self._remembered.get(attempt.attempt_id)
        if known is not None:
            return known, None
        left_s = begin_by - time.monotonic()
        if subscription.email is not None:
            exchange = await self._mailer.send(
                subscription, attempt.unit_id, attempt.recipient, event, begin_within_s=left_s
            )
        else:
            exchange = await self._sender.send(
                subscription, attempt.unit_id, attempt.number, event, begin_within_s=left_s
            )
        result = self._conclude(attempt, subscription, exchange)
        if result.verdict is not Verdict.POSTPONED:
            self._remember(result)
        return result, None

    def _forward(
        self, attempt: Attempt, event: Event, subscription: Subscription, target: str
    ) -> tuple[Result, Forwarded | None]:
        """A forward is made with the chunk's outputs: its result is durable only together with the record."""
        if target not in self._queues:
            exchange = Exchange(verdict=Verdict.FAILED, reason="no_queue", detail=f"there is no queue {target!r}")
            return self._conclude(attempt, subscription, exchange), None
        headers = hops.forwarded(attempt.headers, event.hops, attempt.queue)
        record = Forwarded(
            f"queue.{target}", attempt.key, attempt.value, [(header.name, header.value) for header in headers]
        )
        result = self._conclude(attempt, subscription, Exchange(verdict=Verdict.DELIVERED))
        self._remember(result)
        return result, record

    def _conclude(self, attempt: Attempt, subscription: Subscription | None, exchange: Exchange) -> Result:
        return Result(
            attempt_id=attempt.attempt_id,
            unit_id=attempt.unit_id,
            number=attempt.number,
            subscription_id=attempt.subscription_id,
            subscription=attempt.subscription,
            subscription_version=subscription.version if subscription is not None else 0,
            recipient=attempt.recipient,
            queue=attempt.queue,
            queue_partition=attempt.queue_partition,
            queue_offset=attempt.queue_offset,
            event_id=attempt.event_id,
            verdict=exchange.verdict,
            reason=exchange.reason,
            detail=exchange.detail,
            status=exchange.status,
            retry_after_s=exchange.retry_after_s,
            body=exchange.body,
            latency_ms=exchange.latency_ms,
            finished_at=self._clock.now(),
        )

    def _was_delivered(self, attempt_id: str) -> bool:
        """Whether this process knows it. After a restart it knows nothing, and postponing is always safe."""
        known = self._remembered.get(attempt_id)
        return known is not None and known.verdict is Verdict.DELIVERED

    def _remember(self, result: Result) -> None:
        self._remembered[result.attempt_id] = result
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)


def _trains(
    wanted: dict[str, tuple[Attempt, Event | Poison]],
) -> Iterable[list[tuple[Attempt, Event | Poison]]]:
    """Attempts that follow each other are made one after another, all others at once."""
    trains: dict[str, list[tuple[Attempt, Event | Poison]]] = {}
    for attempt_id, (attempt, event) in wanted.items():
        train = trains.get(attempt.follows or "", [])
        train.append((attempt, event))
        trains[attempt_id] = train
    return {id(train): train for train in trains.values()}.values()
