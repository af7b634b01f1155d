"""What is next for the open units of a partition: whose turn it is, how many go at once, and what an end lets go on.

In-order means: a unit is sent only after the one before it in its lane (its key) was delivered or given up. Up to
:data:`TRAIN` of a lane are handed to the dispatch worker together; it stops at the first that fails
(``Attempt.follows``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from heapq import heappop
from itertools import islice
from typing import Final

from streams.core.delivery import units
from streams.core.delivery.book import Book
from streams.core.delivery.effects import Bury, Effect, Send
from streams.core.delivery.index import Index, Lane
from streams.core.delivery.messages import Attempt, attempt_id
from streams.core.delivery.units import Done, Parked, State, Table, Unit
from streams.core.subscriptions import OnExhausted, Subscription

#: Events of one key handed over together. One by one, each would wait for a round trip by Kafka, and an account with
#: thousands of services would need minutes for its own night.
TRAIN: Final = 64
#: An endpoint that was too busy gets a moment; without it, its units would circle between the workers all the time.
POSTPONE_MS: Final = 1_000


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Flow:
    """Decides for one partition at one instant; ``now_ms`` is wall-clock Unix milliseconds."""

    def __init__(self, table: Table, index: Index, book: Book, partition: int, now_ms: int) -> None:
        self._table = table
        self._index = index
        self._book = book
        self._partition = partition
        self._now_ms = now_ms

    def enter(self, unit: Unit) -> Iterator[Effect]:
        """Put an open unit at its place; begin it if it is its turn."""
        self._table.put_unit(unit)
        self._index.join(unit)
        if self._is_head(unit):
            self._index.wait(unit, self._now_ms)
            yield from self.advance(unit.subscription_id)
        else:
            yield from self._lengthen(unit)

    def advance(self, subscription_id: str) -> Iterator[Effect]:
        """Begin attempts of a subscription, oldest first, up to the window."""
        ready = self._index.ready.get(subscription_id)
        subscription = self._book.by_id.get(subscription_id)
        if not ready or subscription is None:
            return
        may_send = subscription.deliverable and not self._is_disabled(subscription)
        window = self._index.window(subscription_id)
        if may_send and not window.has_room(subscription):
            return
        size = window.size(subscription)
        heads: list[tuple[Unit, str]] = []
        while ready and (len(window.flying) < size or not may_send):
            unit = self._table.unit(ready[0][1])
            if unit is None or unit.state is not State.PENDING or not self._is_head(unit):
                heappop(ready)
            elif unit.due_ms > self._now_ms:
                heappop(ready)
                self._index.wait(unit, self._now_ms)
            elif self._too_old(unit, subscription):
                heappop(ready)
                yield from self._die_of_age(unit, subscription)
            elif may_send:
                heappop(ready)
                send = self._attempt(unit, subscription)
                yield send
                heads.append((unit, send.attempt.attempt_id))
            else:
                return
        # Only then: trains of a few keys would fill a small window, and leave most open requests unused.
        for head, begun in heads:
            yield from self._follow(head, subscription, begun)

    def let_die(self, lane: Lane) -> Iterator[Effect]:
        """Of a parked lane: end what has waited for too long. Nothing else looks at it, as it is nobody's turn."""
        subscription = self._book.by_id.get(lane[0])
        while subscription is not None and (unit := self._index.head(lane, self._table)) is not None:
            if unit.state is not State.PENDING or not self._too_old(unit, subscription):
                return
            yield from self._die_of_age(unit, subscription)

    def _too_old(self, unit: Unit, subscription: Subscription) -> bool:
        return self._now_ms - unit.accepted_ms >= subscription.max_age_s * 1000

    def _die_of_age(self, unit: Unit, subscription: Subscription) -> Iterator[Effect]:
        reason = f"older than {timedelta(seconds=subscription.max_age_s)} after {unit.attempts} attempts"
        yield from self.end(unit, State.DEAD, "max_age", reason)

    def ask_again(self) -> Iterator[Effect]:
        """Ask again for each attempt that was in flight at the last call already: the same one, so that it is made
        once. Of a lane only its head, as the others follow it."""
        flew, self._index.flew = self._index.flew, {}
        for window in self._index.windows.values():
            for unit_id in list(window.flying):
                unit = self._table.unit(unit_id)
                if unit is None or unit.state is not State.IN_FLIGHT:
                    continue
                self._index.flew[unit_id] = unit.attempts
                if flew.get(unit_id) == unit.attempts and self._is_head(unit):
                    yield self._send(unit)

    def _follow(self, head: Unit, subscription: Subscription, before: str) -> Iterator[Effect]:
        """Hand over the events behind the head of a lane, whose attempt is ``before``; one that failed goes alone."""
        if head.lane is None or head.attempts > 0:
            return
        behind = list(islice(self._index.lanes[head.subscription_id, head.lane], 1, TRAIN))
        if not behind:
            return
        window = self._index.window(subscription.id)
        size = window.size(subscription)
        for _, unit_id in behind:
            unit = self._table.unit(unit_id)
            if unit is None or unit.state is not State.PENDING or len(window.flying) >= size:
                return
            if unit.attempts == 0 and unit.due_ms > self._now_ms + POSTPONE_MS:
                return  # a schedule that begins with a wait
            send = self._attempt(unit, subscription, follows=before)
            yield send
            before = send.attempt.attempt_id

    def _lengthen(self, unit: Unit) -> Iterator[Effect]:
        """Hand ``unit``, a new one, over behind the one before it, if it is the last of its lane and all others are on
        their way; one that failed goes alone."""
        lane = self._index.lanes[unit.subscription_id, unit.lane or ""]
        if unit.attempts > 0 or lane[-1][1] != unit.unit_id:
            return
        subscription = self._book.by_id.get(unit.subscription_id)
        if subscription is None or not 1 < len(lane) <= TRAIN or unit.due_ms > self._now_ms:
            return
        if not self._index.window(subscription.id).has_room(subscription):
            return
        before = self._table.unit(lane[-2][1])
        if before is not None and before.state is State.IN_FLIGHT:
            yield self._attempt(unit, subscription, follows=attempt_id(before.unit_id, before.attempts))

    def _attempt(self, unit: Unit, subscription: Subscription, follows: str | None = None) -> Send:
        """Count the attempt, then ask for it: after a crash in between, the same attempt is asked for again."""
        begun = replace(unit, state=State.IN_FLIGHT, attempts=unit.attempts + 1)
        self._table.put_unit(begun)
        self._index.window(subscription.id).begin(unit.unit_id, subscription)
        return self._send(begun, follows)

    def _send(self, unit: Unit, follows: str | None = None) -> Send:
        return Send(
            attempt=Attempt(
                attempt_id=attempt_id(unit.unit_id, unit.attempts),
                unit_id=unit.unit_id,
                number=unit.attempts,
                subscription_id=unit.subscription_id,
                subscription=unit.subscription,
                recipient=unit.recipient,
                queue=unit.queue,
                queue_partition=self._partition,
                queue_offset=unit.offset,
                event_id=unit.event_id,
                follows=follows,
                replay=unit.replay,
                replay_of=unit.replay_of,
                key=unit.key,
                value=unit.value,
                headers=unit.headers,
                sent_at=_EPOCH + timedelta(milliseconds=self._now_ms),
            )
        )

    def retry(self, unit: Unit, delay_ms: int) -> None:
        """Let ``unit`` wait for its next attempt."""
        pending = replace(unit, state=State.PENDING, due_ms=self._now_ms + delay_ms)
        self._table.put_unit(pending)
        self._index.window(unit.subscription_id).end(unit.unit_id)
        self._index.wait(pending, self._now_ms)

    def end(self, unit: Unit, state: State, reason: str | None, detail: str) -> Iterator[Effect]:
        """Finish ``unit`` in one of the final states. The next of its lane may go on, unless this end parks it."""
        done = Done(
            subscription_id=unit.subscription_id,
            queue=unit.queue,
            offset=unit.offset,
            event_id=unit.event_id,
            state=state,
            attempts=unit.attempts,
            reason=reason,
            finished_ms=self._now_ms,
            replay=unit.replay,
        )
        self._table.put(units.done_key(unit.unit_id), done)
        self._table.delete_unit(unit.unit_id)
        self._index.window(unit.subscription_id).end(unit.unit_id)
        if reason is not None and state is State.DEAD:
            yield Bury(unit=unit, reason=reason, detail=detail)
        if unit.lane is None:
            return
        lane = (unit.subscription_id, unit.lane)
        subscription = self._book.by_id.get(unit.subscription_id)
        # Only what a repaired receiver could still take parks its key: a body that is too large never becomes smaller.
        if reason == "exhausted" and subscription is not None and subscription.on_exhausted is OnExhausted.PARK:
            self._table.put(units.lane_key(*lane), Parked(unit_id=unit.unit_id, at_ms=self._now_ms))
            self._index.parked.add(lane)
            return
        self._release(lane)

    def unpark(self, lane: Lane) -> None:
        """Let a parked lane go on."""
        self._table.delete(units.lane_key(*lane))
        self._index.parked.discard(lane)
        self._release(lane)

    def _release(self, lane: Lane) -> None:
        head = self._index.head(lane, self._table)
        if head is not None and head.state is State.PENDING:
            self._index.wait(head, self._now_ms)

    def _is_head(self, unit: Unit) -> bool:
        if unit.lane is None:
            return True
        lane = (unit.subscription_id, unit.lane)
        if lane in self._index.parked:
            if self._table.parked(*lane) is not None:
                return False
            self._index.parked.discard(lane)  # the chunk that parked it was thrown away
        head = self._index.head(lane, self._table)
        return head is not None and head.unit_id == unit.unit_id

    def _is_disabled(self, subscription: Subscription) -> bool:
        if self._index.disabled.get(subscription.id, 0) < subscription.version:
            return False
        row = self._table.disabled(subscription.id)
        return row is not None and row.version >= subscription.version
