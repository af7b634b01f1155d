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


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Row ``id`` has something to do from ``at`` on. ``windowed``: only while the window of commands has room."""

    id: str
    at: datetime
    deadline: datetime
    windowed: bool


class DueIndex:
    """The waiting work of one partition, and the ids whose command is out.

    ``window`` is the most commands in flight. What is in flight is a set filled from the rows and never a counter: a
    lost answer would make a counter leak until nothing is sent any more.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._free = _Queue()
        self._windowed = _Queue()
        self._in_flight: set[str] = set()

    def add(self, dues: Iterable[Due]) -> None:
        """Remember work to do."""
        for due in dues:
            (self._windowed if due.windowed else self._free).add(due)

    def mark(self, id: str, in_flight: bool) -> None:
        """Say whether the row ``id`` has a command out."""
        (self._in_flight.add if in_flight else self._in_flight.discard)(id)

    def take(self, now: datetime) -> Due | None:
        """The most urgent due work, or None: what needs no place in the window first, the other while there is room."""
        return self._free.take(now, windowed=False) or (
            self._windowed.take(now, windowed=True) if self.has_room else None
        )

    @property
    def has_room(self) -> bool:
        """True while another command may be sent."""
        return len(self._in_flight) < self._window

    @property
    def in_flight(self) -> int:
        """Commands out, of which no result has come."""
        return len(self._in_flight)

    def next_at(self, now: datetime) -> datetime | None:
        """The earliest instant after ``now``; work that is due already waits for results and not for the clock."""
        coming = (queue.next_at(now) for queue in (self._free, self._windowed))
        return min((at for at in coming if at is not None), default=None)

    def __len__(self) -> int:
        return len(self._free) + len(self._windowed)


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
            bucket.append(due.id)

    def take(self, now: datetime, *, windowed: bool) -> Due | None:
        """Earliest deadline first, then earliest release."""
        self._promote(now)
        if not self._ready:
            return None
        deadline, at = self._ready[0]
        bucket = self._ids[at, deadline]
        id = bucket.pop()
        if not bucket:
            heapq.heappop(self._ready)
            del self._ids[at, deadline]
        return Due(id=id, at=at, deadline=deadline, windowed=windowed)

    def next_at(self, now: datetime) -> datetime | None:
        self._promote(now)
        return self._coming[0][0] if self._coming else None

    def _promote(self, now: datetime) -> None:
        while self._coming and self._coming[0][0] <= now:
            at, deadline = heapq.heappop(self._coming)
            heapq.heappush(self._ready, (deadline, at))

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self._ids.values())
