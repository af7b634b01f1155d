"""The one gate before the endpoint of a subscription: rate, concurrency, breaker. Belongs to one event loop.

All attempts of a subscription are in one partition, so exactly one worker has its gate, and the bounds are exact
however many workers there are (docs/adr/0018).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from streams.core.delivery.endpoint import Attempted, Health, Notice, begin, note
from streams.core.delivery.messages import Verdict
from streams.core.subscriptions import Subscription
from streams.sinks.webhook import Exchange

#: While one request finds out whether a receiver has come back, the others ask again after this.
PROBE_S: Final = 2
#: Weight of the newest latency.
SMOOTHING: Final = 0.2


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
        self.health = begin(known, subscription)
        self.changed = False
        self._slots = asyncio.Semaphore(subscription.max_concurrency)
        self._waiting = 0
        self._begun: dict[int, float] = {}
        self._number = 0
        self._latency_s = 0.0
        self._probing = False
        # Another worker may have sent until a moment ago: the first request here keeps its distance from that too.
        self._next_at = time.monotonic() + self._distance

    @property
    def _distance(self) -> float:
        rate = self.subscription.max_per_second
        return 1 / rate if rate is not None else 0.0

    def turn_to(self, subscription: Subscription) -> None:
        """Go on with a newer version."""
        if subscription is self.subscription:
            return
        if subscription.max_concurrency != self.subscription.max_concurrency:
            # Those under way keep their slots of the old version; for their time-out at most, both count.
            self._slots = asyncio.Semaphore(max(1, subscription.max_concurrency - len(self._begun)))
        self.subscription = subscription
        self.health = begin(self.health, subscription)

    def check(self, now_ms: int, within_s: float) -> None:
        """Refuse at once what could not begin within ``within_s``; raises :class:`Postponed`."""
        health, concurrency = self.health, self.subscription.max_concurrency
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
        oldest = next(iter(self._begun.values()), None)
        slow = max(self._latency_s, time.monotonic() - oldest if oldest is not None else 0.0)
        queue_s = max(self._waiting * slow / concurrency, self._waiting * self._distance)
        if self._waiting and queue_s > within_s:
            raise Postponed("busy", f"{self._waiting} requests wait for the endpoint already", queue_s)

    @asynccontextmanager
    async def passing(self, now_ms: int, within_s: float) -> AsyncIterator[None]:
        """Wait for a slot and for the rate, but not longer than ``within_s``."""
        latest = time.monotonic() + within_s
        self.check(now_ms, within_s)
        probe = self.health.open
        self._probing = self._probing or probe
        self._waiting += 1
        waits, slots = True, self._slots
        try:
            async with slots:
                begin_at = max(self._next_at, time.monotonic())
                if begin_at > latest:
                    raise Postponed("busy", "other requests of the endpoint came first", max(begin_at - latest, 1))
                if self._distance:
                    self._next_at = begin_at + self._distance
                    await asyncio.sleep(begin_at - time.monotonic())
                self._waiting, waits = self._waiting - 1, False
                if not probe:
                    self.check(now_ms, math.inf)  # it may have failed for others meanwhile
                self._number += 1
                number, began = self._number, time.monotonic()
                self._begun[number] = began
                try:
                    yield
                finally:
                    del self._begun[number]
                    self._latency_s += SMOOTHING * (time.monotonic() - began - self._latency_s)
        finally:
            self._waiting -= waits
            if probe:
                self._probing = False

    def note(self, exchange: Exchange, at_ms: int) -> tuple[Notice, ...]:
        """Learn how an attempt ended."""
        done = Attempted(
            verdict=exchange.verdict,
            reason=exchange.reason,
            detail=exchange.detail,
            status=exchange.status,
            at_ms=at_ms,
        )
        before = self.health
        self.health, notices = note(self.health, self.subscription, done)
        self.changed = self.changed or self.health is not before
        return notices
