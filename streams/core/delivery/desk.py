"""The decisions about units: accept what a queue brings, settle what an attempt brought, wake what has become due.

A :class:`Desk` writes rows and returns effects; the agent turns them into records. It promises:

- in-order: an event is sent only after the one before it in its key was delivered or given up
  (:mod:`streams.core.delivery.flow`);
- a unit is attempted at most ``len(schedule_s)`` times (the same attempt may be asked for twice after a crash);
- a repeated event is recognised for :data:`DONE_KEPT_MS`, and its first version is the one that is delivered;
- a replay is a unit of its own, in a lane of its run: it holds up no event, and goes after those that happen now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from streams.core.delivery import hops, units
from streams.core.delivery.book import Book
from streams.core.delivery.effects import Disable, Effect
from streams.core.delivery.flow import POSTPONE_MS, Flow
from streams.core.delivery.index import Index
from streams.core.delivery.messages import Header, Reopen, Replay, Result, Verdict
from streams.core.delivery.recipients import refusal, unit_ids
from streams.core.delivery.retries import next_delay_ms
from streams.core.delivery.units import Activation, Disabled, Done, Reached, Span, State, Table, Unit
from streams.core.errors import Poison
from streams.core.events import Event
from streams.core.ids import replayed_unit_id
from streams.core.subscriptions import OnExhausted, Ordering, Subscription

#: Rows and attempts carry the event; above this the changelog record would pass Kafka's limit of 1 MiB.
MAX_EVENT_BYTES: Final = 900_000
#: A repeated event can come as long as the queue keeps records (7 days), plus a day of clock differences.
DONE_KEPT_MS: Final = 8 * 86_400_000
#: One of 256 buckets each time: a sweep over all finished units at once would stop the partition for seconds.
SWEEP_EVERY_MS: Final = 10_000
#: A result is a matter of seconds; hours without one mean that the attempt is lost, e.g. older than its topic keeps it.
ASK_AGAIN_MS: Final = 2 * 3_600_000
#: Receivers' answers are kept for people; rows and dead letters must not grow with what a receiver likes to say.
MAX_BODY_CHARS: Final = 1_024
GONE: Final = 410
#: The dispatch worker's reason for an attempt that it did not begin, since the endpoint is disabled.
DISABLED: Final = "disabled"
#: Its reason for one that could not begin in time, as others of the endpoint came first, or too many of all.
BUSY: Final = "busy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A record of a queue, with its coordinates."""

    queue: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: tuple[Header, ...]
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A command of a replay, with its offset in the commands and the event that it holds, or why it cannot be sent."""

    offset: int
    wanted: Replay
    event: Event | Poison


class Desk:
    """Decides for one partition at one instant; ``now_ms`` is wall-clock Unix milliseconds."""

    def __init__(self, *, rows: units.Rows, index: Index, book: Book, partition: int, now_ms: int) -> None:
        self._table = Table(rows)
        self._index = index
        self._book = book
        self._now_ms = now_ms
        self._flow = Flow(self._table, index, book, partition, now_ms)

    # Intake

    def accept(self, queue: str, first_offset: int, incoming: Iterable[Incoming], through: int) -> Iterator[Effect]:
        """Make units of the records of one chunk, [``first_offset``, ``through``) of ``queue``.

        Records below what an activation row has reached were decided before and are left alone, so a replayed chunk
        changes nothing even if the subscription has changed since.
        """
        subscriptions = self._book.by_queue.get(queue, ())
        activations = {one.id: self._activate(one, queue, first_offset) for one in subscriptions}
        counts = {one.id: [0, 0] for one in subscriptions}
        for record in incoming:
            for subscription in subscriptions:
                if record.offset < activations[subscription.id].through:
                    continue
                accepted = self._book.acceptance.accepts(subscription, record.event)
                counts[subscription.id][0 if accepted else 1] += 1
                if accepted:
                    for recipient, unit_id in unit_ids(subscription, record.event).items():
                        yield from self._open(subscription, record, unit_id, recipient)
        # Last, so that a partly delivered changelog never says more than the units in it.
        for subscription_id, activation in activations.items():
            accepted_records, filtered = counts[subscription_id]
            reached = replace(
                activation,
                through=max(through, activation.through),
                accepted=activation.accepted + accepted_records,
                filtered=activation.filtered + filtered,
            )
            self._table.put(units.activation_key(subscription_id), reached)

    def _activate(self, subscription: Subscription, queue: str, first_offset: int) -> Activation:
        known = self._table.activation(subscription.id)
        if known is not None and known.spans[-1].version == subscription.version:
            return known
        self._table.put(units.version_key(subscription.id, subscription.version), subscription)
        if known is None:
            known = Activation(
                subscription_id=subscription.id,
                subscription=subscription.name,
                queue=queue,
                spans=(),
                through=first_offset,
                accepted=0,
                filtered=0,
            )
        span = Span(version=subscription.version, offset=max(first_offset, known.through))
        return replace(known, spans=(*known.spans, span))

    def _open(self, subscription: Subscription, record: Incoming, unit_id: str, recipient: str) -> Iterator[Effect]:
        event = record.event
        if self._table.unit(unit_id) is not None or self._table.done(unit_id) is not None:
            return
        ordered = subscription.ordering is Ordering.IN_ORDER
        unit = Unit(
            unit_id=unit_id,
            subscription_id=subscription.id,
            subscription=subscription.name,
            recipient=recipient,
            queue=record.queue,
            offset=record.offset,
            event_id=event.event_id,
            lane=_lane(event, recipient) if ordered else None,
            state=State.PENDING,
            attempts=0,
            due_ms=self._now_ms + subscription.schedule_s[0] * 1000,
            accepted_ms=self._now_ms,
            key=record.key,
            value=record.value,
            headers=record.headers,
        )
        yield from self._admit(subscription, unit, event)

    def _admit(self, subscription: Subscription, unit: Unit, event: Event) -> Iterator[Effect]:
        """Begin a new unit, or end it at once when it can never be delivered."""
        if (size := _size(unit)) > MAX_EVENT_BYTES:
            yield from self._flow.end(unit, State.DEAD, "too_large", f"{size} bytes, at most {MAX_EVENT_BYTES}")
            return
        refused = refusal(subscription, unit.recipient)
        if refused is not None:
            yield from self._flow.end(unit, State.DEAD, *refused)
            return
        goes_on = subscription.forward is not None or subscription.calculation is not None
        if goes_on and unit.replay is None and hops.replayed(unit.headers) is not None:
            # A replay is for the receivers of one subscription; what it forwards must not set off everything again.
            yield from self._flow.end(unit, State.DISCARDED, "replayed", "")
            return
        if goes_on and hops.hops(unit.headers, event.hops) >= hops.MAX_HOPS:
            passed = hops.extended(hops.path(unit.headers), unit.queue)
            detail = f"forwarded or calculated {hops.MAX_HOPS} times: {passed}"
            yield from self._flow.end(unit, State.DEAD, "hop_limit", detail)
            return
        yield from self._flow.enter(unit)

    # Results

    def settle(self, result: Result) -> Iterator[Effect]:
        """Apply one result; a repeated or late one changes nothing, except that "delivered" is a fact at any time."""
        unit = self._table.unit(result.unit_id)
        if unit is None:
            self._raise_the_dead(result)
            return
        window = self._index.window(unit.subscription_id)
        if result.verdict is Verdict.DELIVERED:
            window.delivered()
            ended = unit if unit.attempts >= result.number else replace(unit, attempts=result.number)
            yield from self._flow.end(ended, State.DELIVERED, None, "")
            self._repair(unit)
        elif unit.state is State.IN_FLIGHT and result.number == unit.attempts:
            if result.verdict is Verdict.POSTPONED:
                if result.reason == DISABLED:
                    yield from self._disable(unit, result)
                elif result.reason == BUSY and (subscription := self._book.by_id.get(unit.subscription_id)):
                    window.was_busy(subscription, self._now_ms)
                wait_ms = max(POSTPONE_MS, (result.retry_after_s or 0) * 1000)
                self._flow.retry(replace(unit, attempts=unit.attempts - 1), wait_ms)
            else:
                yield from self._failed(unit, result)
        yield from self._flow.advance(unit.subscription_id)

    def _raise_the_dead(self, result: Result) -> None:
        done = self._table.done(result.unit_id)
        if done is not None and done.state is State.DEAD and result.verdict is Verdict.DELIVERED:
            alive = replace(done, state=State.DELIVERED, reason=None, finished_ms=self._now_ms)
            self._table.put(units.done_key(result.unit_id), alive)

    def _failed(self, unit: Unit, result: Result) -> Iterator[Effect]:
        reason = result.reason or "failed"
        failed = replace(
            unit,
            last_status=result.status,
            last_reason=reason,
            last_body=(result.body or "")[:MAX_BODY_CHARS] or None,
        )
        if result.verdict is Verdict.PERMANENT:
            yield from self._flow.end(failed, State.DEAD, reason, result.detail or "")
            return
        subscription = self._book.by_id.get(unit.subscription_id)
        gone = result.status == GONE
        if gone:
            yield from self._disable(unit, result)
        delay_ms = (
            next_delay_ms(
                subscription.schedule_s, unit.attempts - unit.begun_before, result.attempt_id, result.retry_after_s
            )
            if subscription is not None
            else 0
        )
        if delay_ms is None:
            yield from self._flow.end(failed, State.DEAD, "exhausted", f"{unit.attempts} attempts, the last: {reason}")
            return
        # A disabled endpoint is not called by the schedule: its units wait for a newer version of the subscription.
        self._flow.retry(failed, 0 if gone else delay_ms)

    def _disable(self, unit: Unit, result: Result) -> Iterator[Effect]:
        if self._index.disabled.get(unit.subscription_id, 0) >= result.subscription_version:
            return
        disabled = Disabled(version=result.subscription_version, at_ms=self._now_ms)
        self._table.put(units.endpoint_key(unit.subscription_id), disabled)
        self._index.disabled[unit.subscription_id] = disabled.version
        yield Disable(subscription=unit.subscription, version=disabled.version)

    # Replay and redrive

    def replay(self, commands: Iterable[Again], through: int) -> Iterator[Effect]:
        """Begin what a run of `curfew subscriptions replay` asks for; ``through`` is the offset after the chunk.

        The same command twice begins it once, also when it was delivered or given up since. What cannot be sent any
        more, or is on its way anyway, is discarded: every command is accounted for.
        """
        reached = self._table.reached()
        for one in commands:
            if reached is None or one.offset >= reached.through:
                yield from self._again(one.wanted, one.event)
        # Last, as in accept.
        self._table.put(units.REPLAYS, Reached(through=max(through, reached.through if reached is not None else 0)))

    def _again(self, wanted: Replay, event: Event | Poison) -> Iterator[Effect]:
        subscription = self._book.by_id.get(wanted.subscription_id)
        unit_id = replayed_unit_id(wanted.run, wanted.unit_id)
        if self._table.unit(unit_id) is not None or self._table.done(unit_id) is not None:
            return
        lane = None
        if isinstance(event, Event) and subscription is not None and subscription.ordering is Ordering.IN_ORDER:
            lane = _run_lane(wanted.run, _lane(event, wanted.recipient))
        unit = replace(self._begun(wanted, unit_id, lane), replay=wanted.run, replay_of=wanted.unit_id)
        if isinstance(event, Poison):
            yield from self._flow.end(unit, State.DEAD, event.reason, event.detail)
        elif subscription is None:
            yield from self._flow.end(unit, State.DISCARDED, "no_subscription", "")
        elif subscription.calculation is not None:
            yield from self._flow.end(unit, State.DISCARDED, "calculation", "")
        elif self._table.unit(wanted.unit_id) is not None:
            yield from self._flow.end(unit, State.DISCARDED, "open", "")
        else:
            yield from self._admit(subscription, unit, event)

    def _repair(self, unit: Unit) -> None:
        """The receiver has what it had refused: what waits behind it in its key may go on."""
        if unit.replay is None or unit.lane is None:
            return
        lane = (unit.subscription_id, unit.lane.removeprefix(_run_lane(unit.replay, "")))
        parked = self._table.parked(*lane)
        if parked is not None and parked.unit_id == unit.replay_of:
            self._flow.unpark(lane)

    def reopen(self, wanted: Reopen) -> Iterator[Effect]:
        """Begin a unit that was given up again, at its place in its key, with the whole policy before it.

        What is open, or was delivered, stays as it is, so the same command twice begins it once. A subscription that
        is no more gets nothing: its letter stays where it is.
        """
        subscription = self._book.by_id.get(wanted.subscription_id)
        done = self._table.done(wanted.unit_id)
        if subscription is None or self._table.unit(wanted.unit_id) is not None:
            return
        if done is not None and done.state is not State.DEAD:
            return
        attempts = max(wanted.attempts, 0 if done is None else done.attempts)
        unit = replace(
            self._begun(wanted, wanted.unit_id, wanted.lane if subscription.ordering is Ordering.IN_ORDER else None),
            attempts=attempts,
            begun_before=attempts,
            replay=wanted.replay,
            replay_of=wanted.replay_of,
        )
        self._table.delete(units.done_key(unit.unit_id))
        if unit.lane is not None:
            lane = (unit.subscription_id, unit.lane)
            parked = self._table.parked(*lane)
            if parked is not None and parked.unit_id == unit.unit_id:
                self._table.delete(units.lane_key(*lane))
                self._index.parked.discard(lane)
        if (size := _size(unit)) > MAX_EVENT_BYTES:  # it was given up for that, and comes back
            yield from self._flow.end(unit, State.DEAD, "too_large", f"{size} bytes, at most {MAX_EVENT_BYTES}")
        else:
            yield from self._flow.enter(unit)

    def _begun(self, wanted: Replay | Reopen, unit_id: str, lane: str | None) -> Unit:
        """A unit that a command asks for, due now, before its first attempt."""
        return Unit(
            unit_id=unit_id,
            subscription_id=wanted.subscription_id,
            subscription=wanted.subscription,
            recipient=wanted.recipient,
            queue=wanted.queue,
            offset=wanted.queue_offset,
            event_id=wanted.event_id,
            lane=lane,
            state=State.PENDING,
            attempts=0,
            due_ms=self._now_ms,
            accepted_ms=self._now_ms,
            key=wanted.key,
            value=wanted.value,
            headers=wanted.headers,
        )

    # Ticks

    def wake(self) -> Iterator[Effect]:
        """Begin what is due, let units that are too old die, and forget finished ones that are old enough."""
        self._index.wake(self._now_ms)
        for lane in list(self._index.parked):
            subscription = self._book.by_id.get(lane[0])
            if subscription is not None and subscription.on_exhausted is OnExhausted.SKIP:
                self._flow.unpark(lane)
        for subscription_id in list(self._index.ready):
            yield from self._flow.advance(subscription_id)
        if self._now_ms - self._index.swept_ms >= SWEEP_EVERY_MS:
            self._index.swept_ms = self._now_ms
            for lane in list(self._index.parked):
                yield from self._flow.let_die(lane)
            self._sweep()
        if self._now_ms - self._index.asked_ms >= ASK_AGAIN_MS:
            self._index.asked_ms = self._now_ms
            yield from self._flow.ask_again()

    def _sweep(self) -> None:
        self._index.sweep_bucket = (self._index.sweep_bucket + 1) % 256
        prefix = b"%s%02x/" % (units.DONE, self._index.sweep_bucket)
        for key, data in list(self._table.rows.scan(prefix)):
            if self._now_ms - units.decode(data, Done).finished_ms > DONE_KEPT_MS:
                self._table.delete(key)


def _size(unit: Unit) -> int:
    """Of what the queue's record brings into the row, in bytes."""
    headers = sum(len(header.name.encode()) + len(header.value) for header in unit.headers)
    return len(unit.value) + len(unit.key or b"") + len((unit.lane or "").encode()) + headers


def _lane(event: Event, recipient: str) -> str:
    """The ordering key."""
    return f"{event.key} {recipient}".rstrip()


def _run_lane(run: str, lane: str) -> str:
    """The ordering key of a run: its events wait for each other, and nothing else waits for them."""
    return f"replay:{run}/{lane}"
