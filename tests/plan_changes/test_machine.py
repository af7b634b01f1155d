"""The change machine by example: orders, the point of no return, deadlines, policies, hooks, tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from streams.core.events import Audience
from streams.core.outcome import Release, Task, TaskKind, seal
from streams.core.plan_change.due import ALL_ROOM, NO_ROOM
from streams.core.plan_change.machine import (
    Acknowledged,
    Change,
    Effect,
    ExecutionFinished,
    Fact,
    RaiseFinding,
    SendCommand,
    SendReply,
    SendSettlement,
    State,
    Step,
    TimePassed,
)
from streams.core.plan_change.matrix import DateRule, LatePolicy, MissedPolicy
from streams.core.plan_change.messages import (
    AcknowledgementKind,
    CommandStep,
    ExecuteCommand,
    ExecutionResult,
    ExecutionVerdict,
    Reply,
    SettlementKind,
)
from streams.core.plan_change.progress import OVERDUE, RETRY_AFTER
from streams.core.plan_change.step import step
from streams.core.plan_change.window import derived, window
from tests.plan_changes.makers import (
    DEADLINE,
    NO_HOOKS,
    NOON,
    START,
    a_cancel,
    a_request,
    acknowledgement,
    an_element,
    cancelled,
    executed,
    hooked,
    ordered,
    pending,
)

TICK = TimePassed(room=ALL_ROOM)
SECOND = timedelta(seconds=1)


def replies(step_: Step) -> list[Reply]:
    return [effect.reply for effect in step_.effects if isinstance(effect, SendReply)]


def events(effects: Iterable[Effect]) -> list[str]:
    found = [effect.finding.type for effect in effects if isinstance(effect, RaiseFinding)]
    return [name.removeprefix("rate_plan_change.") for name in found]


def commands(step_: Step) -> list[ExecuteCommand]:
    return [effect.command for effect in step_.effects if isinstance(effect, SendCommand)]


def settlements(step_: Step) -> list[SettlementKind]:
    return [effect.settlement.kind for effect in step_.effects if isinstance(effect, SendSettlement)]


def started(**changed: Any) -> tuple[Change, ExecuteCommand]:
    """A change whose execute command is out."""
    before = pending(**changed)
    decided = step(before, TICK, before.release_at, NO_HOOKS)
    assert decided.change is not None
    [command] = commands(decided)
    return decided.change, command


def persisted(**changed: Any) -> Change:
    """A change that is executed and persisted in time, and so completed."""
    change, command = started(**changed)
    done = step(change, ExecutionFinished(result=executed(command)), command.sent_at, NO_HOOKS).change
    assert done is not None
    fact = Acknowledged(acknowledgement=acknowledgement(done, AcknowledgementKind.PERSISTED, command.sent_at))
    after = step(done, fact, command.sent_at, NO_HOOKS).change
    assert after is not None
    return after


# -- orders ---------------------------------------------------------------------------------------------------------


def test_an_order_pends_until_its_start() -> None:
    """The reply says what the caller has to know: until when it can be cancelled, and from when it is true."""
    decided = step(None, ordered(), NOON, NO_HOOKS)

    [reply] = replies(decided)
    assert (reply.accepted, reply.state, reply.revision) == (True, "pending", 1)
    assert (reply.start_at, reply.deadline_at) == (START, DEADLINE)
    assert events(decided.effects) == ["ordered"]
    assert commands(decided) == []


@pytest.mark.parametrize(
    ("changed", "request_changed", "reason"),
    [
        ({"account_status": "Cancelled"}, {}, "account_cancelled"),
        ({"service_state": "Cancelled"}, {}, "service_cancelled"),
        ({"rate_plan_id": "other"}, {}, "element_not_for_plan"),
        ({"rate_plan_id": None, "product_id": None}, {}, "plan_unknown"),
        ({"zone": None}, {}, "zone_unknown"),
        ({"valid": False, "reasons": ("service_unknown",)}, {}, "service_unknown"),
        ({}, {"channel": "fax"}, "channel_not_allowed"),
        ({}, {"options": ("sms",)}, "option_removed_by_element"),
        ({}, {"effective_date": date(2018, 12, 24)}, "effective_date_not_by_rule"),
        ({}, {"expected_revision": 3}, "no_open_change"),
    ],
)
def test_an_order_is_refused_with_a_reason(
    changed: dict[str, Any], request_changed: dict[str, Any], reason: str
) -> None:
    """Reasons are codes; a refused order changes nothing, and the customer's event says so."""
    decided = step(None, ordered(a_request(**request_changed), **changed), NOON, NO_HOOKS)

    [reply] = replies(decided)
    assert not reply.accepted
    assert reason in reply.reasons
    assert decided.change is None
    assert events(decided.effects) == ["rejected"]


@pytest.mark.parametrize(
    ("rule", "billing_day", "given", "expected"),
    [
        (DateRule.TOMORROW, None, None, date(2018, 11, 4)),
        (DateRule.END_OF_MONTH, None, None, date(2018, 12, 1)),
        (DateRule.NEXT_BILL_DAY, 15, None, date(2018, 11, 15)),
        (DateRule.NEXT_BILL_DAY, 3, None, date(2018, 12, 3)),  # today is the bill day: the next one
        (DateRule.NEXT_BILL_DAY, 31, None, date(2018, 11, 30)),  # 31 means the last day
        (DateRule.DATE_GIVEN, None, date(2018, 12, 24), date(2018, 12, 24)),
    ],
)
def test_the_rule_gives_the_effective_date(
    rule: DateRule, billing_day: int | None, given: date | None, expected: date
) -> None:
    """Dates are the account's own."""
    fact = ordered(a_request(effective_date=given), an_element(date_rule=rule), billing_day=billing_day)

    change = step(None, fact, NOON, NO_HOOKS).change

    assert change is not None
    assert change.effective_date == expected


def test_today_is_the_accounts_day() -> None:
    """At 23:30 UTC it is tomorrow in Berlin already, so tomorrow is the day after."""
    change = step(None, ordered(), datetime(2018, 11, 3, 23, 30, tzinfo=UTC), NO_HOOKS).change

    assert change is not None
    assert change.effective_date == date(2018, 11, 5)


def test_an_order_after_its_start_starts_at_once() -> None:
    """Late orders do not wait for the spread."""
    decided = step(None, ordered(), START + timedelta(hours=1), NO_HOOKS)
    assert decided.change is not None
    assert decided.change.state is State.STARTED

    sent = step(decided.change, TICK, START + timedelta(hours=1), NO_HOOKS)

    assert [command.step for command in commands(sent)] == [CommandStep.EXECUTE]


def test_an_order_that_could_never_be_cancelled_may_be_refused() -> None:
    """Some elements promise the customer time to think."""
    decided = step(None, ordered(element=an_element(allow_without_cancel=False)), START, NO_HOOKS)

    assert replies(decided)[0].reasons == ("no_time_to_cancel",)


@pytest.mark.parametrize(
    ("policy", "accepted", "effective"),
    [(LatePolicy.REFUSE, False, None), (LatePolicy.ROLL, True, date(2018, 11, 4))],
)
def test_an_order_after_its_deadline_follows_the_late_policy(
    policy: LatePolicy, accepted: bool, effective: date | None
) -> None:
    """Refused, or rolled to the next date whose deadline is still to come."""
    element = an_element(date_rule=DateRule.DATE_GIVEN, late_policy=policy)

    decided = step(None, ordered(a_request(effective_date=date(2018, 11, 1)), element), NOON, NO_HOOKS)

    assert replies(decided)[0].accepted is accepted
    assert (decided.change and decided.change.effective_date) == effective


# -- one open change per service ------------------------------------------------------------------------------------


def test_a_second_order_is_refused_without_the_revision() -> None:
    """Whoever does not know of the open change must not replace it."""
    decided = step(pending(), ordered(a_request("R2")), NOON, NO_HOOKS)

    [reply] = replies(decided)
    assert reply.reasons == ("open_change",)
    assert reply.revision == 1
    assert decided.change == pending()


def test_a_second_order_supersedes_with_the_revision() -> None:
    """The first becomes history, the second has the next revision of the service."""
    decided = step(pending(), ordered(a_request("R2", expected_revision=1)), NOON, NO_HOOKS)

    assert decided.replaced is not None
    assert decided.replaced.state is State.SUPERSEDED
    assert decided.change is not None
    assert (decided.change.request_id, decided.change.revision) == ("R2", 2)
    assert events(decided.effects) == ["superseded", "ordered"]


def test_nothing_supersedes_after_the_start() -> None:
    """The start is the point of no return for a second order too."""
    decided = step(pending(), ordered(a_request("R2", expected_revision=1)), START, NO_HOOKS)

    assert replies(decided)[0].reasons == ("too_late_to_supersede",)


def test_an_order_on_a_stale_plan_is_refused() -> None:
    """After a change became effective, the account's partition may still show the old plan for a moment."""
    done = replace(persisted(), effective_at=DEADLINE)
    stale = ordered(a_request("R2"), plan_change_id=None)
    current = ordered(a_request("R3"), plan_change_id=done.change_id)

    assert replies(step(done, stale, DEADLINE, NO_HOOKS))[0].reasons == ("plan_not_current",)
    assert replies(step(done, current, DEADLINE, NO_HOOKS))[0].accepted


# -- the point of no return -----------------------------------------------------------------------------------------


def test_a_cancel_just_before_the_start_is_accepted() -> None:
    """The last moment, whatever is due by then."""
    decided = step(pending(), cancelled(), START - SECOND, NO_HOOKS)

    assert replies(decided)[0].accepted
    assert decided.change is not None
    assert decided.change.state is State.CANCELLED
    assert commands(step(decided.change, TICK, DEADLINE, NO_HOOKS)) == []


def test_nobody_cancels_the_change_of_another_account() -> None:
    """Whoever asks names an account; the change knows whose it is."""
    decided = step(pending(), cancelled(a_cancel(account_id="A2")), NOON, NO_HOOKS)

    assert replies(decided)[0].reasons == ("service_of_another_account",)
    assert decided.change == pending()


def test_a_cancel_at_the_start_is_refused() -> None:
    """By the clock and not by the state: here nothing has started yet."""
    decided = step(pending(), cancelled(), START, NO_HOOKS)

    assert replies(decided)[0].reasons == ("too_late",)
    assert decided.change == pending()


@pytest.mark.parametrize(("revision", "accepted"), [(None, True), (1, True), (2, False)])
def test_a_cancel_may_name_the_revision(revision: int | None, accepted: bool) -> None:
    """So that it does not hit another change than the one that was seen."""
    decided = step(pending(), cancelled(a_cancel(expected_revision=revision)), NOON, NO_HOOKS)

    assert replies(decided)[0].accepted is accepted


# -- start, execute, persist ----------------------------------------------------------------------------------------


def test_it_starts_at_the_start_and_executes_at_its_release() -> None:
    """The release is spread over the first half of the lead, so that not everything runs at once."""
    change = pending()
    assert START <= change.release_at <= START + timedelta(hours=3)

    at_start = step(change, TICK, START, NO_HOOKS)
    assert at_start.change is not None
    assert events(at_start.effects) == ["started"]
    at_release = step(at_start.change, TICK, change.release_at, NO_HOOKS)

    [command] = commands(at_release)
    assert (command.step, command.effective_from) == (CommandStep.EXECUTE, DEADLINE)


def test_the_spread_uses_the_whole_first_half_and_no_more() -> None:
    """Releases of many changes lie evenly in the first half of the lead."""
    releases = [
        window("Europe/Berlin", date(2018, 11, 4), 6, f"00000000-0000-5000-8000-{number * 7919 % 10**12:012d}")
        for number in range(1_000)
    ]
    offsets = [(found.release_at - found.start_at).total_seconds() for found in releases]

    assert min(offsets) >= 0
    assert max(offsets) < 3 * 3600
    assert sum(1 for offset in offsets if offset < 1.5 * 3600) in range(400, 600)


def test_a_full_window_holds_the_command_back() -> None:
    """Time alone does not send: there must be room."""
    change = pending()

    decided = step(change, TimePassed(room=NO_ROOM), change.release_at, NO_HOOKS)

    assert decided.change is not None
    assert (decided.change.state, decided.change.awaiting) == (State.STARTED, None)


def test_a_command_without_an_answer_is_sent_again_with_its_id() -> None:
    """An answer lost once must not cost the deadline."""
    change, command = started()

    assert commands(step(change, TICK, command.sent_at + OVERDUE - SECOND, NO_HOOKS)) == []
    [again] = commands(step(change, TICK, command.sent_at + OVERDUE, NO_HOOKS))

    assert again.command_id == command.command_id


def test_persisted_in_time_is_completed_before_midnight() -> None:
    """Post work does not wait for the deadline; only what the world sees does."""
    change = persisted()

    assert change.state is State.COMPLETED
    assert change.effective_at is None
    assert change.is_open


def test_an_acknowledgement_may_overtake_its_outcome() -> None:
    """They travel on different topics; the history is the same as ever."""
    change, command = started()
    ack = Acknowledged(acknowledgement=acknowledgement(change, AcknowledgementKind.PERSISTED, command.sent_at))
    first = step(change, ack, command.sent_at, NO_HOOKS)
    assert first.change is not None
    assert first.change.state is State.STARTED

    second = step(first.change, ExecutionFinished(result=executed(command)), command.sent_at, NO_HOOKS)

    assert events(first.effects + second.effects) == ["executed", "persisted", "completed"]


def test_a_result_that_comes_twice_changes_nothing() -> None:
    """At-least-once delivery."""
    change, command = started()
    fact = ExecutionFinished(result=executed(command))
    once = step(change, fact, command.sent_at, NO_HOOKS).change

    twice = step(once, fact, command.sent_at, NO_HOOKS)

    assert twice.change == once
    assert twice.effects == ()


# -- the deadline ---------------------------------------------------------------------------------------------------


def test_what_is_persisted_is_released_at_the_deadline_and_not_before() -> None:
    """Tables and subscribers see the new plan from midnight on, not hours early."""
    change = persisted()

    assert settlements(step(change, TICK, DEADLINE - SECOND, NO_HOOKS)) == []
    assert settlements(step(change, TICK, DEADLINE, NO_HOOKS)) == [SettlementKind.RELEASE]


def test_what_is_not_known_as_persisted_is_closed_at_the_deadline() -> None:
    """The billing store decides on one key what it was: persisted or missed."""
    change, _ = started()

    assert settlements(step(change, TICK, DEADLINE, NO_HOOKS)) == [SettlementKind.CLOSE]


def test_a_settlement_is_sent_until_it_is_acknowledged() -> None:
    """A lost one would leave the old plan in force for ever."""
    change = step(persisted(), TICK, DEADLINE, NO_HOOKS).change
    assert change is not None

    assert settlements(step(change, TICK, DEADLINE + SECOND, NO_HOOKS)) == []
    assert settlements(step(change, TICK, DEADLINE + OVERDUE, NO_HOOKS)) == [SettlementKind.RELEASE]
    released = Acknowledged(acknowledgement=acknowledgement(change, AcknowledgementKind.RELEASED, DEADLINE))
    effective = step(change, released, DEADLINE, NO_HOOKS).change
    assert effective is not None
    assert settlements(step(effective, TICK, DEADLINE + OVERDUE, NO_HOOKS)) == []
    assert not effective.is_open


def _missed(policy: MissedPolicy) -> Step:
    change = step(started(missed_policy=policy)[0], TICK, DEADLINE, NO_HOOKS).change
    assert change is not None
    fact = Acknowledged(acknowledgement=acknowledgement(change, AcknowledgementKind.MISSED, DEADLINE))
    return step(change, fact, DEADLINE, NO_HOOKS)


def test_missed_and_finished_late() -> None:
    """It goes on, persists late, and is released as soon as there is room, since its deadline is over."""
    decided = _missed(MissedPolicy.FINISH_LATE)
    assert decided.change is not None
    assert (decided.change.state, decided.change.missed) == (State.STARTED, True)
    assert events(decided.effects) == ["missed"]
    [command] = commands(step(decided.change, TICK, DEADLINE + OVERDUE, NO_HOOKS))
    done = step(decided.change, ExecutionFinished(result=executed(command)), DEADLINE + OVERDUE, NO_HOOKS).change
    assert done is not None

    late = Acknowledged(acknowledgement=acknowledgement(done, AcknowledgementKind.PERSISTED, DEADLINE + OVERDUE))
    after = step(done, late, DEADLINE + OVERDUE, NO_HOOKS)

    assert events(after.effects) == ["rerate_requested", "persisted", "completed"]
    assert settlements(step(after.change, TICK, DEADLINE + OVERDUE, NO_HOOKS)) == [SettlementKind.RELEASE]


def test_missed_and_rolled() -> None:
    """It pends again for the next date, under a new revision, so that the old outcome cannot be taken for the new."""
    change = _missed(MissedPolicy.ROLL).change

    assert change is not None
    assert (change.state, change.revision, change.missed) == (State.PENDING, 2, True)
    assert change.effective_date == date(2018, 11, 5)


def test_missed_and_held() -> None:
    """It waits for a person."""
    decided = _missed(MissedPolicy.HOLD)

    assert decided.change is not None
    assert decided.change.state is State.HELD
    assert events(decided.effects) == ["missed", "held"]


@pytest.mark.parametrize(
    ("policy", "executes"), [(MissedPolicy.FINISH_LATE, True), (MissedPolicy.ROLL, False), (MissedPolicy.HOLD, False)]
)
def test_after_an_outage_over_the_deadline(policy: MissedPolicy, executes: bool) -> None:
    """Start and deadline have both passed at one tick: it is closed in any case, and executed only by policy."""
    decided = step(pending(missed_policy=policy), TICK, DEADLINE + timedelta(hours=5), NO_HOOKS)

    assert settlements(decided) == [SettlementKind.CLOSE]
    assert bool(commands(decided)) is executes


def test_a_late_commit_is_missed_even_if_nobody_closed() -> None:
    """Only the commit time decides."""
    change, command = started()
    done = step(change, ExecutionFinished(result=executed(command)), command.sent_at, NO_HOOKS).change
    assert done is not None

    fact = Acknowledged(acknowledgement=acknowledgement(done, AcknowledgementKind.PERSISTED, DEADLINE))
    decided = step(done, fact, DEADLINE, NO_HOOKS)

    assert events(decided.effects)[0] == "missed"
    assert decided.change is not None
    assert decided.change.missed


# -- hooks, tasks, silence ------------------------------------------------------------------------------------------


def _broken(command: ExecuteCommand, verdict: ExecutionVerdict, *, retryable: bool) -> ExecutionFinished:
    result: ExecutionResult = executed(command)
    return ExecutionFinished(
        result=replace(result, verdict=verdict, reason="because", retryable=retryable, sealed=None)
    )


def test_an_aborted_change_waits_for_a_person() -> None:
    """And is closed at its deadline like any other."""
    change, command = started()

    decided = step(change, _broken(command, ExecutionVerdict.ABORTED, retryable=False), command.sent_at, NO_HOOKS)

    assert decided.change is not None
    assert (decided.change.state, decided.change.reason) == (State.FAILED, "because")
    assert settlements(step(decided.change, TICK, DEADLINE, NO_HOOKS)) == [SettlementKind.CLOSE]


def test_a_failed_hook_is_tried_again_until_the_deadline_allows_no_more() -> None:
    """Each attempt is another command; the last one fails for good."""
    change, command = started()
    broken = _broken(command, ExecutionVerdict.FAILED, retryable=True)
    failed = step(change, broken, command.sent_at, NO_HOOKS).change
    assert failed is not None
    [second] = commands(step(failed, TICK, command.sent_at + RETRY_AFTER, NO_HOOKS))
    assert (second.attempt, second.command_id != command.command_id) == (2, True)

    held = replace(change, element=replace(change.element, missed_policy=MissedPolicy.HOLD))
    too_late = step(held, broken, DEADLINE - RETRY_AFTER, NO_HOOKS).change
    assert too_late is not None
    assert too_late.state is State.FAILED
    # Where it may be finished late, an outage of what the hook calls is no case for a person yet.
    late = step(change, broken, DEADLINE - RETRY_AFTER, NO_HOOKS).change
    assert late is not None
    assert late.state is State.STARTED


def test_start_hooks_are_asked_before_started() -> None:
    """The change stays pending until they have answered; it cannot be cancelled any more."""
    rules = hooked("RATEPLAN.CHANGE.START")
    asked = step(pending(), TICK, START, rules)
    [command] = commands(asked)
    assert command.step is CommandStep.START
    assert asked.change is not None
    assert not replies(step(asked.change, cancelled(), START, rules))[0].accepted

    answered = step(asked.change, ExecutionFinished(result=executed(command)), START, rules)

    assert events(answered.effects) == ["started"]


def test_post_hooks_run_between_persisted_and_completed() -> None:
    """And post work that fails is repeated without touching the outcome."""
    rules = hooked("RATEPLAN.CHANGE.POST.basic-to-plus")
    change, command = started()
    done = step(change, ExecutionFinished(result=executed(command)), command.sent_at, rules).change
    assert done is not None
    ack = Acknowledged(acknowledgement=acknowledgement(done, AcknowledgementKind.PERSISTED, command.sent_at))
    asked = step(done, ack, command.sent_at, rules)
    [post] = commands(asked)
    assert post.step is CommandStep.POST
    assert asked.change is not None
    broken = step(asked.change, _broken(post, ExecutionVerdict.FAILED, retryable=False), post.sent_at, rules).change
    assert broken is not None
    [again] = commands(step(broken, TICK, post.sent_at + RETRY_AFTER, rules))

    completed = step(
        step(broken, TICK, post.sent_at + RETRY_AFTER, rules).change,
        ExecutionFinished(result=executed(again)),
        post.sent_at + RETRY_AFTER,
        rules,
    )

    assert events(completed.effects) == ["completed"]


def test_a_change_whose_post_work_failed_is_released_at_its_deadline() -> None:
    """It is persisted, so it is true from then on, whatever became of the work after it."""
    rules = hooked("RATEPLAN.CHANGE.POST")
    change, command = started()
    done = step(change, ExecutionFinished(result=executed(command)), command.sent_at, rules).change
    assert done is not None
    ack = Acknowledged(acknowledgement=acknowledgement(done, AcknowledgementKind.PERSISTED, command.sent_at))
    asked = step(done, ack, command.sent_at, rules)
    [post] = commands(asked)
    refused = step(asked.change, _broken(post, ExecutionVerdict.ABORTED, retryable=False), post.sent_at, rules).change
    assert refused is not None
    assert refused.state is State.FAILED

    assert settlements(step(refused, TICK, DEADLINE, rules)) == [SettlementKind.RELEASE]


@pytest.mark.parametrize(
    ("release", "moment"),
    [(Release.NOW, "executed"), (Release.PERSISTED, "persisted"), (Release.EFFECTIVE, "effective")],
)
def test_a_task_is_released_at_its_moment(release: Release, moment: str) -> None:
    """Once, and not before."""
    change, command = started()
    result = executed(command)
    assert result.sealed is not None
    task = Task(kind=TaskKind.PROVISIONING, name="set-profile", release=release, details={"profile": "plus"})
    result = replace(result, sealed=seal(replace(result.sealed.outcome, tasks=(task,))))
    seen = {}
    facts: dict[str, Callable[[Change], Fact]] = {
        "executed": lambda _: ExecutionFinished(result=result),
        "persisted": lambda one: Acknowledged(
            acknowledgement=acknowledgement(one, AcknowledgementKind.PERSISTED, command.sent_at)
        ),
        "effective": lambda one: Acknowledged(
            acknowledgement=acknowledgement(one, AcknowledgementKind.RELEASED, DEADLINE)
        ),
    }
    for name, fact in facts.items():
        decided = step(change, fact(change), DEADLINE if name == "effective" else command.sent_at, NO_HOOKS)
        assert decided.change is not None
        change, seen[name] = decided.change, events(decided.effects).count("task_released")

    assert seen == {name: int(name == moment) for name in facts}


def test_a_silent_change_raises_nothing_for_the_customer() -> None:
    """Internal lifecycle events stay."""
    silent = step(None, ordered(a_request(silent=True)), NOON, NO_HOOKS)
    assert events(silent.effects) == []

    going = step(silent.change, TICK, START, NO_HOOKS)

    assert events(going.effects) == ["started"]
    assert [effect.finding.audience for effect in going.effects if isinstance(effect, RaiseFinding)] == [
        Audience.INTERNAL
    ]


def test_an_upgrade_of_tz_data_derives_the_instants_of_pending_changes_again() -> None:
    """Zone and date are the truth; what has started keeps the deadline that it was started for."""
    change = pending()
    old = replace(change, tz_version="2010a", start_at=NOON, deadline_at=START)

    assert derived(old) == change
    begun = replace(old, state=State.STARTED)
    assert derived(begun) == begun
