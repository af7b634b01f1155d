"""Lag in time instead of records: when did the partition end where the group is now? Pure, bounded memory.

The exact answer is the timestamp of the first unread record, which costs a read. Where nobody can afford it, the answer
is interpolated between the end offsets that were stored, one point per look.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from enum import Enum
from math import inf, isfinite
from typing import Final

#: Points of one partition. With the distance below they reach back half an hour; beyond, the line through the oldest
#: and the newest is drawn on.
POINTS: Final = 90
DISTANCE_MS: Final = 20_000


class Unknown(Enum):
    """Why there is no instant."""

    TOO_FEW_POINTS = "too few points"
    LAG_IS_ZERO = "lag is zero"


class EndHistory:
    """Where a partition ended, and when; times in any unit, ours are Unix milliseconds.

    ``distance``: two points are at least so far apart, but for the newest, which is always where the end is now.
    """

    __slots__ = ("_distance", "_offsets", "_size", "_times")

    def __init__(self, size: int = POINTS, distance: float = DISTANCE_MS) -> None:
        self._size = size
        self._distance = distance
        self._offsets = array("q")
        self._times = array("d")

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def newest(self) -> int | None:
        """The end as it was seen last."""
        return self._offsets[-1] if self._offsets else None

    def add(self, offset: int, at: float) -> None:
        """The end at an instant. Ends only grow and time only passes; a point that says otherwise is left out."""
        offsets, times = self._offsets, self._times
        if offsets and (offset < offsets[-1] or at <= times[-1]):
            return
        # Of a time without records the first and the last point tell everything.
        flat = len(offsets) > 1 and offset == offsets[-1] == offsets[-2]
        near = len(times) > 1 and offset != offsets[-1] and times[-1] - times[-2] < self._distance
        if flat or near:
            offsets[-1], times[-1] = offset, at
            return
        offsets.append(offset)
        times.append(at)
        if len(offsets) > self._size:
            del offsets[0], times[0]

    def when(self, offset: int) -> float | Unknown:
        """When the end passed ``offset``; ±infinity where the line through the points is flat."""
        offsets, times = self._offsets, self._times
        if offsets and offset == offsets[-1]:
            return Unknown.LAG_IS_ZERO
        if len(offsets) < 2:
            return Unknown.TOO_FEW_POINTS
        if offsets[0] <= offset < offsets[-1]:
            # the last point at or before it: a record at the end of a flat stretch came after the stretch
            left = bisect_right(offsets, offset) - 1
            right = left + 1
        else:
            left, right = 0, len(offsets) - 1
        rise = offsets[right] - offsets[left]
        if rise == 0:
            return inf if offset > offsets[-1] else -inf
        return times[left] + (offset - offsets[left]) * (times[right] - times[left]) / rise

    def end_at(self, at: float) -> int | None:
        """Where the partition ended at an instant, interpolated; None before the first point."""
        right = bisect_left(self._times, at)
        if right == len(self._times):
            return self.newest
        if self._times[right] == at:
            return self._offsets[right]
        if right == 0:
            return None
        span = self._times[right] - self._times[right - 1]
        part = (at - self._times[right - 1]) / span
        return self._offsets[right - 1] + int(part * (self._offsets[right] - self._offsets[right - 1]))

    def first_beyond(self, offset: int) -> float | None:
        """The first instant at which records after ``offset`` were seen to be there; None if none were."""
        at = bisect_right(self._offsets, offset)
        return self._times[at] if at < len(self._times) else None

    def is_first(self, at: float) -> bool:
        """Whether ``at`` is the instant of the oldest point."""
        return bool(self._times) and self._times[0] == at

    def since(self, at: float) -> list[int]:
        """The ends that were seen from an instant on."""
        return list(self._offsets[bisect_left(self._times, at) :])


def time_lag(history: EndHistory, offset: int, now: float) -> float | None:
    """How long ago the end passed ``offset``, never negative; None where that cannot be said."""
    found = history.when(offset)
    if found is Unknown.LAG_IS_ZERO or found == inf:
        return 0.0
    if found is Unknown.TOO_FEW_POINTS or not isfinite(found):
        return None
    return max(0.0, now - found)
