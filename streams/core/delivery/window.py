"""How many attempts of a subscription are with the dispatch worker at once, in one partition.

Without a bound, a slow endpoint would fill delivery.attempts and every other endpoint would wait behind it; too small a
one would starve a fast endpoint for the round trip by Kafka. So the window fits itself to the endpoint, as a congestion
window does: it is halved when attempts come back because the endpoint was too busy for them, and grows again with what
is delivered. It is memory only: after a restart, and when a chunk is decided again, it is wide.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from streams.core.subscriptions import Subscription

WINDOW: Final = 256
#: A window that was full is filled up again when a quarter of it is free. One by one, each result would send one
#: attempt, and every webhook would cost requests to Kafka, and chunks in both workers, of its own.
REFILL_PART: Final = 4
#: With a rate limit, what it lets through in this time is handed over; the rest would only be sent back.
AHEAD_S: Final = 4
#: At most once in this time a window is halved: what was handed over before comes back for as long.
HALVED_ONCE_IN_MS: Final = 6_000
#: Deliveries for which it grows by one.
GROWS_AFTER: Final = 8


@dataclass(slots=True, eq=False)
class Window:
    """``flying``: ids of the units that are in flight. ``full``: it was, and has not emptied by its part since."""

    flying: set[str] = field(default_factory=set)
    full: bool = False
    _size: int = WINDOW
    _delivered: int = 0
    _halved_ms: int | None = None

    def size(self, subscription: Subscription) -> int:
        """How many units may be in flight."""
        return min(self._size, _bound(subscription))

    def has_room(self, subscription: Subscription) -> bool:
        """Whether more may be sent: below the window, and once that was full, only after a part of it was free."""
        size = self.size(subscription)
        if len(self.flying) <= size - max(1, size // REFILL_PART):
            self.full = False
        return len(self.flying) < size and not self.full

    def begin(self, unit_id: str, subscription: Subscription) -> None:
        """An attempt of this unit is in flight."""
        self.flying.add(unit_id)
        self.full = self.full or len(self.flying) >= self.size(subscription)

    def end(self, unit_id: str) -> None:
        """It is no more."""
        self.flying.discard(unit_id)

    def delivered(self) -> None:
        """One more was delivered."""
        if self._size < WINDOW:
            self._delivered += 1
            self._size, self._delivered = self._size + self._delivered // GROWS_AFTER, self._delivered % GROWS_AFTER

    def was_busy(self, subscription: Subscription, now_ms: int) -> None:
        """One could not begin in time; ``now_ms`` is Unix milliseconds. Every open request keeps something to do."""
        if self._halved_ms is not None and 0 <= now_ms - self._halved_ms < HALVED_ONCE_IN_MS:
            return
        least = min(subscription.max_concurrency, _bound(subscription))
        self._size, self._halved_ms = max(least, self.size(subscription) // 2), now_ms


def _bound(subscription: Subscription) -> int:
    rate = subscription.max_per_second
    return WINDOW if rate is None else max(1, min(WINDOW, rate * AHEAD_S))
