"""Whether a consumer group is well, from its commits and the ends of its partitions. Pure.

The rules and their order are Burrow's. A partition is looked at only while more than ``allowed_lag`` records wait:

1. STOP: the last commit is longer ago than the whole window of commits lasted, unless the partition's end was still at
   or before that commit a moment ago;
2. REWIND: a commit went back, and none came up again to where it was;
3. only if every commit in the window had records behind it: STALL (commits do not move), WARN (lag never falls).

What these rules get wrong alone is put right by evidence that Burrow does not have: how long the oldest unread record
has been waiting (:attr:`Limits.patience_ms`), and that few commits are no rhythm (:attr:`Limits.enough`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Final, NamedTuple


class Status(IntEnum):
    """Burrow's words and numbers; of two, the greater one is the worse. ERR is of groups only."""

    NOTFOUND = 0
    OK = 1
    WARN = 2
    ERR = 3
    STOP = 4
    STALL = 5
    REWIND = 6


class Commit(NamedTuple):
    """One commit of a window. ``order`` is any number that grows from commit to commit, ``at_ms`` Unix milliseconds;
    ``lag`` is what was unread at that moment, None where nobody knows any more."""

    offset: int
    order: int
    at_ms: int
    lag: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The thresholds; each default names the false alarm, or the silence, that it prevents."""

    #: Records that may wait at any time.
    allowed_lag: int = 0
    #: Nobody is harmed by a record that waits for less. Without it a group on a topic with one record per hour is in
    #: alarm whenever somebody looks between a record and its commit.
    patience_ms: int = 60_000
    #: Fewer commits are no rhythm: the window of a single commit lasts no time at all, so it would be STOP at once.
    enough: int = 3
    #: What the window of so few commits counts as, at the least: a batch of ten minutes is not unusual.
    young_ms: int = 600_000


DEFAULT_LIMITS: Final = Limits()


def judge(
    window: Sequence[Commit],
    *,
    lag: int,
    now_ms: int,
    recent_ends: Iterable[int] = (),
    waited_ms: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Status:
    """The state of one partition. ``recent_ends``: its end offsets of the last minutes, as they were stored;
    ``waited_ms``: how long the oldest unread record has been waiting, None where nobody knows."""
    if not window or not _matters(lag, waited_ms, limits):
        return Status.OK
    if stopped(window, now_ms, limits) and not recently_caught_up(window, recent_ends):
        return Status.STOP
    return _moving(window, limits)


def infer(
    window: Sequence[Commit],
    *,
    lag: int,
    members: int,
    waited_ms: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Status:
    """The same from offsets that were only asked for, so that ``window`` has the times of the questions: STOP when the
    group has no members and does not move all the same (a consumer without a group commits too)."""
    if not window or not _matters(lag, waited_ms, limits):
        return Status.OK
    if members == 0 and stalled(window):
        return Status.STOP
    if len(window) < limits.enough or window[-1].at_ms - window[0].at_ms < limits.patience_ms:
        return Status.OK
    return _moving(window, limits)


def _matters(lag: int, waited_ms: int | None, limits: Limits) -> bool:
    return lag > limits.allowed_lag and (waited_ms is None or waited_ms >= limits.patience_ms)


def _moving(window: Sequence[Commit], limits: Limits) -> Status:
    if rewound(window):
        return Status.REWIND
    if len(window) > 1 and always_behind(window, limits.allowed_lag):
        if stalled(window):
            return Status.STALL
        if never_falls(window):
            return Status.WARN
    return Status.OK


def stopped(window: Sequence[Commit], now_ms: int, limits: Limits = DEFAULT_LIMITS) -> bool:
    """Whether the last commit is longer ago than the window lasted."""
    lasted = window[-1].at_ms - window[0].at_ms
    if len(window) < limits.enough:
        lasted = max(lasted, limits.young_ms)
    return now_ms - window[-1].at_ms > lasted


def recently_caught_up(window: Sequence[Commit], recent_ends: Iterable[int]) -> bool:
    """Whether nothing was unread a moment ago, so that what is unread now has only just come."""
    return any(end <= window[-1].offset for end in recent_ends)


def first_rewind(window: Sequence[Commit]) -> int:
    """The index of the first commit that went back, -1 if none did."""
    return next((at for at in range(1, len(window)) if window[at].offset < window[at - 1].offset), -1)


def rewound(window: Sequence[Commit]) -> bool:
    """Whether a commit went back and none came up again to where it was: the last one is not the highest then."""
    return window[-1].offset < max(one.offset for one in window)


def always_behind(window: Iterable[Commit], allowed_lag: int = 0) -> bool:
    """Whether no commit left at most ``allowed_lag`` records unread. Nobody knows: not a single lag was recorded."""
    lags = [one.lag for one in window if one.lag is not None]
    return len(lags) > 1 and all(lag > allowed_lag for lag in lags)


def stalled(window: Sequence[Commit]) -> bool:
    """Whether every commit is of the same offset."""
    return all(one.offset == window[0].offset for one in window)


def never_falls(window: Iterable[Commit]) -> bool:
    """Whether no commit left less unread than the one before it."""
    lags = [one.lag for one in window if one.lag is not None]
    return all(after >= before for before, after in pairwise(lags))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What the roll-up needs of one partition; ``complete`` is the part of the window that is filled, 0 to 1."""

    status: Status
    lag: int
    complete: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupVerdict:
    """A group as the sum of its partitions. ``status``: OK, WARN or ERR; ``worst``: the worst word of a partition;
    ``complete``: the part of the partitions whose window is full; ``max_lag_at``: the index of the one furthest behind,
    None without any."""

    status: Status
    worst: Status
    complete: float
    total_lag: int
    not_ok: int
    max_lag_at: int | None


def roll_up(partitions: Sequence[Judged], minimum_complete: float = 0.0) -> GroupVerdict:
    """The worst of the partitions counts; one whose window is filled to less than ``minimum_complete`` does not."""
    counted = [Status.OK if one.complete < minimum_complete else one.status for one in partitions]
    worst = max(counted, default=Status.OK)
    full = sum(one.complete >= 1.0 for one in partitions)
    return GroupVerdict(
        status=worst if worst <= Status.WARN else Status.ERR,
        worst=worst,
        complete=full / len(partitions) if partitions else 0.0,
        total_lag=sum(one.lag for one in partitions),
        not_ok=sum(status is not Status.OK for status in counted),
        max_lag_at=max(range(len(partitions)), key=lambda at: partitions[at].lag, default=None),
    )
