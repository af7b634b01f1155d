"""Counts the plan changes per effective date and zone, and says how each midnight is doing. Pure.

What is a danger is decided by :mod:`streams.core.watch_rules`, so that the board and the watchdog say the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from streams.core.plan_change.machine import Change, State
from streams.core.watch_rules import DEFAULT_LIMITS, Deadline, Level, Limits, Pulse, judge

# A night leaves the board after so long, unless something of it is not persisted or waits for a person.
SHOWN_FOR = timedelta(hours=24)


class Stage(StrEnum):
    """Where a change is; each is in exactly one."""

    PENDING = "pending"
    STARTED = "started"
    EXECUTED = "executed"
    PERSISTED = "persisted"
    COMPLETED = "completed"
    EFFECTIVE = "effective"
    FAILED = "failed"
    HELD = "held"


class Word(StrEnum):
    """How a midnight is doing, for people."""

    OK = "OK"
    AT_RISK = "AT RISK"
    LATE = "LATE"


_OF_STATE = {
    State.ORDERED: Stage.PENDING,
    State.PENDING: Stage.PENDING,
    State.STARTED: Stage.STARTED,
    State.EXECUTED: Stage.EXECUTED,
    State.PERSISTED: Stage.PERSISTED,
    State.COMPLETED: Stage.COMPLETED,
    State.FAILED: Stage.FAILED,
    State.HELD: Stage.HELD,
}
_WAITS_FOR_A_PERSON = (Stage.FAILED, Stage.HELD)
_WORDS = {Level.OK: Word.OK, Level.AT_RISK: Word.AT_RISK, Level.MISSED: Word.LATE}


class Entry(NamedTuple):
    """What the board keeps of a change: a tuple, since there are as many as services that ever had one.

    ``missed``: not persisted when this deadline passed; ``rolled``: here because it missed an earlier one;
    ``retroactive``: ordered after its date, so there never was a deadline that could be kept.
    """

    effective_date: date
    zone: str
    stage: Stage
    deadline_at: datetime
    start_at: datetime
    due_at: datetime
    persisted_at: datetime | None
    missed: bool
    rolled: bool
    retroactive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One effective date in one zone.

    ``missed`` of them were not persisted at this deadline, ``rolled`` have missed an earlier one. ``per_minute``
    is the rate of commits of the whole system, ``eta`` when at this rate all that comes first and this is done (None
    without work or rate), ``margin`` what is then left. ``reason`` is a code of the watchdog, ``detail`` for people.
    """

    effective_date: date
    zone: str
    deadline_at: datetime
    stages: Mapping[Stage, int]
    missed: int
    rolled: int
    per_minute: float
    eta: datetime | None
    word: Word
    reason: str
    detail: str

    def count(self, stage: str) -> int:
        """How many are there, by the name of a :class:`Stage`."""
        return self.stages.get(Stage(stage), 0)

    @property
    def margin(self) -> timedelta | None:
        """Between the estimate and the deadline; negative if it comes too late."""
        return None if self.eta is None else self.deadline_at - self.eta

    @property
    def is_alarming(self) -> bool:
        """Whether a person has something to do."""
        return self.word is not Word.OK or any(self.stages.get(stage) for stage in _WAITS_FOR_A_PERSON)


def entry(change: Change) -> Entry | None:
    """What the board keeps of ``change``; None for one that has ended without effect."""
    stage = _OF_STATE.get(change.state)
    if stage is None:
        return None
    if change.effective_at is not None and stage not in _WAITS_FOR_A_PERSON:
        stage = Stage.EFFECTIVE
    late = change.persisted_at is not None and change.persisted_at >= change.deadline_at
    missed_here = change.missed and (change.closed or late)
    return Entry(
        effective_date=change.effective_date,
        zone=change.zone,
        stage=stage,
        deadline_at=change.deadline_at,
        start_at=change.start_at,
        due_at=change.retry_at or change.release_at,
        persisted_at=change.persisted_at,
        missed=missed_here,
        rolled=change.missed and not missed_here,
        retroactive=change.closed and not change.missed,
    )


def lines(
    entries: Iterable[Entry],
    now: datetime,
    *,
    clock_silent_s: float = 0.0,
    shown_for: timedelta | None = SHOWN_FOR,
    limits: Limits = DEFAULT_LIMITS,
) -> list[Line]:
    """The board at business time ``now``, the nearest deadline first.

    ``shown_for``: nights that are finished disappear so long after their deadline, None for never.
    """
    groups: dict[tuple[datetime, date, str], _Group] = defaultdict(_Group)
    persisted = lately = 0
    overdue_since = now - limits.overdue_after
    for one in entries:
        groups[one.deadline_at, one.effective_date, one.zone].add(one, overdue_since)
        if one.persisted_at is not None and one.persisted_at <= now:
            persisted += one.persisted_at > now - limits.rate_window
            lately += one.persisted_at > now - limits.stalled_after
    pulse = Pulse(persisted=persisted, persisted_lately=lately, clock_silent_s=clock_silent_s)
    open_until: Counter[datetime] = Counter()
    for (deadline_at, _, _), group in groups.items():
        open_until[deadline_at] += group.open
    ahead, before = {}, 0
    for deadline_at in sorted(open_until):
        before += open_until[deadline_at]
        ahead[deadline_at] = before
    return [
        _line(key, group, ahead[key[0]], pulse, now, limits)
        for key, group in sorted(groups.items(), key=lambda pair: pair[0])
        if shown_for is None or key[0] >= now - shown_for or group.is_unfinished
    ]


class _Group:
    """Counts of one line while they are made."""

    def __init__(self) -> None:
        self.stages: Counter[Stage] = Counter()
        self.open = self.retroactive = self.stuck = self.overdue = self.missed = self.rolled = self.recorded = (
            self.late
        ) = 0
        self.first_start_at: datetime | None = None
        self.first_due_at: datetime | None = None

    def add(self, one: Entry, overdue_since: datetime) -> None:
        self.stages[one.stage] += 1
        self.missed += one.missed
        self.rolled += one.rolled
        if one.persisted_at is not None:
            self.late += one.missed
            return
        if one.retroactive:
            self.retroactive += 1
            return
        self.open += 1
        self.recorded += one.missed
        if one.stage in _WAITS_FOR_A_PERSON:
            self.stuck += 1
            return
        self.overdue += one.due_at < overdue_since
        self.first_start_at = _earlier(self.first_start_at, one.start_at)
        self.first_due_at = _earlier(self.first_due_at, one.due_at)

    @property
    def is_unfinished(self) -> bool:
        """Whether something is still to be persisted, or waits for a person."""
        return self.open + self.retroactive > 0 or any(self.stages[stage] for stage in _WAITS_FOR_A_PERSON)


def _line(
    key: tuple[datetime, date, str], group: _Group, ahead: int, pulse: Pulse, now: datetime, limits: Limits
) -> Line:
    deadline_at, effective_date, zone = key
    deadline = Deadline(
        deadline_at=deadline_at,
        open=group.open,
        stuck=group.stuck,
        overdue=group.overdue,
        ahead=ahead,
        missed=group.recorded,
        first_start_at=group.first_start_at,
        first_due_at=group.first_due_at,
    )
    verdict = judge(deadline, pulse, now, limits)
    word, reason, detail = _WORDS[verdict.level], verdict.reason, verdict.detail
    if word is Word.OK and group.late:
        word, reason, detail = Word.LATE, "persisted_late", f"{group.late:,} persisted after the deadline"
    return Line(
        effective_date=effective_date,
        zone=zone,
        deadline_at=deadline_at,
        stages=group.stages,
        missed=group.missed,
        rolled=group.rolled,
        per_minute=pulse.persisted / (limits.rate_window / timedelta(minutes=1)),
        # Before anything is due there is a rate, of other nights, but nothing that it could be applied to.
        eta=verdict.clears_at if group.first_due_at is not None and group.first_due_at <= now else None,
        word=word,
        reason=reason,
        detail=detail,
    )


def _earlier(known: datetime | None, other: datetime) -> datetime:
    return other if known is None or other < known else known
