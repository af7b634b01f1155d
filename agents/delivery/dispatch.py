"""Takes the attempts chunk by chunk, has them made (:mod:`agents.delivery.maker`), and writes one result for each.

All attempts of a subscription are in one partition, so one worker has the gate of its endpoint (rate, concurrency,
breaker). Chunks go side by side: an endpoint that is slow holds up its own attempts only.

The row of an attempt (:mod:`streams.core.delivery.made`) is durable before its request leaves, and a worker whose
partitions may be another's sends nothing. So no attempt is made twice, whatever is killed; one that was begun and has
no result has failed as ``interrupted``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from typing import Final

from agents.calculations import declarations
from agents.calculations.pool import CalculationPool
from agents.delivery.endpoint_gate import Gate
from agents.delivery.maker import Brought, Maker, Shared, Wanted
from agents.delivery.under_way import Running, Waiting
from agents.delivery.units import ATTEMPTS, Ports
from streams.core.delivery import made
from streams.core.delivery.endpoint import TOLD_AT, Notice
from streams.core.delivery.messages import Attempt, Result, Verdict
from streams.core.errors import Poison
from streams.core.events import Event
from streams.core.operations import disabled, failing
from streams.kafka.chunks import Batch
from streams.kafka.failpoints import passing
from streams.kafka.runtime import Runtime
from streams.ports import Clock
from streams.settings import Settings
from streams.sinks.email import EmailSender
from streams.sinks.email_templates import Templates
from streams.sinks.secrets import Secrets
from streams.sinks.smtp import MailServer
from streams.sinks.webhook import Exchange, WebhookSender
from streams.topics import FINDINGS, RESULTS
from streams.tracing import traced

#: An attempt that cannot begin within this is postponed: the units behind it would otherwise wait here, where nobody
#: sees them, and a worker that stops would have to wait for all of them.
BEGIN_WITHIN_S: Final = 5.0
#: As long as the delivery worker may ask for an attempt again, which is as long as the queue keeps its records.
MADE_KEPT_MS: Final = 8 * 86_400_000
SWEEP_EVERY_MS: Final = 10_000


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
    pool = CalculationPool(settings.calculations, declarations.load(settings.calculations))
    dispatcher = Dispatcher(ports, Maker(ports, sender, mailer, pool))
    runtime.agent("dispatch", topics=[ATTEMPTS], handler=dispatcher.handle, open=dispatcher.open, side_by_side=True)
    runtime.at_end(lambda: _close(sender, mailer, pool))


def email_sender(settings: Settings, clock: Clock) -> EmailSender:
    """As the settings say; raises Misconfigured for an ``smtp_url`` that is none."""
    url = settings.smtp_url
    return EmailSender(
        server=None if url is None else MailServer(url.get_secret_value()),
        sender=settings.email_from,
        templates=Templates(settings.email_templates),
        clock=clock,
    )


async def _close(sender: WebhookSender, mailer: EmailSender, pool: CalculationPool) -> None:
    await sender.close()
    mailer.close()
    await pool.close()


class Dispatcher:
    """Handles chunks of attempts, many at once."""

    def __init__(self, ports: Ports, maker: Maker) -> None:
        self._clock = ports.clock
        self._maker = maker
        self._attempt = ports.codec.decoder(Attempt)
        self._event = ports.codec.decoder(Event)
        self._result = ports.codec.encoder(RESULTS, Result)
        self._shared: dict[int, Shared] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, batch: Batch) -> None:
        """A partition comes to this worker: nothing of it is under way here."""
        self._shared[batch.partition] = Shared()

    async def handle(self, batch: Batch) -> AsyncGenerator[None, None]:
        """Make the attempts of a chunk. All is decoded first: a registry that is down must not cost an attempt."""
        shared = self._shared[batch.partition]
        self._sweep(batch, shared)
        wanted = dict(self._wanted(batch))
        under_way, chunk = shared.under_way, Waiting()
        new: dict[str, Wanted] = {}
        late: list[Running[Brought]] = []
        begin_by = time.monotonic() + BEGIN_WITHIN_S
        try:
            for attempt_id, one in wanted.items():
                running = under_way.get(attempt_id)
                row = batch.rows.get(made.made_key(attempt_id)) if running is None else None
                if row is not None:
                    self._known(batch, one.attempt, made.decode_made(row))
                    continue
                if running is None:
                    new[attempt_id] = one
                    # At once: another chunk may ask for the same attempt while the row of this one becomes durable.
                    running = under_way.begin(attempt_id, batch.traceparent)
                elif running.taken:
                    late.append(running)
                under_way.wait_for(chunk, running)  # asked for twice, or a chunk that could not be made durable
            started = made.encode(made.Made(at_ms=self._now_ms()))
            for attempt_id, one in new.items():
                if self._waits_for_an_answer(one):
                    batch.rows.put(made.made_key(attempt_id), started)
            yield
        except BaseException:  # the rows are not durable: nothing has begun, and whoever comes next begins it
            under_way.give_up(new)
            raise
        passing("attempt.row")
        for train in _trains(new):
            task = asyncio.get_running_loop().create_task(self._one_by_one(batch, shared, train, begin_by))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            while await under_way.turn(chunk):
                found = await under_way.take()
                gates: list[Gate] = []
                try:
                    for running in found:
                        gates += self._conclude(batch, shared, running)
                    yield
                except BaseException:
                    under_way.put_back(found)
                    for gate in gates:  # its row was thrown away with the others
                        gate.changed = True
                    raise
                under_way.written(found)
        finally:
            under_way.leave(chunk)
        for running in late:
            # Its result was being written when this chunk came. If it was postponed, this chunk may have been asked
            # because of that: without a result its unit would wait for ever.
            self._tell_result(batch, running.ended.result().result, running.traceparent)

    def _wanted(self, batch: Batch) -> Iterable[tuple[str, Wanted]]:
        for record in batch.records:
            try:
                attempt = self._attempt(record.value)
            except Poison as error:
                batch.dead_letter(record, error)
                continue
            yield attempt.attempt_id, Wanted(attempt, self._decoded(attempt))

    def _decoded(self, attempt: Attempt) -> Event | Poison:
        try:
            return self._event(attempt.value)
        except Poison as error:
            return error

    def _waits_for_an_answer(self, one: Wanted) -> bool:
        """Forwards and calculations are made with the chunk's outputs, so they need no row."""
        subscription = self._maker.book().by_id.get(one.attempt.subscription_id)
        return isinstance(one.event, Event) and subscription is not None and subscription.answers

    def _known(self, batch: Batch, attempt: Attempt, row: made.Made) -> None:
        """An attempt that was begun before: the same result again, or none, as who began it is no more."""
        if row.result is not None:
            batch.emit(RESULTS, key=attempt.unit_id, value=row.result, partition=attempt.queue_partition)
            return
        detail = "the worker ended between the request and its answer; the receiver may have got it"
        interrupted = Exchange(verdict=Verdict.FAILED, reason="interrupted", detail=detail)
        result = self._maker.about(attempt, self._maker.book().by_id.get(attempt.subscription_id), interrupted)
        self._write(batch, result, begun=True)

    def _conclude(self, batch: Batch, shared: Shared, running: Running[Brought]) -> list[Gate]:
        """Outputs and rows of one attempt that has ended, which may be another chunk's, and so of another trace; the
        gates whose rows are among them."""
        brought, trace = running.ended.result(), running.traceparent
        for topic, key, value, headers in brought.sent:
            batch.emit(topic, key=key, value=value, headers=traced(headers, trace))
        self._write(batch, brought.result, begun=brought.begun, trace=trace)
        for notice in brought.notices:
            self._tell(batch, notice, trace)
        gate = shared.gates.get(brought.result.subscription_id)
        if gate is not None and gate.changed:
            batch.rows.put(made.endpoint_key(gate.subscription.id), made.encode(gate.health))
            gate.changed = False
            return [gate]
        return []

    def _tell_result(self, batch: Batch, result: Result, trace: str | None) -> bytes:
        value, headers = self._result(result), traced(None, trace)
        batch.emit(RESULTS, key=result.unit_id, value=value, headers=headers, partition=result.queue_partition)
        return value

    def _write(self, batch: Batch, result: Result, *, begun: bool, trace: str | None = None) -> None:
        value = self._tell_result(batch, result, trace)
        if not begun:
            return
        key = made.made_key(result.attempt_id)
        if result.verdict is Verdict.POSTPONED:
            batch.rows.delete(key)
        else:
            delivered = result.verdict is Verdict.DELIVERED
            batch.rows.put(key, made.encode(made.Made(at_ms=self._now_ms(), result=value, delivered=delivered)))

    def _tell(self, batch: Batch, notice: Notice, trace: str | None) -> None:
        finding = disabled(notice) if notice.percent == TOLD_AT[-1] else failing(notice)
        batch.emit(FINDINGS, key=finding.key, value=self._maker.finding(finding), headers=traced(None, trace))

    async def _one_by_one(self, batch: Batch, shared: Shared, train: list[Wanted], begin_by: float) -> None:
        for one in train:
            running = shared.under_way.get(one.attempt.attempt_id)
            assert running is not None  # it is written only when it has ended
            try:
                running.ended.set_result(await self._maker.make(batch, shared, one, begin_by))
            except Exception as error:
                running.ended.set_exception(error)
            except BaseException:
                running.ended.cancel()
                raise

    def _sweep(self, batch: Batch, shared: Shared) -> None:
        now_ms = self._now_ms()
        if now_ms - shared.swept_ms < SWEEP_EVERY_MS:
            return
        shared.swept_ms, shared.bucket = now_ms, (shared.bucket + 1) % 256
        for key, data in list(batch.rows.scan(b"%s%02x/" % (made.MADE, shared.bucket))):
            if now_ms - made.decode_made(data).at_ms > MADE_KEPT_MS:
                batch.rows.delete(key)

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def _trains(wanted: dict[str, Wanted]) -> Iterable[list[Wanted]]:
    """Attempts that follow each other are made one after another, all others at once."""
    trains: dict[str, list[Wanted]] = {}
    for attempt_id, one in wanted.items():
        train = trains.get(one.attempt.follows or "", [])
        train.append(one)
        trains[attempt_id] = train
    return {id(train): train for train in trains.values()}.values()
