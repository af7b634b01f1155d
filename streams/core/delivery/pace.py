"""How long an endpoint takes for a request, as those say that ended lately; so how long others will wait for a slot.

It is the mean over all slots: one request that hangs holds one of many, and a moment in which nothing ends (a
collection of garbage, here or there) says nothing about the seconds to come.
"""

from __future__ import annotations

from math import exp
from typing import Final

#: What is older than this counts for little.
MEMORY_S: Final = 5.0
#: A first request may take as long for its connection alone; before, an endpoint that has answered nothing is not slow.
UNKNOWN_FOR_S: Final = 1.0


class Pace:
    """Instants are seconds of one monotonic clock. Time in which no request is open does not count."""

    __slots__ = ("_at", "_ended", "_open_s", "open")

    def __init__(self) -> None:
        #: Requests that are open now.
        self.open = 0
        #: Requests that have ended, and the seconds that requests were open, both fading with age.
        self._ended, self._open_s = 0.0, 0.0
        self._at = 0.0

    def begin(self, now: float) -> None:
        """A request leaves."""
        self._age(now)
        self.open += 1

    def end(self, now: float) -> None:
        """A request has ended, however."""
        self._age(now)
        self.open -= 1
        self._ended += 1

    def wait_s(self, waiting: int, slots: int, now: float) -> float:
        """How long ``waiting`` requests are likely to wait for their turn; 0 while nothing is known."""
        self._age(now)
        if not self._ended and self._open_s < self.open * UNKNOWN_FOR_S:
            return 0.0
        # At least as many are about to end as are open: of an endpoint that needs longer than the memory, too few have
        # ended to go by them alone.
        ended = max(self._ended, self.open)
        return waiting * self._open_s / ended / slots if ended else 0.0

    def _age(self, now: float) -> None:
        if self.open:
            left = exp((self._at - now) / MEMORY_S)
            self._ended *= left
            self._open_s = self._open_s * left + self.open * MEMORY_S * (1 - left)
        self._at = now
