"""When the watchdog raises the alarm for a deadline, when it says so again, and when it takes it back. Pure.

:func:`judge` looks at one deadline at one instant; :func:`follow` makes few notices of many judgements.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum

from streams.core import ids


class Level(IntEnum):
    """How bad it is; the names are what notices and tables show."""

    OK = 0
    AT_RISK = 1
    MISSED = 2

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The thresholds; each default names the false alarm, or the silence, that it prevents."""

    #: Work that was released this long ago and is not persisted is overdue. Less, and a healthy night, in which a
    #: change takes seconds and a restarted worker a minute, is behind all the time.
    overdue_after: timedelta = timedelta(minutes=5)
    #: Overdue work and not one commit for so long: it stands still. Less, and a restart of the database is an alarm;
    #: much more, and the night is over before somebody is awake.
    stalled_after: timedelta = timedelta(minutes=10)
    #: The rate of commits is taken over this time; over less, one large transaction looks like a night's speed.
    rate_window: timedelta = timedelta(minutes=10)
    #: The remaining work has to clear in the remaining time divided by this, since the rate of a loaded night falls.
    safety: float = 1.5
    #: Acknowledgements of commits just before the deadline are still on their way for so long after it.
    missed_after: timedelta = timedelta(minutes=1)
    #: No ticks, a scheduler that does not handle them, or no Kafka, in seconds of the machine's clock. Less, and a
    #: rebalance or a broker's restart is an alarm.
    silent_after_s: float = 120.0
    #: Silence matters only for deadlines whose first change starts within this time: by then it must be repaired.
    look_ahead: timedelta = timedelta(hours=2)
    #: An alarm ends after being out of danger for so long; without it a rate at the limit would send a notice a minute.
    clear_after: timedelta = timedelta(minutes=10)
    #: An alarm that nobody has ended is repeated: the first notice may have come to somebody asleep.
    repeat_at_risk: timedelta = timedelta(minutes=30)
    repeat_missed: timedelta = timedelta(hours=6)


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """What is known of all changes of one deadline.

    ``open``: accepted and not persisted (``stuck`` of them wait for a person); ``overdue``: open, and due for longer
    than :attr:`Limits.overdue_after`; ``ahead``: open with this deadline or an earlier one, all of which come first.
    ``missed``: recorded by the billing store, nothing persisted since. ``first_start_at`` and ``first_due_at`` are of
    the open ones, None without any.
    """

    deadline_at: datetime
    open: int = 0
    stuck: int = 0
    overdue: int = 0
    ahead: int = 0
    missed: int = 0
    persisted: int = 0
    late: int = 0
    ended: int = 0
    first_start_at: datetime | None = None
    first_due_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """How the system is, apart from any deadline.

    ``persisted`` commits in the last :attr:`Limits.rate_window` and ``persisted_lately`` in the last
    :attr:`Limits.stalled_after`, in business time. Seconds of the machine's clock: ``blind_s`` since this watchdog has
    read Kafka, ``clock_silent_s`` since business time moved, ``scheduler_silent_s`` since the scheduler has handled a
    tick although there were some.
    """

    persisted: int = 0
    persisted_lately: int = 0
    blind_s: float = 0.0
    clock_silent_s: float = 0.0
    scheduler_silent_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``reason`` is a short stable word ("" when all is well), ``detail`` for people. ``clears_at``: when the open
    work is done at the measured rate, None where there is no rate or no work."""

    level: Level
    reason: str = ""
    detail: str = ""
    clears_at: datetime | None = None


def judge(deadline: Deadline, pulse: Pulse, now: datetime, limits: Limits = DEFAULT_LIMITS) -> Verdict:
    """Whether the deadline is kept, in danger or missed, seen from ``now`` (business time)."""
    at = deadline.deadline_at
    if now >= at + limits.missed_after and deadline.open:
        return Verdict(
            level=Level.MISSED,
            reason="not_persisted",
            detail=f"the deadline has passed and nobody knows that {_changes(deadline.open)} would be persisted",
        )
    if deadline.missed:
        return Verdict(
            level=Level.MISSED,
            reason="recorded",
            detail=f"the billing store has recorded {_changes(deadline.missed)} as missed",
        )
    if not deadline.open:
        return Verdict(level=Level.OK)
    clears_at = _clears_at(deadline, pulse, now, limits)
    reason, detail = _danger(deadline, pulse, now, limits, clears_at) or ("", "")
    level = Level.AT_RISK if reason else Level.OK
    return Verdict(level=level, reason=reason, detail=detail, clears_at=clears_at)


def _danger(
    deadline: Deadline, pulse: Pulse, now: datetime, limits: Limits, clears_at: datetime | None
) -> tuple[str, str] | None:
    if deadline.stuck:
        return "stuck", f"{_changes(deadline.stuck)} failed and wait for a person"
    if deadline.overdue and deadline.first_due_at is not None:
        if not pulse.persisted_lately:
            return "stalled", (
                f"{_changes(deadline.overdue)} should be done by now, and nothing was persisted for "
                f"{limits.stalled_after}"
            )
        if clears_at is not None and clears_at - now > (deadline.deadline_at - now) / limits.safety:
            return "too_slow", (
                f"{_changes(deadline.ahead)} to go until this deadline, at {_per_minute(pulse, limits)} per minute"
            )
        # The rate is good, so others pass: some single ones do not move.
        if now >= deadline.first_due_at + (deadline.deadline_at - deadline.first_due_at) / 2:
            return "left_behind", f"{_changes(deadline.overdue)} should be done by now, while others are persisted"
    if deadline.first_start_at is not None and deadline.first_start_at <= now + limits.look_ahead:
        return _silence(pulse, limits)
    return None


def _silence(pulse: Pulse, limits: Limits) -> tuple[str, str] | None:
    for reason, seconds, what in (
        ("blind", pulse.blind_s, "the watchdog cannot read Kafka"),
        ("clock_silent", pulse.clock_silent_s, "no tick has come"),
        ("scheduler_silent", pulse.scheduler_silent_s, "the scheduler handles no ticks"),
    ):
        if seconds > limits.silent_after_s:
            return reason, f"{what} for {seconds:.0f} s, and work begins soon or should be under way"
    return None


def _clears_at(deadline: Deadline, pulse: Pulse, now: datetime, limits: Limits) -> datetime | None:
    if not pulse.persisted:
        return None
    try:
        return now + limits.rate_window * (deadline.ahead / pulse.persisted)
    except OverflowError:  # beyond the calendar is no estimate; too slow it is in any case
        return datetime.max.replace(tzinfo=now.tzinfo) - timedelta(days=1)


def _per_minute(pulse: Pulse, limits: Limits) -> str:
    return f"{pulse.persisted / (limits.rate_window / timedelta(minutes=1)):.1f}"


def _changes(number: int) -> str:
    return f"{number:,} change{'' if number == 1 else 's'}"


class NoticeKind(StrEnum):
    """What a notice says."""

    AT_RISK = "at_risk"
    MISSED = "missed"
    RECOVERED = "recovered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """What has been said about one deadline. ``said`` counts its notices; ``clear_since``: out of danger since then."""

    deadline_at: datetime
    level: Level = Level.OK
    said: int = 0
    said_at: datetime | None = None
    clear_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One message to people. ``notice_id`` follows from deadline, number and kind: sent again, it is the same one."""

    notice_id: str
    kind: NoticeKind
    repeated: bool


def follow(
    alarm: Alarm, verdict: Verdict, *, done: bool, now: datetime, limits: Limits = DEFAULT_LIMITS
) -> tuple[Alarm, Notice | None]:
    """The alarm after a verdict, and the notice if one is due. ``done``: nothing is open, so danger cannot come back.

    Worse is said at once, the same again only after a while, and better when it has lasted.
    """
    if verdict.level > alarm.level:
        return _say(alarm, verdict.level, NoticeKind(verdict.level.word), now)
    if verdict.level == Level.OK and alarm.level != Level.OK:
        since = alarm.clear_since or now
        if done or now - since >= limits.clear_after:
            return _say(alarm, Level.OK, NoticeKind.RECOVERED, now)
        return replace(alarm, clear_since=since), None
    if alarm.level != Level.OK:
        # A verdict below the alarm's level, but not well: a missed deadline stays missed until it is settled.
        alarm = replace(alarm, clear_since=None)
        pause = limits.repeat_missed if alarm.level is Level.MISSED else limits.repeat_at_risk
        if alarm.said_at is not None and now - alarm.said_at >= pause:
            return _say(alarm, alarm.level, NoticeKind(alarm.level.word), now, repeated=True)
    return alarm, None


def _say(
    alarm: Alarm, level: Level, kind: NoticeKind, now: datetime, *, repeated: bool = False
) -> tuple[Alarm, Notice]:
    said = alarm.said + 1
    notice_id = ids.derive("watchdog", ids.instant_text(alarm.deadline_at), str(said), kind)
    after = replace(alarm, level=level, said=said, said_at=now, clear_since=None)
    return after, Notice(notice_id=notice_id, kind=kind, repeated=repeated)
