"""How fast an endpoint takes requests, as those that ended lately say.

By counting, not by how long single requests take: one that hangs holds one slot of many, and a moment in which nothing
ends (a collection of garbage, here or there) says nothing about the seconds to come.
"""

from __future__ import annotations

from math import exp
from typing import Final

#: What is older than this counts for little. A slow endpoint answers every few seconds; a shorter memory would forget
#: in between that it does.
MEMORY_S: Final = 5.0


class Pace:
    """Instants are seconds of one monotonic clock. Only time in which a request was open counts."""

    __slots__ = ("_at", "_ended", "_open", "_time_s")

    def __init__(self) -> None:
        self._open = 0
        #: Requests that have ended, and the seconds in which they did, both fading with age.
        self._ended, self._time_s = 0.0, 0.0
        self._at = 0.0

    def begin(self, now: float) -> None:
        """A request leaves."""
        if self._open:
            self._pass(now)
        self._at = now
        self._open += 1

    def end(self, now: float) -> None:
        """A request has ended, however."""
        self._pass(now)
        self._open -= 1
        self._ended += 1

    def wait_s(self, waiting: int, now: float) -> float:
        """How long ``waiting`` requests are likely to wait for their turn; 0 if nothing is known."""
        if self._open:
            self._pass(now)
        ended = self._ended + self._open  # as if those that are open were about to end
        return waiting * self._time_s / ended if ended else 0.0

    def _pass(self, now: float) -> None:
        left = exp((self._at - now) / MEMORY_S)
        self._ended *= left
        self._time_s = self._time_s * left + MEMORY_S * (1 - left)
        self._at = now
