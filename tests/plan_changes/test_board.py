"""The board: counts per effective date and zone, and the words OK, AT RISK, LATE."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from streams.core.plan_change.board import SHOWN_FOR, Line, Word, entry, lines
from streams.core.plan_change.machine import Change, State
from tests.plan_changes.makers import DEADLINE, NOON, START, pending

CHANGE = pending()
MINUTE = timedelta(minutes=1)
#: Everything is released by then, and there is an hour left.
LATE_EVENING = DEADLINE - timedelta(hours=1)


def board(*changes: Change, now: datetime = NOON, **options: Any) -> list[Line]:
    return lines([found for one in changes if (found := entry(one)) is not None], now, **options)


def in_state(state: State, **fields: Any) -> Change:
    return replace(CHANGE, state=state, **fields)


def persisted(at: datetime, **fields: Any) -> Change:
    return in_state(State.COMPLETED, persisted_at=at, **fields)


def test_every_change_is_counted_once_in_the_state_that_it_has() -> None:
    """An effective one is no longer among the completed; one that ended without effect is nowhere."""
    done = persisted(LATE_EVENING, effective_at=DEADLINE)
    changes = [in_state(state) for state in State if state is not State.PERSISTED]

    [line] = board(*changes, done, persisted(LATE_EVENING))

    assert {stage.value: count for stage, count in line.stages.items() if count} == {
        "pending": 2, "started": 1, "executed": 1, "completed": 2, "effective": 1, "failed": 1, "held": 1,
    }  # fmt: skip  # ordered counts as pending


def test_lines_are_per_date_and_zone_the_nearest_deadline_first() -> None:
    """Two zones with one midnight are two lines."""
    tokyo = replace(CHANGE, zone="Asia/Tokyo", deadline_at=DEADLINE - timedelta(hours=8))
    paris = replace(CHANGE, zone="Europe/Paris")

    assert [(line.zone, line.count("pending")) for line in board(CHANGE, paris, tokyo, CHANGE)] == [
        ("Asia/Tokyo", 1), ("Europe/Berlin", 2), ("Europe/Paris", 1),
    ]  # fmt: skip


def test_a_quiet_afternoon_is_ok() -> None:
    """Nothing is due yet, so there is no estimate to be made."""
    [line] = board(CHANGE, now=NOON)

    assert (line.word, line.eta, line.margin, line.is_alarming) == (Word.OK, None, None, False)


def test_work_that_clears_in_time_is_ok_and_says_when() -> None:
    """Twenty commits in ten minutes, four to go."""
    done = [persisted(LATE_EVENING - MINUTE)] * 20
    left = [in_state(State.STARTED, release_at=LATE_EVENING - MINUTE)] * 4

    [line] = board(*done, *left, now=LATE_EVENING)

    assert (line.word, line.per_minute) == (Word.OK, 2.0)
    assert line.eta == LATE_EVENING + 2 * MINUTE
    assert line.margin == timedelta(minutes=58)


def test_work_that_does_not_clear_in_time_is_at_risk() -> None:
    """One commit per minute and an hour left, two hundred overdue."""
    done = [persisted(LATE_EVENING - MINUTE)] * 10
    left = [in_state(State.STARTED, release_at=START)] * 200

    [line] = board(*done, *left, now=LATE_EVENING)

    assert (line.word, line.reason, line.is_alarming) == (Word.AT_RISK, "too_slow", True)
    assert line.margin is not None
    assert line.margin < timedelta(0)


def test_work_of_nearer_deadlines_comes_first() -> None:
    """The rate is shared, so a later midnight waits for the earlier one."""
    later = replace(CHANGE, zone="Europe/London", deadline_at=DEADLINE + timedelta(hours=1))
    done = [persisted(LATE_EVENING - MINUTE)] * 10
    due: dict[str, Any] = {"state": State.STARTED, "release_at": LATE_EVENING - MINUTE}

    near, far = board(*done, *[replace(CHANGE, **due)] * 5, *[replace(later, **due)] * 5, now=LATE_EVENING)

    assert (near.eta, far.eta) == (LATE_EVENING + 5 * MINUTE, LATE_EVENING + 10 * MINUTE)


@pytest.mark.parametrize("state", [State.FAILED, State.HELD])
def test_what_waits_for_a_person_is_alarming(state: State) -> None:
    """Even where nothing else is wrong, and also after it has become effective."""
    [line] = board(in_state(state))
    [after] = board(in_state(state, persisted_at=START, effective_at=DEADLINE), now=DEADLINE + MINUTE)

    assert (line.word, line.is_alarming) == (Word.AT_RISK, True)
    assert (after.word, after.is_alarming) == (Word.OK, True)


def test_what_is_not_persisted_at_its_deadline_is_late() -> None:
    """Recorded by the billing store, or just not there."""
    [recorded] = board(in_state(State.STARTED, closed=True, missed=True), now=DEADLINE)
    [unknown] = board(CHANGE, now=DEADLINE + 2 * MINUTE)

    assert (recorded.word, recorded.missed) == (Word.LATE, 1)
    assert (unknown.word, unknown.missed) == (Word.LATE, 0)


def test_what_was_persisted_late_stays_late() -> None:
    """The bills were wrong in between; the night's report has to say it."""
    [line] = board(persisted(DEADLINE + MINUTE, missed=True, effective_at=DEADLINE + MINUTE), now=DEADLINE + 5 * MINUTE)

    assert (line.word, line.reason, line.missed) == (Word.LATE, "persisted_late", 1)


def test_a_change_rolled_from_a_missed_date_is_not_missed_at_the_new_one() -> None:
    """It is told apart, since its own row no longer says which date it missed."""
    [line] = board(in_state(State.PENDING, missed=True))

    assert (line.word, line.missed, line.rolled) == (Word.OK, 0, 1)


def test_a_silent_clock_puts_midnights_at_risk_whose_work_is_near() -> None:
    """Nothing starts without ticks; a midnight of next week can wait."""
    [near] = board(CHANGE, now=START - MINUTE, clock_silent_s=600.0)
    [far] = board(CHANGE, now=START - timedelta(days=7), clock_silent_s=600.0)

    assert (near.word, near.reason, far.word) == (Word.AT_RISK, "clock_silent", Word.OK)


def test_a_finished_night_leaves_the_board_and_an_unfinished_one_does_not() -> None:
    """The changelog keeps the last change of a service for ever."""
    done = persisted(LATE_EVENING, effective_at=DEADLINE)
    after = DEADLINE + SHOWN_FOR + MINUTE

    assert board(done, now=after) == []
    assert [line.count("effective") for line in board(done, now=after, shown_for=None)] == [1]
    assert [line.count("failed") for line in board(done, in_state(State.FAILED), now=after)] == [1]


def test_a_retroactive_change_is_not_late() -> None:
    """It was ordered after its date: there was no deadline that it could have kept. It stays until it is done."""
    after = DEADLINE + SHOWN_FOR + MINUTE
    [order] = board(in_state(State.STARTED, closed=True, finish_late=True), now=after)
    [failed] = board(in_state(State.FAILED, closed=True, finish_late=True), now=after)
    done = persisted(after, closed=True, finish_late=True, effective_at=after)

    assert (order.word, order.missed, order.count("started"), order.is_alarming) == (Word.OK, 0, 1, False)
    assert failed.is_alarming
    assert board(done, now=after) == []
    assert [line.word for line in board(done, now=after, shown_for=None)] == [Word.OK]
