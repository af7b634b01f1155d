"""When the alarm is raised, repeated and taken back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.watch_rules import Alarm, Deadline, Level, NoticeKind, Pulse, Verdict, follow, judge

AT = datetime(2018, 11, 4, 3, tzinfo=UTC)
START = AT - timedelta(hours=6)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
WORKING = Pulse(persisted=1_000, persisted_lately=1_000)
OK, RISK, MISSED = (Verdict(level=level) for level in Level)


def a_deadline(**fields: object) -> Deadline:
    given: dict[str, object] = {
        "deadline_at": AT, "open": 100, "ahead": 100, "first_start_at": START, "first_due_at": START
    }  # fmt: skip
    return Deadline(**{**given, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("deadline", "pulse", "now", "level", "reason"),
    [
        (a_deadline(), Pulse(), START - 3 * HOUR, Level.OK, ""),
        (a_deadline(), WORKING, START + HOUR, Level.OK, ""),
        (a_deadline(), Pulse(), START + HOUR, Level.OK, ""),  # nothing overdue: the spread has not come to them
        (a_deadline(overdue=10), Pulse(), START + HOUR, Level.AT_RISK, "stalled"),
        (a_deadline(overdue=10), WORKING, START + HOUR, Level.OK, ""),
        (a_deadline(overdue=10, ahead=50_000), WORKING, START + HOUR, Level.AT_RISK, "too_slow"),
        (a_deadline(overdue=10, ahead=19_000), WORKING, START + HOUR, Level.OK, ""),  # 190 of 300 minutes
        (a_deadline(overdue=10, ahead=21_000), WORKING, START + HOUR, Level.AT_RISK, "too_slow"),  # 210 × 1.5 > 300
        (a_deadline(overdue=1), WORKING, START + 3 * HOUR, Level.AT_RISK, "left_behind"),
        (a_deadline(stuck=1), WORKING, START + HOUR, Level.AT_RISK, "stuck"),
        (a_deadline(), Pulse(scheduler_silent_s=121), START - HOUR, Level.AT_RISK, "scheduler_silent"),
        (a_deadline(), Pulse(clock_silent_s=121), START - HOUR, Level.AT_RISK, "clock_silent"),
        (a_deadline(), Pulse(blind_s=121), START - HOUR, Level.AT_RISK, "blind"),
        (a_deadline(), Pulse(scheduler_silent_s=121), START - 3 * HOUR, Level.OK, ""),  # time enough
        (a_deadline(), Pulse(blind_s=119), START, Level.OK, ""),
        (a_deadline(), WORKING, AT, Level.OK, ""),  # acknowledgements may be on their way
        (a_deadline(), WORKING, AT + MINUTE, Level.MISSED, "not_persisted"),
        (a_deadline(open=0, missed=1), WORKING, AT + MINUTE, Level.MISSED, "recorded"),
        (a_deadline(open=0, persisted=100), Pulse(), AT + HOUR, Level.OK, ""),
        (a_deadline(open=0, late=100), Pulse(), AT + HOUR, Level.OK, ""),
    ],
)
def test_a_deadline_is_judged(deadline: Deadline, pulse: Pulse, now: datetime, level: Level, reason: str) -> None:
    """One row per rule and per false alarm that it must not raise."""
    verdict = judge(deadline, pulse, now)

    assert (verdict.level, verdict.reason) == (level, reason)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 1e6), st.integers(-600, 600))
def test_every_judgement_has_an_answer(opened: int, overdue: int, rate: int, silent: float, minutes: int) -> None:
    """However absurd the numbers: the watchdog itself must not die of them. Open work after the deadline is missed."""
    deadline = a_deadline(open=opened, overdue=min(opened, overdue), ahead=10**9)
    verdict = judge(deadline, Pulse(persisted=rate, persisted_lately=rate, blind_s=silent), AT + minutes * MINUTE)

    assert (verdict.level is Level.MISSED) == (opened > 0 and minutes >= 1)


def test_each_worsening_is_said_once_and_at_once() -> None:
    """at_risk, then missed: two notices, with different ids."""
    alarm, said = Alarm(deadline_at=AT), []
    for minutes, verdict in enumerate([OK, RISK, RISK, MISSED, MISSED]):
        alarm, notice = follow(alarm, verdict, done=False, now=START + minutes * MINUTE)
        said += [] if notice is None else [notice]

    assert [notice.kind for notice in said] == [NoticeKind.AT_RISK, NoticeKind.MISSED]
    assert len({notice.notice_id for notice in said}) == 2


def test_danger_that_comes_and_goes_is_one_alarm() -> None:
    """A rate at the limit: recovered is said only after ten minutes without danger."""
    alarm, kinds = Alarm(deadline_at=AT), []
    for minute in range(25):
        verdict = RISK if minute < 10 and minute % 2 == 0 else OK
        alarm, notice = follow(alarm, verdict, done=False, now=START + minute * MINUTE)
        kinds += [] if notice is None else [(minute, notice.kind)]

    assert kinds == [(0, NoticeKind.AT_RISK), (19, NoticeKind.RECOVERED)]


def test_finished_work_recovers_at_once() -> None:
    """Nothing is open: the danger cannot come back."""
    alarm, _ = follow(Alarm(deadline_at=AT), RISK, done=False, now=START)
    alarm, notice = follow(alarm, OK, done=True, now=START + MINUTE)

    assert notice is not None
    assert notice.kind is NoticeKind.RECOVERED


def test_an_alarm_that_nobody_ends_is_repeated() -> None:
    """Every half hour while there is still time, and it says that it is a repetition."""
    alarm, repeats = Alarm(deadline_at=AT), []
    for minute in range(61):
        alarm, notice = follow(alarm, RISK, done=False, now=START + minute * MINUTE)
        repeats += [] if notice is None else [(minute, notice.repeated)]

    assert repeats == [(0, False), (30, True), (60, True)]


def test_the_same_history_gives_the_same_notice_ids() -> None:
    """A receiver can drop what a watchdog says again after a crash, or what two of them say."""
    first = follow(Alarm(deadline_at=AT), RISK, done=False, now=START)[1]
    second = follow(Alarm(deadline_at=AT), RISK, done=False, now=START + MINUTE)[1]

    assert first is not None
    assert second is not None
    assert first.notice_id == second.notice_id
