"""What is due, and in which order: an index in memory over rows that hold the truth.

An entry is a hint. Whoever takes it looks at the row again, so nothing has to be removed when a change is cancelled or
superseded, and an entry too many costs one look. An entry too few would be a missed deadline: so the index is built
again from the rows whenever a decision is thrown away.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Window(StrEnum):
    """Work of which only so much may be out at a time. Each has a room of its own: an executor that is gone must not
    keep what the persister could do, nor the other way round."""

    EXECUTE = "execute"
    RELEASE = "release"


#: Room in every window, and in none.
ALL_ROOM: frozenset[Window] = frozenset(Window)
NO_ROOM: frozenset[Window] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Row ``id`` has something to do from ``at`` on; with a ``window`` only while there is room in it."""

    id: str
    at: datetime
    deadline: datetime
    window: Window | None


class DueIndex:
    """The waiting work of one partition, and the ids whose work is out.

    ``size`` is the most in flight per window. What is in flight is a set filled from the rows and never a counter: a
    lost answer would make a counter leak until nothing is sent any more.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._queues: dict[Window | None, _Queue] = {window: _Queue() for window in (None, *Window)}
        self._in_flight: dict[Window, set[str]] = {window: set() for window in Window}

    def add(self, dues: Iterable[Due]) -> None:
        """Remember work to do."""
        for due in dues:
            self._queues[due.window].add(due)

    def mark(self, id: str, out: Window | None) -> None:
        """Say in which window the row ``id`` has something out."""
        for window, ids in self._in_flight.items():
            (ids.add if window is out else ids.discard)(id)

    def is_out(self, id: str, window: Window) -> bool:
        """Whether the row ``id`` has a place in ``window``."""
        return id in self._in_flight[window]

    def take(self, now: datetime) -> Due | None:
        """The most urgent due work, or None: what needs no place in a window first, the other while there is room."""
        for window, queue in self._queues.items():
            if (window is None or self._has_room(window)) and (found := queue.take(now, window)) is not None:
                return found
        return None

    @property
    def room(self) -> frozenset[Window]:
        """The windows in which something more may be sent."""
        return _ROOMS[self._has_room(Window.EXECUTE), self._has_room(Window.RELEASE)]

    def in_flight(self, window: Window) -> int:
        """What is out, of which no result has come."""
        return len(self._in_flight[window])

    def _has_room(self, window: Window) -> bool:
        return len(self._in_flight[window]) < self._size

    def next_at(self, now: datetime) -> datetime | None:
        """The earliest instant after ``now``; work that is due already waits for results and not for the clock."""
        coming = (queue.next_at(now) for queue in self._queues.values())
        return min((at for at in coming if at is not None), default=None)

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))


_ROOMS = {
    (execute, release): frozenset(
        window for window, room in ((Window.EXECUTE, execute), (Window.RELEASE, release)) if room
    )
    for execute in (False, True)
    for release in (False, True)
}


class _Queue:
    """Buckets of ids by (at, deadline): one heap of bucket keys to come, by ``at``, one of the due, by ``deadline``.

    A million changes for one midnight fall into a few thousand buckets, so the heaps stay small.
    """

    def __init__(self) -> None:
        self._ids: dict[tuple[datetime, datetime], list[str]] = {}
        self._coming: list[tuple[datetime, datetime]] = []
        self._ready: list[tuple[datetime, datetime]] = []

    def add(self, due: Due) -> None:
        bucket = self._ids.get((due.at, due.deadline))
        if bucket is None:
            self._ids[due.at, due.deadline] = [due.id]
            heapq.heappush(self._coming, (due.at, due.deadline))
        else:
            heapq.heappush(bucket, due.id)

    def take(self, now: datetime, window: Window | None) -> Due | None:
        """Earliest deadline first, then earliest release, then by id: an index that was built again takes the same."""
        self._promote(now)
        if not self._ready:
            return None
        deadline, at = self._ready[0]
        bucket = self._ids[at, deadline]
        id = heapq.heappop(bucket)
        if not bucket:
            heapq.heappop(self._ready)
            del self._ids[at, deadline]
        return Due(id=id, at=at, deadline=deadline, window=window)

    def next_at(self, now: datetime) -> datetime | None:
        self._promote(now)
        return self._coming[0][0] if self._coming else None

    def _promote(self, now: datetime) -> None:
        while self._coming and self._coming[0][0] <= now:
            at, deadline = heapq.heappop(self._coming)
            heapq.heappush(self._ready, (deadline, at))

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self._ids.values())
