"""How many attempts of a subscription are with the dispatch worker at once, in one partition.

Without a bound, a slow endpoint would fill delivery.attempts and every other endpoint would wait behind it; too small a
one would starve a fast endpoint for the round trip by Kafka. So the window fits itself to the endpoint, as a congestion
window does: it is halved when attempts come back because the endpoint was too busy for them, and grows again with what
is delivered. It is memory only: after a restart all windows are wide, and what is in flight is read from the rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

WINDOW: Final = 256
#: A window that was full is filled up again when a quarter of it is free. One by one, each result would send one
#: attempt, and every webhook would cost requests to Kafka, and chunks in both workers, of its own.
REFILL_PART: Final = 4
#: With a rate limit, what it lets through in this time is handed over; the rest would only be sent back.
AHEAD_S: Final = 4
#: What an endpoint was too busy for comes back all at once, and halves the window once.
HALVED_FOR_MS: Final = 1_000
#: Grows by one for so many that were delivered.
WIDENED_BY: Final = 8


@dataclass(slots=True, eq=False)
class Window:
    """``flying``: ids of the units that are in flight. ``full``: it was, and has not emptied by its part since."""

    flying: set[str] = field(default_factory=set)
    full: bool = False
    _size: int = WINDOW
    _delivered: int = 0
    _halved_ms: int = -HALVED_FOR_MS

    def size(self, max_per_second: int | None) -> int:
        """How many may be in flight, with the rate limit of the subscription."""
        return self._size if max_per_second is None else max(1, min(self._size, max_per_second * AHEAD_S))

    def has_room(self, max_per_second: int | None) -> bool:
        """Whether more may be sent: below the window, and once that was full, only after a part of it was free."""
        size = self.size(max_per_second)
        if len(self.flying) <= size - max(1, size // REFILL_PART):
            self.full = False
        return len(self.flying) < size and not self.full

    def begin(self, unit_id: str, max_per_second: int | None) -> None:
        """An attempt of this unit is in flight."""
        self.flying.add(unit_id)
        self.full = self.full or len(self.flying) >= self.size(max_per_second)

    def end(self, unit_id: str) -> None:
        """It is no more."""
        self.flying.discard(unit_id)

    def delivered(self) -> None:
        """The endpoint has taken one."""
        if self._size < WINDOW:
            self._delivered += 1
            self._size, self._delivered = self._size + self._delivered // WIDENED_BY, self._delivered % WIDENED_BY

    def was_busy(self, now_ms: int) -> None:
        """The endpoint was too busy for one, at this Unix time in milliseconds."""
        if now_ms - self._halved_ms >= HALVED_FOR_MS:
            self._size, self._halved_ms = max(1, self._size // 2), now_ms
