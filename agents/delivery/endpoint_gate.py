"""The one gate before the endpoint of a subscription: rate, concurrency, breaker. Belongs to one event loop.

All attempts of a subscription are in one partition, so exactly one worker has its gate, and the bounds are exact
however many workers there are (docs/adr/0018).
"""

from __future__ import annotations

import asyncio
import math
import time
from types import TracebackType
from typing import Final

from agents.delivery.slots import Slots
from streams.core.delivery.endpoint import Attempted, Health, Notice, begin, delivered, note
from streams.core.delivery.messages import Verdict
from streams.core.delivery.pace import Pace
from streams.core.subscriptions import Subscription
from streams.sinks.webhook import Exchange

#: While one request finds out whether a receiver has come back, the others ask again after this.
PROBE_S: Final = 2
#: What is sent back because too much waits comes again after this, unless its rate says later: the rest is a guess.
LONGEST_BUSY_S: Final = 10.0


class Postponed(Exception):
    """Not now; ``exchange`` says why and when."""

    def __init__(self, reason: str, detail: str, after_s: float | None) -> None:
        super().__init__(detail)
        self.exchange = Exchange(
            verdict=Verdict.POSTPONED,
            reason=reason,
            detail=detail,
            retry_after_s=math.ceil(after_s) if after_s is not None else None,
        )


class Gate:
    """``async with gate.passing(...)`` around a request, then :meth:`note` its end. Raises :class:`Postponed`."""

    def __init__(self, subscription: Subscription, known: Health | None) -> None:
        self.subscription = subscription
        self._health = begin(known, subscription)
        #: Delivered since, one after another, of which :attr:`_health` does not know yet.
        self._delivered, self._delivered_ms = 0, 0
        self.changed = False
        self._slots = Slots(subscription.max_concurrency)
        self._waiting = 0
        self.pace = Pace()
        self._probing = False
        # Another worker may have sent until a moment ago: the first request here keeps its distance from that too.
        self._next_at = time.monotonic() + self._distance

    @property
    def health(self) -> Health:
        """As the row has it; made anew once for many that were delivered."""
        if self._delivered:
            self._health = delivered(self._health, self._delivered, self._delivered_ms)
            self._delivered = 0
        return self._health

    @property
    def _distance(self) -> float:
        rate = self.subscription.max_per_second
        return 1 / rate if rate is not None else 0.0

    def turn_to(self, subscription: Subscription) -> None:
        """Go on with a newer version."""
        if subscription is self.subscription:
            return
        self._slots.width = subscription.max_concurrency
        self.subscription = subscription
        self._health = begin(self.health, subscription)

    def check(self, now_ms: int, within_s: float) -> None:
        """Refuse at once what cannot begin, or is not likely to within ``within_s``; raises :class:`Postponed`."""
        self._check_health(now_ms)
        if self._waiting:
            guess_s = self._guess_s()
            turn_s = self._waiting * self._distance
            if max(guess_s, turn_s) > within_s:
                detail = f"{self._waiting} requests wait for the endpoint already"
                raise Postponed("busy", detail, max(min(guess_s, LONGEST_BUSY_S), turn_s))

    def _guess_s(self) -> float:
        """How long who waits is likely to wait."""
        return self.pace.wait_s(self._waiting, self._slots.width, time.monotonic())

    def _check_health(self, now_ms: int) -> None:
        health = self._health
        if health.disabled_ms is not None:
            raise Postponed(
                "disabled", "the endpoint is disabled: correct it, then `curfew subscriptions resume`", None
            )
        if health.open:
            left_s = (health.open_until_ms - now_ms) / 1000
            if left_s > 0:
                raise Postponed(
                    "breaker", f"{health.failures} failures in a row, the last: {health.last_reason}", left_s
                )
            if self._probing:
                raise Postponed("breaker", "one request finds out whether the receiver is back", PROBE_S)

    def passing(self, now_ms: int, within_s: float) -> Passage:
        """Wait for a slot and for the rate; postponed if that takes longer than ``within_s``."""
        return Passage(self, now_ms, within_s)

    def note(self, exchange: Exchange, at_ms: int) -> tuple[Notice, ...]:
        """Learn how an attempt ended."""
        if exchange.verdict is Verdict.DELIVERED and self._health.well:
            self._delivered, self._delivered_ms, self.changed = self._delivered + 1, at_ms, True
            return ()
        done = Attempted(
            verdict=exchange.verdict,
            reason=exchange.reason,
            detail=exchange.detail,
            status=exchange.status,
            at_ms=at_ms,
        )
        before = self.health
        self._health, notices = note(before, self.subscription, done)
        self.changed = self.changed or self._health is not before
        return notices


class Passage:
    """One request's way through a gate. A class by hand: a generator would cost a tenth of what the request does."""

    __slots__ = ("_gate", "_now_ms", "_probe", "_within_s")

    def __init__(self, gate: Gate, now_ms: int, within_s: float) -> None:
        self._gate, self._now_ms, self._within_s = gate, now_ms, within_s
        self._probe = False

    async def __aenter__(self) -> None:
        gate = self._gate
        latest = time.monotonic() + self._within_s
        gate.check(self._now_ms, self._within_s)
        self._probe = gate._health.open
        gate._probing = gate._probing or self._probe
        gate._waiting += 1
        try:
            try:
                await gate._slots.acquire(latest)
            except TimeoutError:
                detail = f"no slot of the endpoint was free within {self._within_s:.1f} s"
                raise Postponed("busy", detail, min(gate._guess_s(), LONGEST_BUSY_S)) from None
            try:
                await self._begin(latest)
            except BaseException:
                gate._slots.release()
                raise
        except BaseException:
            if self._probe:
                gate._probing = False
            raise
        finally:
            gate._waiting -= 1
        gate.pace.begin(time.monotonic())

    async def _begin(self, latest: float) -> None:
        gate = self._gate
        begin_at = max(gate._next_at, time.monotonic())
        if begin_at > latest:
            raise Postponed("busy", "other requests of the endpoint came first", max(begin_at - latest, 1))
        if gate._distance:
            gate._next_at = begin_at + gate._distance
            await asyncio.sleep(begin_at - time.monotonic())
        if not self._probe:
            gate._check_health(self._now_ms)  # it may have failed for others meanwhile

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        gate = self._gate
        gate.pace.end(time.monotonic())
        gate._slots.release()
        if self._probe:
            gate._probing = False
