"""What is remembered of one partition and of one group in it from look to look, and what a look says. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from streams.core.lag.rules import DEFAULT_LIMITS, Commit, Limits, Status, infer, judge
from streams.core.lag.time import EndHistory, time_lag
from streams.core.lag.window import Window

#: A group that had read everything so short a time ago has not stopped: ten looks of Burrow, at its ten seconds each.
RECENT_MS: Final = 100_000
#: Looks of which the lag is kept, for sparklines and the trend: ten minutes at ten seconds.
LOOKS: Final = 60
#: Long enough that one transaction of five hundred records is no trend.
TREND_MS: Final = 60_000


class Ends:
    """Where one partition starts and ends. ``end`` counts all records (the high watermark), ``readable`` stops in
    front of the first open transaction: nobody who reads committed records only can be further."""

    __slots__ = ("end", "epoch", "history", "readable", "start")

    def __init__(self) -> None:
        self.start = self.end = self.readable = 0
        self.history = EndHistory()
        self.epoch = 0

    def look(self, *, start: int, end: int, readable: int, at_ms: int) -> None:
        """Take what the broker says. An end that went back is another topic of the same name."""
        if end < (self.history.newest or 0):
            self.history = EndHistory()
            self.epoch += 1
        self.start, self.end, self.readable = start, end, min(readable, end)
        self.history.add(end, at_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstUnread:
    """The timestamp of the first record at or after an offset that is still there and may be read; ``at_ms`` is None
    when there is none, although offsets are left: marks of transactions, records that compaction or age removed."""

    at_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLag:
    """One partition of a group at one look.

    ``committed`` is None where the group has the partition and has committed nothing. ``lag`` counts offsets up to the
    end; ``time_lag_s`` is the age of the first unread record (``exact``) or interpolated, None where nobody can say.
    ``inferred``: judged without the times of commits. ``lags`` are those of the last looks, the newest last.
    """

    topic: str
    partition: int
    committed: int | None
    committed_at_ms: int | None
    start: int
    end: int
    lag: int
    time_lag_s: float | None
    exact: bool
    status: Status
    inferred: bool
    complete: float
    window: tuple[Commit, ...]
    lags: Sequence[int]


class Track:
    """One partition of one group. Tell it every commit (or what a question for the offset has found), then
    :meth:`remember` and :meth:`look`."""

    __slots__ = ("_epoch", "committed", "committed_at_ms", "inferred", "lags", "window")

    def __init__(self, *, inferred: bool = False) -> None:
        self.inferred = inferred
        self.window = Window()
        self.committed: int | None = None
        self.committed_at_ms: int | None = None
        self.lags = array("q")
        self._epoch = -1

    def commit(self, offset: int, *, order: int, at_ms: int, ends: Ends) -> None:
        """One commit (or, inferred, one answer); the partition's end at that moment is taken from ``ends``."""
        if self._epoch != ends.epoch:
            self.window, self._epoch = Window(), ends.epoch
        self.window.add(offset, order=order, at_ms=at_ms, end=ends.history.end_at(at_ms))
        if self.committed_at_ms is None or at_ms >= self.committed_at_ms:
            self.committed, self.committed_at_ms = offset, at_ms

    def remember(self, ends: Ends) -> None:
        """Keep the lag of this look for the sparkline; once for each look."""
        self.lags.append(self.lag(ends))
        if len(self.lags) > LOOKS:
            del self.lags[0]

    def lag(self, ends: Ends) -> int:
        """Offsets up to the end. A topic that was deleted and made again can end before the committed one."""
        return max(0, ends.end - (ends.start if self.committed is None else self.committed))

    def unread(self, ends: Ends) -> int:
        """Offsets that could hold something to read."""
        return max(0, ends.readable - (ends.start if self.committed is None else self.committed))

    def look(
        self,
        topic: str,
        partition: int,
        ends: Ends,
        *,
        now_ms: int,
        first: FirstUnread | None = None,
        members: int = 0,
        limits: Limits = DEFAULT_LIMITS,
    ) -> PartitionLag:
        """What is to be said now. ``first``: the first unread record, None where nobody has read it."""
        committed = ends.start if self.committed is None else self.committed
        unread = 0 if first is not None and first.at_ms is None else self.unread(ends)
        waited_ms = self._waited_ms(ends, committed, now_ms, first)
        if self.inferred:
            status = infer(self.window.commits, lag=unread, members=members, waited_ms=waited_ms, limits=limits)
        else:
            status = judge(
                self.window.commits,
                lag=unread,
                now_ms=now_ms,
                recent_ends=ends.history.since(now_ms - RECENT_MS),
                waited_ms=waited_ms,
                limits=limits,
            )
        return PartitionLag(
            topic=topic,
            partition=partition,
            committed=self.committed,
            committed_at_ms=None if self.inferred else self.committed_at_ms,
            start=ends.start,
            end=ends.end,
            lag=self.lag(ends),
            time_lag_s=_time_lag_s(ends, committed, now_ms, unread, first),
            exact=unread == 0 or first is not None,
            status=status,
            inferred=self.inferred,
            complete=self.window.complete,
            window=tuple(self.window.commits),
            lags=self.lags[:],
        )

    @staticmethod
    def _waited_ms(ends: Ends, committed: int, now_ms: int, first: FirstUnread | None) -> int | None:
        """The longest that is certain. A record may carry any timestamp, one of tomorrow too, so what was seen here
        counts as well; but that something was there at the very first look says nothing about its age."""
        seen = ends.history.first_beyond(committed)
        known = [now_ms - first.at_ms] if first is not None and first.at_ms is not None else []
        if seen is not None and (known or not ends.history.is_first(seen)):
            known.append(now_ms - int(seen))
        return max(known, default=None)


def _time_lag_s(ends: Ends, committed: int, now_ms: int, unread: int, first: FirstUnread | None) -> float | None:
    if unread == 0:
        return 0.0
    if first is not None and first.at_ms is not None:
        return max(0.0, (now_ms - first.at_ms) / 1000)
    lag_ms = time_lag(ends.history, committed, now_ms)
    return None if lag_ms is None else lag_ms / 1000


def trend(lags: Sequence[int], times_ms: Sequence[int]) -> float | None:
    """Records per second by which the lag grows (negative: falls), over the looks of :data:`TREND_MS`; None at first.

    ``times_ms`` are the instants of the newest looks, at least as many as ``lags``.
    """
    times = times_ms[-len(lags) :] if lags else ()
    recent = [(at, lag) for at, lag in zip(times, lags, strict=True) if at >= times[-1] - TREND_MS]
    if len(recent) < 2:
        return None
    return (recent[-1][1] - recent[0][1]) * 1000 / (recent[-1][0] - recent[0][0])
