"""Timers: rows that want to be looked at from an instant on, and the index of those that do.

The machinery of due work for apps whose work needs no window (plan changes have one, see
:mod:`streams.core.plan_change.due`). One row per thing that waits, e.g. an invoice or a SIM, under a key of the app's
own; what it waits for is the app's business and travels in ``payload``. How to use it:

- ``index = rebuild(rows)`` when a partition is opened, and again whenever a decision was thrown away: the rows are the
  truth, the index is a copy of their instants.
- ``timers = Timers(rows, index)`` for each batch. ``set`` puts or moves a timer (``at=None``: it waits for something
  else than time, and is only kept), ``cancel`` removes one, ``get`` and ``scan`` read.
- ``timers.take(now)`` gives one due timer after the other, earliest first, and **removes its row**: whoever takes it
  decides, and sets it again if there is more to wait for. What is emitted becomes durable before the removal, so a
  crash between the two repeats the timer, never loses it: ids of what it raises must come from the thing and from its
  instant.
- ``index.next_at()`` is what to report to the clock.

An entry of the index is a hint and is checked on its row, so moving or cancelling a timer removes nothing from it. A
timer that is moved forward with every record (usage of a SIM) leaves a hint each time: let it stand instead, look at
the thing when it comes, and set it again from there (one write per SIM and period instead of one per record).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Protocol

PREFIX = b"timer/"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_HEADER = Struct(">q")
# Not an instant: the timer waits for something else than time.
_WAITS = -(2**63)


class Rows(Protocol):
    """The rows of one partition, with what this batch has written so far."""

    def get(self, key: bytes) -> bytes | None: ...

    def put(self, key: bytes, value: bytes) -> None: ...

    def delete(self, key: bytes) -> None: ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Timer:
    """``key`` wants to be looked at from ``at`` on (UTC, milliseconds); None: when something else happens."""

    key: str
    at: datetime | None
    payload: bytes = b""


class TimerIndex:
    """When which timers of a partition are due: buckets of keys by instant, and a heap of the instants.

    A million timers for one midnight are one bucket per zone, so the heap stays small.
    """

    def __init__(self) -> None:
        self._keys: dict[datetime, list[str]] = {}
        self._instants: list[datetime] = []

    def add(self, key: str, at: datetime) -> None:
        """Remember to look at ``key`` from ``at`` on."""
        bucket = self._keys.get(at)
        if bucket is None:
            self._keys[at] = [key]
            heapq.heappush(self._instants, at)
        else:
            bucket.append(key)

    def take(self, now: datetime) -> tuple[str, datetime] | None:
        """(key, instant) whose instant has come, the earliest first; None when there is no more."""
        if not self._instants or self._instants[0] > now:
            return None
        at = self._instants[0]
        bucket = self._keys[at]
        key = bucket.pop()
        if not bucket:
            del self._keys[heapq.heappop(self._instants)]
        return key, at

    def is_due(self, now: datetime) -> bool:
        """Whether :meth:`take` would give something."""
        return bool(self._instants) and self._instants[0] <= now

    def next_at(self) -> datetime | None:
        """The earliest instant at which there is something to look at."""
        return self._instants[0] if self._instants else None

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self._keys.values())


class Timers:
    """The timers of one partition in one batch: rows and index in step."""

    def __init__(self, rows: Rows, index: TimerIndex) -> None:
        self._rows = rows
        self.index = index

    def get(self, key: str) -> Timer | None:
        """The timer of ``key``, if it has one."""
        row = self._rows.get(_row_key(key))
        return None if row is None else _timer(key, row)

    def set(self, key: str, at: datetime | None, payload: bytes = b"") -> None:
        """Put a timer, or move it; ``at`` may be past: then it is due at once. Raises TypeError for a naive ``at``."""
        ms = _WAITS if at is None else (at - _EPOCH) // _MS
        row_key, header = _row_key(key), _HEADER.pack(ms)
        before = self._rows.get(row_key)
        self._rows.put(row_key, header + payload)
        if at is not None and (before is None or not before.startswith(header)):
            self.index.add(key, _EPOCH + ms * _MS)  # else it is there: what is taken has no row

    def cancel(self, key: str) -> None:
        """Remove a timer; nothing happens when there is none."""
        if self._rows.get(_row_key(key)) is not None:
            self._rows.delete(_row_key(key))

    def scan(self, prefix: str) -> Iterator[Timer]:
        """The timers whose key begins with ``prefix``, in key order."""
        for key, row in self._rows.scan(_row_key(prefix)):
            yield _timer(key[len(PREFIX) :].decode(), row)

    def take(self, now: datetime) -> Timer | None:
        """The earliest due timer, whose row is removed; None when nothing is due at ``now``."""
        while (hint := self.index.take(now)) is not None:
            key, at = hint
            timer = self.get(key)
            if timer is None or timer.at != at:
                continue  # cancelled or moved since: where it is moved to, there is another entry
            self._rows.delete(_row_key(key))
            return timer
        return None


def rebuild(rows: Rows) -> TimerIndex:
    """The index of a partition from its rows (a full scan of the timers, about a microsecond each)."""
    index = TimerIndex()
    for key, row in rows.scan(PREFIX):
        (ms,) = _HEADER.unpack_from(row)
        if ms != _WAITS:
            index.add(key[len(PREFIX) :].decode(), _EPOCH + ms * _MS)
    return index


def _row_key(key: str) -> bytes:
    return PREFIX + key.encode()


def _timer(key: str, row: bytes) -> Timer:
    (ms,) = _HEADER.unpack_from(row)
    return Timer(key=key, at=None if ms == _WAITS else _EPOCH + ms * _MS, payload=row[_HEADER.size :])
