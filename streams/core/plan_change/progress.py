"""What time, finished commands and the billing store make of a change.

A fact is written into the row first; then :func:`progress` takes every action that has become possible, until none is.
So facts may come twice, late, or in another order than they happened: an acknowledgement may overtake the outcome that
it acknowledges, since they travel on different topics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, assert_never

from streams.core import ids
from streams.core.events import Value
from streams.core.hooks import Hookpoint
from streams.core.midnight import TZ_VERSION
from streams.core.outcome import Release
from streams.core.plan_change import told as say
from streams.core.plan_change.due import NO_ROOM, Window
from streams.core.plan_change.machine import Acknowledged, Change, Effect, ExecutionFinished, Rules, State, Step
from streams.core.plan_change.matrix import MissedPolicy
from streams.core.plan_change.messages import (
    AcknowledgementKind,
    CommandStep,
    ExecutionResult,
    ExecutionVerdict,
    SettlementKind,
)
from streams.core.plan_change.window import roll

# A command or a settlement without an answer for so long is sent again with the same id. Much shorter, and a busy
# executor gets the same work over and over; never, and one lost answer keeps a change from its deadline.
OVERDUE = timedelta(minutes=10)

# Pause before a failed step is tried again, where its hook's policy asks for it: what the hook calls may restart.
RETRY_AFTER = timedelta(minutes=2)

# Attempts of post work, and of late work, before a person is asked. No deadline ends them, so a number has to.
_MOST_ATTEMPTS = 5

# What changes in the row whatever a good answer says, and when a change is taken from its executor.
_ANSWERED: Mapping[str, Any] = {"awaiting": None, "sent_at": None, "attempt": 1, "reason": None}
_STOPPED: Mapping[str, Any] = {"awaiting": None, "sent_at": None, "retry_at": None}


class ActionKind(StrEnum):
    """What a change may be waiting to do."""

    START = "start"
    EXECUTE = "execute"
    POST = "post"
    SEND_AGAIN = "send_again"
    SETTLE = "settle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Something to do from ``at`` on; with a ``window`` it waits for room in it."""

    kind: ActionKind
    at: datetime
    window: Window | None = None


def actions(change: Change) -> Iterator[Action]:
    """All that the change waits to do, in the order of doing. Both the machine and the index of due work read it."""
    if change.awaiting is not None:
        if change.sent_at is not None:
            yield Action(kind=ActionKind.SEND_AGAIN, at=change.sent_at + OVERDUE)
    elif change.state is State.PENDING:
        yield Action(kind=ActionKind.START, at=change.retry_at or change.start_at)
    elif change.state is State.STARTED:
        yield Action(kind=ActionKind.EXECUTE, at=change.retry_at or change.release_at, window=Window.EXECUTE)
    elif change.state is State.PERSISTED and change.persisted_at is not None:
        yield Action(kind=ActionKind.POST, at=change.retry_at or change.persisted_at)
    wanted = _settlement_wanted(change)
    if wanted is not None:
        sent = change.settled_at if change.settling is wanted else None
        first = change.deadline_at if not change.closed or change.retry_at is None else change.retry_at
        # Releases of a whole night sent at once would wait in the persister until they are overdue, and be sent again.
        # A close does not wait: it finds out what is missed. Nor does what is sent again, or lost answers would fill
        # the window for ever.
        window = Window.RELEASE if sent is None and wanted is SettlementKind.RELEASE else None
        yield Action(kind=ActionKind.SETTLE, at=first if sent is None else sent + OVERDUE, window=window)


def out(change: Change, before: Change | None = None, *, was_out: bool = True) -> Window | None:
    """In which window the change has a place: its outcome is being made, or made true.

    A release that was sent again, since ``before``, has lost its place, and one that had none (``was_out``) gets none:
    whatever is never answered keeps its place for as long as :data:`OVERDUE`, and no longer.
    """
    if change.awaiting is CommandStep.EXECUTE:
        return Window.EXECUTE
    if change.settling is not SettlementKind.RELEASE or _settlement_wanted(change) is not SettlementKind.RELEASE:
        return None
    if before is None or before.settling is not SettlementKind.RELEASE:
        return Window.RELEASE
    return Window.RELEASE if was_out and before.settled_at == change.settled_at else None


def _settlement_wanted(change: Change) -> SettlementKind | None:
    if not change.is_open or change.effective_at is not None:
        return None
    if change.persisted_at is not None:
        return SettlementKind.RELEASE
    if change.closed and change.state is not State.EXECUTED:
        return None
    # Of a late outcome nobody waits for the deadline: if it was refused, the store has to be asked, or nobody knows.
    return SettlementKind.CLOSE


class _Work:
    """The change and the effects while one decision is made; never leaves this module."""

    def __init__(self, change: Change, now: datetime, rules: Rules) -> None:
        self.change = change
        self.now = now
        self.rules = rules
        self.effects: list[Effect] = []

    def set(self, **fields: Any) -> None:
        self.change = replace(self.change, **fields)

    def tell(self, name: str, fields: Mapping[str, Any], **facts: Value) -> None:
        """Set ``fields`` and raise the event ``name`` about it, with one copy of the row."""
        before, told = self.change.state, say.is_told(self.change, name)
        self.set(**fields, sequence=self.change.sequence + told)
        if told:
            self.effects.append(say.finding(self.change, name, self.now, before=before, **facts))

    def move(self, state: State, **fields: Any) -> None:
        """To another state, with the event that bears its name."""
        self.tell(state.value, {**fields, "state": state})

    def ask(self, step: CommandStep) -> None:
        """Send a command (again)."""
        self.set(awaiting=step, sent_at=self.now, retry_at=None)
        self.effects.append(say.command(self.change, step, self.now))

    def step(self) -> Step:
        return Step(change=self.change, effects=tuple(self.effects))


def progress(change: Change, now: datetime, rules: Rules, *, room: frozenset[Window]) -> Step:
    """Take every action that is due at ``now``; commands of step execute and releases only with room."""
    work = _Work(change, now, rules)
    _go_on(work, room=room)
    return work.step()


def finished(change: Change, fact: ExecutionFinished, now: datetime, rules: Rules) -> Step:
    """Take the answer to the command that is out; any other answer has been taken before, or is obsolete."""
    result = fact.result
    if change.awaiting is None or result.command_id != _awaited_id(change, change.awaiting):
        return Step(change=change)
    work = _Work(change, now, rules)
    match result.verdict:
        case ExecutionVerdict.SEALED | ExecutionVerdict.PROCEEDED:
            _succeeded(work, result)
        case ExecutionVerdict.ABORTED | ExecutionVerdict.FAILED:
            _did_not_succeed(work, result)
        case _:
            assert_never(result.verdict)
    _go_on(work, room=NO_ROOM)
    return work.step()


def acknowledged(change: Change, fact: Acknowledged, now: datetime, rules: Rules) -> Step:
    """Take a commit of the billing store for this revision; of an older one nothing matters any more."""
    ack = fact.acknowledgement
    if (ack.change_id, ack.revision) != (change.change_id, change.revision):
        return Step(change=change)
    if change.state is State.ABANDONED and ack.kind is not AcknowledgementKind.PERSISTED:
        return Step(change=change)  # what was given up is over, unless the store had it before
    work = _Work(change, now, rules)
    match ack.kind:
        case AcknowledgementKind.PERSISTED:
            if change.persisted_at is None:
                work.set(persisted_at=ack.committed_at)
                if ack.late and not change.closed:
                    work.tell("missed", {"missed": True})
                if ack.late:
                    # What was rated in between was rated on the old plan.
                    span = {"rerate_from": change.deadline_at, "rerate_to": ack.committed_at}
                    work.tell("rerate_requested", {}, **span)
        case AcknowledgementKind.MISSED:
            if change.persisted_at is None and not change.closed:
                _missed(work)
            elif change.persisted_at is None and change.state is State.EXECUTED and change.settling is not None:
                work.move(State.HELD, **_STOPPED, reason="not_persisted")
        case AcknowledgementKind.RELEASED:
            if change.effective_at is None:
                work.set(effective_at=ack.committed_at)
        case _:
            assert_never(ack.kind)
    _go_on(work, room=NO_ROOM)
    return work.step()


def _go_on(work: _Work, *, room: frozenset[Window]) -> None:
    _release_tasks(work)
    while True:
        if work.change.state in (State.EXECUTED, State.HELD, State.ABANDONED) and work.change.persisted_at is not None:
            work.move(State.PERSISTED, retry_at=None, reason=None)
            _release_tasks(work)
        due = next((action for action in actions(work.change) if _possible(work, action, room)), None)
        if due is None:
            return
        _take(work, due.kind)


def _possible(work: _Work, action: Action, room: frozenset[Window]) -> bool:
    if action.at > work.now or (action.window is not None and action.window not in room):
        return False
    if action.kind in (ActionKind.START, ActionKind.EXECUTE) and work.now >= work.change.deadline_at:
        # Whether it may be finished late is the policy's decision, after the store has said that it was missed.
        return say.accepts_late(work.change)
    return True


def _take(work: _Work, kind: ActionKind) -> None:
    match kind:
        case ActionKind.START:
            if _hooked(work, Hookpoint.START):
                work.ask(CommandStep.START)
            else:
                work.move(State.STARTED)
        case ActionKind.EXECUTE:
            work.ask(CommandStep.EXECUTE)
        case ActionKind.POST:
            if _hooked(work, Hookpoint.POST):
                work.ask(CommandStep.POST)
            else:
                work.move(State.COMPLETED)
        case ActionKind.SEND_AGAIN:
            assert work.change.awaiting is not None  # actions() yields it for no other
            work.ask(work.change.awaiting)
        case ActionKind.SETTLE:
            wanted = _settlement_wanted(work.change)
            assert wanted is not None  # as above
            work.set(settling=wanted, settled_at=work.now)
            work.effects.append(say.settlement(work.change, wanted, work.now))
        case _:
            assert_never(kind)


def _succeeded(work: _Work, result: ExecutionResult) -> None:
    match result.step:
        case CommandStep.START:
            work.move(State.STARTED, **_ANSWERED)
        case CommandStep.EXECUTE:
            if result.sealed is None:
                work.move(State.FAILED, **{**_ANSWERED, "reason": "outcome_missing", "failed_in": result.step})
                return
            outcome = result.sealed.outcome
            work.move(
                State.EXECUTED,
                **_ANSWERED,
                to_rate_plan_id=outcome.to_rate_plan_id,
                to_product_id=outcome.to_product_id,
                tasks=outcome.tasks,
            )
            if work.change.closed:
                work.set(settling=None, settled_at=None, retry_at=work.now + OVERDUE)
            _release_tasks(work)
        case CommandStep.POST:
            work.move(State.COMPLETED, **_ANSWERED)
        case CommandStep.ORDER:
            pass  # decided before there is a change
        case _:
            assert_never(result.step)


def _did_not_succeed(work: _Work, result: ExecutionResult) -> None:
    change = work.change
    again = result.verdict is ExecutionVerdict.FAILED and result.retryable
    if result.step is CommandStep.POST:
        again = result.verdict is ExecutionVerdict.FAILED and change.attempt < _MOST_ATTEMPTS
    elif work.now + RETRY_AFTER >= change.deadline_at:
        again = again and say.accepts_late(change) and change.attempt < _MOST_ATTEMPTS
    answered = {"awaiting": None, "sent_at": None, "reason": result.reason}
    if again:
        work.set(**answered, attempt=change.attempt + 1, retry_at=work.now + RETRY_AFTER)
    else:
        work.move(State.FAILED, **answered, failed_in=result.step)


def _missed(work: _Work) -> None:
    """The store has closed this revision without an outcome: never silent, and then what the element's policy says."""
    policy = MissedPolicy.FINISH_LATE if work.change.finish_late else work.change.element.missed_policy
    work.tell("missed", {"missed": True, "closed": True}, policy=policy.value)
    match policy:
        case MissedPolicy.FINISH_LATE:
            return
        case MissedPolicy.HOLD:
            work.move(State.HELD, **_STOPPED)
        case MissedPolicy.ROLL:
            rolled = rolled_over(work.change, work.now)
            if rolled is None or work.change.ended is not None:  # nobody wants it any more: a person has to say so
                work.move(State.HELD, **_STOPPED, reason=work.change.ended)
            else:
                work.change = rolled
                work.tell("rescheduled", {})
        case _:
            assert_never(policy)


def rolled_over(change: Change, now: datetime) -> Change | None:
    """``change`` as a new revision that waits for the next boundary; None if there is none that can be reached.

    Where the account lives by then decides about it.
    """
    zone = change.next_zone or change.zone
    found = roll(change.element, zone, change.billing_day, change.effective_date, change.change_id, now)
    if found is None:
        return None
    return replace(
        change,
        **_STOPPED,
        state=State.PENDING,
        revision=change.revision + 1,
        zone=zone,
        next_zone=None,
        attempt=1,
        failed_in=None,
        finish_late=False,
        reason=None,
        settling=None,
        settled_at=None,
        closed=False,
        tasks=(),
        tz_version=TZ_VERSION,
        effective_date=found.effective_date,
        start_at=found.start_at,
        release_at=found.release_at,
        deadline_at=found.deadline_at,
        to_rate_plan_id=change.element.to_rate_plan_id,
        to_product_id=change.element.to_product_id,
    )


def _release_tasks(work: _Work) -> None:
    """Hand out the tasks whose moment has come; an abandoned moment (not persisted) never comes."""
    if not work.change.tasks:
        return
    reached = {Release.NOW}
    if work.change.persisted_at is not None:
        reached.add(Release.PERSISTED)
    if work.change.effective_at is not None:
        reached.add(Release.EFFECTIVE)
    due = [task for task in work.change.tasks if task.release in reached]
    work.set(tasks=tuple(task for task in work.change.tasks if task.release not in reached))
    for number, task in enumerate(due):
        work.set(sequence=work.change.sequence + 1)
        work.effects.append(say.task_finding(work.change, task, number, work.now))


def _hooked(work: _Work, point: Hookpoint) -> bool:
    return bool(work.rules.hooks.at(point, work.change.element.key))


def _awaited_id(change: Change, step: CommandStep) -> str:
    return ids.command_id(change.change_id, change.revision, step, change.attempt)
