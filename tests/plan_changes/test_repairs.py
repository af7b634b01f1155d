"""What a person may decide about a change that waits for one, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from streams.core.plan_change.due import ALL_ROOM
from streams.core.plan_change.machine import (
    Acknowledged,
    Change,
    ChangeRepaired,
    ExecutionFinished,
    RaiseFinding,
    SendSettlement,
    State,
    Step,
    TimePassed,
)
from streams.core.plan_change.matrix import DateRule, LatePolicy, MissedPolicy
from streams.core.plan_change.messages import (
    AcknowledgementKind,
    CommandStep,
    ExecutionVerdict,
    RequestKind,
    Resolution,
    SettlementKind,
)
from streams.core.plan_change.progress import OVERDUE
from streams.core.plan_change.step import step
from streams.core.plan_change.told import finding
from tests.plan_changes.makers import (
    DEADLINE,
    NO_HOOKS,
    NOON,
    START,
    a_request,
    acknowledgement,
    an_element,
    executed,
    hooked,
    known,
    ordered,
    pending,
)
from tests.plan_changes.test_machine import commands, events, replies, settlements

TICK = TimePassed(room=ALL_ROOM)
HOUR = timedelta(hours=1)


def retry(**changed: Any) -> ChangeRepaired:
    return ChangeRepaired(validated=known(a_request("T1", kind=RequestKind.RETRY, element_key=None, **changed)))


def resolve(resolution: Resolution | None, **changed: Any) -> ChangeRepaired:
    request = a_request("T1", kind=RequestKind.RESOLVE, element_key=None, resolution=resolution, **changed)
    return ChangeRepaired(validated=known(request))


def after(decided: Step) -> Change:
    assert decided.change is not None
    return decided.change


def aborted(**changed: Any) -> Change:
    """A change whose PRIOR hook said no."""
    released = step(pending(**changed), TICK, START + 3 * HOUR, NO_HOOKS)
    [command] = commands(released)
    result = replace(executed(command), verdict=ExecutionVerdict.ABORTED, reason="no_credit", sealed=None)
    return after(step(released.change, ExecutionFinished(result=result), command.sent_at, NO_HOOKS))


def held() -> Change:
    """A change that was started, missed its deadline, and waits for a person."""
    started = after(step(pending(missed_policy=MissedPolicy.HOLD), TICK, START + 3 * HOUR, NO_HOOKS))
    closed = after(step(started, TICK, DEADLINE, NO_HOOKS))
    fact = Acknowledged(acknowledgement=acknowledgement(closed, AcknowledgementKind.MISSED, DEADLINE))
    return after(step(closed, fact, DEADLINE, NO_HOOKS))


def test_a_retry_takes_up_the_step_that_failed() -> None:
    """A new attempt, so a new command: the executor has recorded the answer to the old one."""
    change = aborted()
    assert (change.state, change.failed_in, change.reason) == (State.FAILED, CommandStep.EXECUTE, "no_credit")

    decided = step(change, retry(), START + 4 * HOUR, NO_HOOKS)

    assert [reply.accepted for reply in replies(decided)] == [True]
    assert (after(decided).state, after(decided).attempt, after(decided).reason) == (State.STARTED, 2, None)
    [command] = commands(step(decided.change, TICK, START + 4 * HOUR, NO_HOOKS))
    assert (command.step, command.attempt) == (CommandStep.EXECUTE, 2)


def test_a_retry_of_post_work_leaves_the_outcome_alone() -> None:
    """What was persisted is true; only its post work is done again."""
    rules = hooked("RATEPLAN.CHANGE.POST")
    released = step(pending(), TICK, START + 3 * HOUR, rules)
    [command] = commands(released)
    sealed = after(step(released.change, ExecutionFinished(result=executed(command)), command.sent_at, rules))
    fact = Acknowledged(acknowledgement=acknowledgement(sealed, AcknowledgementKind.PERSISTED, command.sent_at))
    asked = step(sealed, fact, command.sent_at, rules)
    [post] = commands(asked)
    no = replace(executed(post), verdict=ExecutionVerdict.ABORTED, reason="crm_down")
    failed = after(step(asked.change, ExecutionFinished(result=no), command.sent_at, rules))
    assert (failed.state, failed.failed_in) == (State.FAILED, CommandStep.POST)

    decided = step(failed, retry(), START + 4 * HOUR, rules)

    assert after(decided).state is State.PERSISTED
    assert after(decided).persisted_at == command.sent_at
    assert [(again.step, again.attempt) for again in commands(decided)] == [(CommandStep.POST, 2)]


@pytest.mark.parametrize(
    ("change", "fact", "at", "reason"),
    [
        (None, retry(), START, "nothing_to_repair"),
        (pending(), retry(), START, "nothing_to_repair"),
        (pending(), resolve(Resolution.ABANDON), START, "nothing_to_repair"),
        (aborted(), retry(expected_revision=7), START, "revision_mismatch"),
        (aborted(), retry(account_id="A2"), START, "service_of_another_account"),
        (held(), resolve(Resolution.ABANDON, account_id="A2"), START, "service_of_another_account"),
        (aborted(missed_policy=MissedPolicy.HOLD), retry(), DEADLINE, "deadline_passed"),
        (aborted(), resolve(None), START, "resolution_missing"),
        (held(), retry(), DEADLINE, "resolution_needed"),
    ],
)
def test_what_cannot_be_repaired(change: Change | None, fact: ChangeRepaired, at: Any, reason: str) -> None:
    """The reply says why; nothing changes."""
    decided = step(change, fact, at, NO_HOOKS)

    assert [(reply.accepted, reply.reasons) for reply in replies(decided)] == [(False, (reason,))]
    assert decided.change == change
    assert events(decided.effects) == []


def test_what_was_persisted_cannot_be_given_up() -> None:
    """Not abandoned, not rolled, not finished a second time."""
    change = replace(aborted(), persisted_at=START + 3 * HOUR, failed_in=CommandStep.POST)

    for resolution in Resolution:
        decided = step(change, resolve(resolution), START + 4 * HOUR, NO_HOOKS)
        assert [reply.reasons for reply in replies(decided)] == [("already_persisted",)]


def test_a_held_change_is_finished_late() -> None:
    """As a new revision, since the store refuses late outcomes of the closed one; then comes the request to re-rate."""
    change = held()
    later = DEADLINE + HOUR
    resolved = step(change, resolve(Resolution.FINISH_LATE), later, NO_HOOKS)
    assert (after(resolved).state, after(resolved).revision) == (State.STARTED, 2)
    assert commands(resolved) == []

    asked = step(resolved.change, TICK, later, NO_HOOKS)
    [command] = commands(asked)
    assert command.effective_from == DEADLINE
    sealed = after(step(asked.change, ExecutionFinished(result=executed(command)), later, NO_HOOKS))
    fact = Acknowledged(acknowledgement=acknowledgement(sealed, AcknowledgementKind.PERSISTED, later + HOUR))
    done = step(sealed, fact, later + HOUR, NO_HOOKS)

    assert events(done.effects) == ["rerate_requested", "persisted", "completed"]
    [rerate] = [one.finding for one in done.effects if isinstance(one, RaiseFinding) and "rerate" in one.finding.type]
    assert (rerate.facts["rerate_from"], rerate.facts["rerate_to"]) == (DEADLINE, later + HOUR)
    assert settlements(step(done.change, TICK, later + HOUR, NO_HOOKS)) == [SettlementKind.RELEASE]


def test_a_change_that_may_be_finished_late_is_not_told_as_missed_twice() -> None:
    """A person allows it before the deadline; the store then records it as missed, once, and takes it late."""
    resolved = after(step(aborted(missed_policy=MissedPolicy.HOLD), resolve(Resolution.FINISH_LATE), START, NO_HOOKS))
    closing = step(resolved, TICK, DEADLINE, NO_HOOKS)
    [settlement] = [one.settlement for one in closing.effects if hasattr(one, "settlement")]
    assert settlement.accept_late
    fact = Acknowledged(acknowledgement=acknowledgement(after(closing), AcknowledgementKind.MISSED, DEADLINE))
    missed = step(closing.change, fact, DEADLINE, NO_HOOKS)
    assert events(missed.effects) == ["missed"]
    assert after(missed).state is State.STARTED

    late = Acknowledged(
        acknowledgement=acknowledgement(after(missed), AcknowledgementKind.PERSISTED, DEADLINE + OVERDUE)
    )
    assert events(step(missed.change, late, DEADLINE + OVERDUE, NO_HOOKS).effects) == ["rerate_requested"]


def test_a_held_change_is_rolled() -> None:
    """To the next boundary after its date that can still be reached, as a new revision."""
    rolled = step(held(), resolve(Resolution.ROLL), DEADLINE + 30 * HOUR, NO_HOOKS)

    assert (after(rolled).state, after(rolled).revision) == (State.PENDING, 2)
    assert after(rolled).effective_date == date(2018, 11, 6)
    assert [(reply.accepted, reply.revision) for reply in replies(rolled)] == [(True, 2)]


def test_nothing_rolls_over_the_end_of_the_calendar() -> None:
    """There is no later boundary: the change goes on waiting, and the reply says why."""
    change = replace(held(), effective_date=date.max, element=replace(held().element, date_rule=DateRule.DATE_GIVEN))

    decided = step(change, resolve(Resolution.ROLL), DEADLINE, NO_HOOKS)

    assert [reply.reasons for reply in replies(decided)] == [("no_later_boundary",)]
    assert decided.change == change


def test_an_outcome_that_the_store_refused_late_comes_back_to_a_person() -> None:
    """Nobody acknowledges what became a dead letter: the store is asked, and says that it has nothing."""
    resolved = step(held(), resolve(Resolution.FINISH_LATE), DEADLINE + HOUR, NO_HOOKS)
    asked = step(resolved.change, TICK, DEADLINE + HOUR, NO_HOOKS)
    [command] = commands(asked)
    sealed = after(step(asked.change, ExecutionFinished(result=executed(command)), DEADLINE + HOUR, NO_HOOKS))
    assert settlements(step(sealed, TICK, DEADLINE + HOUR, NO_HOOKS)) == []

    asking = step(sealed, TICK, DEADLINE + HOUR + OVERDUE, NO_HOOKS)
    assert settlements(asking) == [SettlementKind.CLOSE]
    missing = Acknowledged(acknowledgement=acknowledgement(after(asking), AcknowledgementKind.MISSED, DEADLINE))
    waits = after(step(asking.change, missing, DEADLINE + 2 * HOUR, NO_HOOKS))
    assert (waits.state, waits.reason) == (State.HELD, "not_persisted")

    late = Acknowledged(acknowledgement=acknowledgement(waits, AcknowledgementKind.PERSISTED, DEADLINE + 3 * HOUR))
    assert after(step(waits, late, DEADLINE + 3 * HOUR, NO_HOOKS)).state is State.COMPLETED


def test_what_is_given_up_cannot_be_persisted_later() -> None:
    """A late outcome may wait among the dead letters: the store hears, under a new revision, not to take it."""
    change = replace(held(), element=replace(held().element, missed_policy=MissedPolicy.FINISH_LATE))

    decided = step(change, resolve(Resolution.ABANDON), DEADLINE + HOUR, NO_HOOKS)

    [close] = [one.settlement for one in decided.effects if isinstance(one, SendSettlement)]
    assert (close.kind, close.revision, close.accept_late) == (SettlementKind.CLOSE, 2, False)


@pytest.mark.parametrize("resolution", [Resolution.ROLL, Resolution.ABANDON])
def test_a_deadline_that_passed_is_told_as_missed_whoever_decides(resolution: Resolution) -> None:
    """The store's own answer comes for a revision that is not there any more."""
    decided = step(aborted(), resolve(resolution), DEADLINE, NO_HOOKS)

    assert events(decided.effects)[0] == "missed"
    assert after(decided).missed


def test_two_failures_of_one_revision_are_two_events() -> None:
    """In one step and in a later one, each at its first attempt."""
    ids = set()
    for failed_in in (CommandStep.START, CommandStep.EXECUTE):
        ids.add(finding(replace(aborted(), failed_in=failed_in, attempt=1), "failed", START).finding.event_id)

    assert len(ids) == 2


def test_an_abandoned_change_frees_its_service() -> None:
    """It is final, an event says so, and another order may come."""
    decided = step(held(), resolve(Resolution.ABANDON), DEADLINE + HOUR, NO_HOOKS)

    assert after(decided).state is State.ABANDONED
    assert not after(decided).is_open
    assert events(decided.effects) == ["abandoned"]
    assert settlements(step(decided.change, TICK, DEADLINE + 2 * HOUR, NO_HOOKS)) == []


def test_an_order_for_a_past_date_is_made_retroactive() -> None:
    """Where the element says so: it runs at once, is true from its date on, and asks for what was rated since."""
    element = an_element(date_rule=DateRule.DATE_GIVEN, late_policy=LatePolicy.RETROACTIVE)
    fact = ordered(a_request(effective_date=date(2018, 11, 2)), element)
    accepted = step(None, fact, NOON, NO_HOOKS)
    assert [reply.accepted for reply in replies(accepted)] == [True]
    assert settlements(accepted) == []

    asked = step(accepted.change, TICK, NOON, NO_HOOKS)
    [command] = commands(asked)
    assert command.effective_from == DEADLINE - timedelta(days=2)
    sealed = after(step(asked.change, ExecutionFinished(result=executed(command)), NOON, NO_HOOKS))
    persisted = Acknowledged(acknowledgement=acknowledgement(sealed, AcknowledgementKind.PERSISTED, NOON))
    done = step(sealed, persisted, NOON, NO_HOOKS)

    assert events(done.effects) == ["rerate_requested", "persisted", "completed"]
    assert settlements(step(done.change, TICK, NOON, NO_HOOKS)) == [SettlementKind.RELEASE]
    assert not after(done).missed
