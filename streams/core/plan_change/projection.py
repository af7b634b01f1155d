"""When the waiting work would be done at a given speed, and how much time would be left to each deadline."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A change whose execution may begin at ``release_at`` and has to be persisted before ``deadline_at``."""

    release_at: datetime
    deadline_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """All changes of one deadline: the last is done at ``finish_at``; a negative slack means too late."""

    deadline_at: datetime
    remaining: int
    finish_at: datetime

    @property
    def slack(self) -> timedelta:
        """Between the last change and the deadline."""
        return self.deadline_at - self.finish_at


def project(waiting: Iterable[Waiting], now: datetime, each: timedelta) -> Mapping[datetime, Projection]:
    """Deadline → projection, if one change after the other takes ``each``.

    Of those released the nearest deadline comes first, as in the scheduler, so other deadlines are counted in.
    """
    coming = sorted(((max(one.release_at, now), one.deadline_at) for one in waiting), reverse=True)
    released: list[datetime] = []
    finish: dict[datetime, datetime] = {}
    remaining: dict[datetime, int] = {}
    at = now
    while coming or released:
        if not released:
            at = max(at, coming[-1][0])
        while coming and coming[-1][0] <= at:
            heapq.heappush(released, coming.pop()[1])
        deadline = heapq.heappop(released)
        at += each
        finish[deadline] = at
        remaining[deadline] = remaining.get(deadline, 0) + 1
    return {
        deadline: Projection(deadline_at=deadline, remaining=remaining[deadline], finish_at=finish[deadline])
        for deadline in sorted(finish)
    }
