"""Makes one attempt: the webhook or e-mail goes out, or what a forward or a calculation brings is handed over."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import structlog

from agents.calculations.pool import Busy, CalculationPool, Failed
from agents.delivery.endpoint_gate import Gate, Postponed
from agents.delivery.under_way import UnderWay
from agents.delivery.units import LiveBook, Ports
from streams.core.calculations import findings
from streams.core.delivery import hops, made
from streams.core.delivery.endpoint import Notice
from streams.core.delivery.messages import Attempt, Result, Verdict
from streams.core.errors import CurfewError, Fatal, Poison, Transient
from streams.core.events import Event, Finding
from streams.core.subscriptions import Subscription
from streams.kafka.chunks import SURELY_SMALL_BYTES, Batch
from streams.kafka.failpoints import passing
from streams.kafka.lanes import Abandoned
from streams.sinks.email import EmailSender
from streams.sinks.webhook import MAX_RESULT_BODY, Exchange, WebhookSender
from streams.topics import FINDINGS
from streams.tracing import SpanKind, well_formed

#: Forwards and calculations whose result is remembered, for the attempts that follow them.
REMEMBERED: Final = 20_000

log = structlog.get_logger(__name__)


class Forwarded(NamedTuple):
    """The record for the other queue."""

    topic: str
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


class Wanted(NamedTuple):
    """An attempt of a chunk, with its event, or why that cannot be read."""

    attempt: Attempt
    event: Event | Poison


@dataclass(frozen=True, slots=True)
class Brought:
    """What an attempt brought; ``begun`` says whether it has a row of its own."""

    result: Result
    sent: tuple[Forwarded, ...] = ()
    notices: tuple[Notice, ...] = ()
    begun: bool = True


@dataclass(slots=True, eq=False)
class Shared:
    """What the chunks of a partition share: the gates, and what is under way."""

    gates: dict[str, Gate] = field(default_factory=dict)
    under_way: UnderWay[Brought] = field(default_factory=UnderWay)
    swept_ms: int = 0
    bucket: int = 0


class Maker:
    """Makes attempts and says what they have brought; whoever asks writes that down."""

    def __init__(self, ports: Ports, sender: WebhookSender, mailer: EmailSender, pool: CalculationPool) -> None:
        self.book = LiveBook(ports.catalogue)
        self._clock = ports.clock
        self._queues = ports.queues
        self.finding = ports.codec.encoder(FINDINGS, Finding)
        self._sender = sender
        self._mailer = mailer
        self._pool = pool
        self._forwards: OrderedDict[str, None] = OrderedDict()

    async def make(self, batch: Batch, shared: Shared, one: Wanted, begin_by: float) -> Brought:
        """``begin_by``: monotonic seconds after which it goes back postponed, if it could not begin.

        Raises what ``batch.guard`` raises, and what ends the worker; all else that goes wrong is a result.
        """
        attempt, event = one
        if isinstance(event, Poison):
            return self._refused(attempt, event)
        try:
            return await self._make(batch, shared, attempt, event, begin_by)
        except Transient as error:  # the registry or Kafka, for a forward or a calculation: nothing has gone out
            away = Exchange(verdict=Verdict.POSTPONED, reason="unavailable", detail=str(error))
            return Brought(self.about(attempt, None, away), begun=False)
        except Poison as error:  # what was calculated cannot be written
            return self._refused(attempt, error)
        except (CurfewError, Abandoned):
            raise
        except Exception as error:  # a fault of ours with this event or this receiver must not end all others'
            log.exception("delivery.attempt_broke", subscription=attempt.subscription, event_id=attempt.event_id)
            broken = Exchange(verdict=Verdict.FAILED, reason="internal", detail=f"{type(error).__name__} in the worker")
            subscription = self.book().by_id.get(attempt.subscription_id)
            return Brought(
                self.about(attempt, subscription, broken), begun=subscription is None or subscription.answers
            )

    def _refused(self, attempt: Attempt, error: Poison) -> Brought:
        refused = Exchange(verdict=Verdict.PERMANENT, reason=error.reason, detail=error.detail)
        return Brought(self.about(attempt, None, refused), begun=False)

    async def _make(self, batch: Batch, shared: Shared, attempt: Attempt, event: Event, begin_by: float) -> Brought:
        subscription = self.book().by_id.get(attempt.subscription_id)
        if subscription is None:
            detail = f"there is no subscription {attempt.subscription!r} any more"
            unknown = Exchange(verdict=Verdict.FAILED, reason="no_subscription", detail=detail)
            return Brought(self.about(attempt, None, unknown))
        if attempt.follows is not None and not await self._was_delivered(batch, shared, attempt.follows, begin_by):
            early = Exchange(verdict=Verdict.POSTPONED, reason="order", detail="the event before was not delivered")
            return Brought(self.about(attempt, subscription, early), begun=subscription.answers)
        if subscription.forward is not None:
            return self._forward(attempt, event, subscription, subscription.forward.queue)
        if subscription.calculation is not None:
            return await self._calculate(attempt, event, subscription, subscription.calculation.name, begin_by)
        gate = self._gate(batch, shared, subscription)
        try:
            async with gate.passing(self._now_ms(), begin_by - time.monotonic()):
                exchange = await self._traced_exchange(batch, attempt, event, subscription, begin_by)
        except Postponed as postponed:
            return Brought(self.about(attempt, subscription, postponed.exchange))
        passing("attempt.answered")
        notices = gate.note(exchange, self._now_ms())
        return Brought(self.about(attempt, subscription, exchange), notices=notices)

    async def _traced_exchange(
        self, batch: Batch, attempt: Attempt, event: Event, subscription: Subscription, begin_by: float
    ) -> Exchange:
        """The first attempt is of the event's trace, even if it was put off; a retry and a replay are linked to it."""
        at_once, theirs = attempt.number == 1 and not attempt.replay, well_formed(event.traceparent)
        with batch.tracer.span(
            f"deliver {subscription.name}",
            parent=theirs if at_once else None,
            links=() if at_once or theirs is None else (theirs,),
            kind=SpanKind.CLIENT,
            attributes={
                "curfew.event.id": event.event_id,
                "curfew.event.type": event.type,
                "curfew.unit.id": attempt.unit_id,
                "curfew.attempt.number": attempt.number,
            },
        ) as context:
            exchange = await self._exchange(batch, attempt, event, subscription, begin_by, context or theirs)
            status = {} if exchange.status is None else {"http.response.status_code": exchange.status}
            failed = exchange.reason if exchange.verdict in (Verdict.FAILED, Verdict.PERMANENT) else None
            batch.tracer.outcome({"curfew.verdict": exchange.verdict, **status}, failed)
            return exchange

    async def _exchange(
        self,
        batch: Batch,
        attempt: Attempt,
        event: Event,
        subscription: Subscription,
        begin_by: float,
        trace: str | None,
    ) -> Exchange:
        unit_id = attempt.replay_of or attempt.unit_id
        replay = attempt.replay or hops.replayed(attempt.headers)
        if subscription.email is not None:
            return await self._mailer.send(
                subscription,
                unit_id,
                attempt.recipient,
                event,
                begin_within_s=begin_by - time.monotonic(),
                replay=replay,
                guard=batch.guard,
            )
        return await self._sender.send(
            subscription,
            unit_id,
            attempt.number,
            event,
            begin_within_s=begin_by - time.monotonic(),
            replay=replay,
            traceparent=trace,
            guard=batch.guard,
        )

    def _gate(self, batch: Batch, shared: Shared, subscription: Subscription) -> Gate:
        gate = shared.gates.get(subscription.id)
        if gate is None:
            row = batch.rows.get(made.endpoint_key(subscription.id))
            known = made.decode_health(row) if row is not None else None
            gate = shared.gates[subscription.id] = Gate(subscription, known)
        gate.turn_to(subscription)
        return gate

    def _forward(self, attempt: Attempt, event: Event, subscription: Subscription, target: str) -> Brought:
        """A forward is made with the chunk's outputs: its result is durable only together with the record."""
        if target not in self._queues:
            exchange = Exchange(verdict=Verdict.FAILED, reason="no_queue", detail=f"there is no queue {target!r}")
            return Brought(self.about(attempt, subscription, exchange), begun=False)
        headers = hops.forwarded(attempt.headers, event.hops, attempt.queue, attempt.replay)
        record = Forwarded(
            f"queue.{target}", attempt.key, attempt.value, [(header.name, header.value) for header in headers]
        )
        result = self.about(attempt, subscription, Exchange(verdict=Verdict.DELIVERED))
        self._remember(attempt.attempt_id)
        return Brought(result, (record,), begun=False)

    async def _calculate(
        self, attempt: Attempt, event: Event, subscription: Subscription, name: str, begin_by: float
    ) -> Brought:
        """What is calculated goes out with the result; done again after a crash, it has the same ids."""
        calculation = self._pool.calculations.get(name)
        if calculation is None:
            detail = f"the setting calculations of the dispatch worker declares no {name!r}"
            unknown = Exchange(verdict=Verdict.FAILED, reason="no_calculation", detail=detail)
            return Brought(self.about(attempt, subscription, unknown), begun=False)
        try:
            emits = await self._pool.run(name, event, within_s=begin_by - time.monotonic())
        except Busy:
            busy = Exchange(verdict=Verdict.POSTPONED, reason="busy", detail="all calculations are at work")
            return Brought(self.about(attempt, subscription, busy), begun=False)
        except Failed as failed:
            verdict = Verdict.FAILED if failed.again else Verdict.PERMANENT
            exchange = Exchange(verdict=verdict, reason=failed.reason, detail=failed.detail)
            return Brought(self.about(attempt, subscription, exchange), begun=False)
        count = hops.hops(attempt.headers, event.hops) + 1
        passed = hops.extended(hops.path(attempt.headers), attempt.queue)
        found = findings(calculation, event, emits, count, passed)
        try:
            sent = tuple(Forwarded(FINDINGS, one.key.encode(), self.finding(one), []) for one in found)
        except (
            Fatal
        ) as error:  # a number that is too large, a text that is none: it is of an event's types, and no value
            raise Poison("calculation_wrong_type", _sayable(str(error.__cause__))) from error
        if any(len(one.value) > SURELY_SMALL_BYTES for one in sent):
            raise Poison("too_large", f"it calculated more than {SURELY_SMALL_BYTES} bytes for one event")
        self._remember(attempt.attempt_id)
        return Brought(self.about(attempt, subscription, Exchange(verdict=Verdict.DELIVERED)), sent, begun=False)

    def _remember(self, attempt_id: str) -> None:
        self._forwards[attempt_id] = None
        while len(self._forwards) > REMEMBERED:
            self._forwards.popitem(last=False)

    def about(self, attempt: Attempt, subscription: Subscription | None, exchange: Exchange) -> Result:
        """The result of an attempt, as it goes back to the delivery worker."""
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
            replay=attempt.replay,
            verdict=exchange.verdict,
            reason=exchange.reason,
            detail=None if exchange.detail is None else _sayable(exchange.detail),
            status=exchange.status,
            retry_after_s=exchange.retry_after_s,
            body=None if exchange.body is None else _sayable(exchange.body),
            latency_ms=exchange.latency_ms,
            finished_at=self._clock.now(),
        )

    async def _was_delivered(self, batch: Batch, shared: Shared, attempt_id: str, begin_by: float) -> bool:
        """Whether this worker knows it; of what another one did, a row that says so. Postponing is always safe."""
        running = shared.under_way.get(attempt_id)
        if running is not None:
            ended = running.ended
            if not ended.done():  # waiting for what has come costs as much as encoding a result
                await asyncio.wait({ended}, timeout=max(0.0, begin_by - time.monotonic()))
            return ended.done() and not ended.cancelled() and ended.result().result.verdict is Verdict.DELIVERED
        if attempt_id in self._forwards:
            return True
        row = batch.rows.get(made.made_key(attempt_id))
        return row is not None and made.decode_made(row).delivered

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def _sayable(text: str) -> str:
    """Its beginning, without what UTF-8 cannot say: an error of a calculation may be as long as it likes."""
    return text[:MAX_RESULT_BODY].encode("utf-8", "replace").decode()
