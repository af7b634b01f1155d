"""What a person may decide about a change that waits for one: try again, finish late, roll, abandon.

A change waits in ``Failed`` (a step said no or broke) and in ``Held`` (its deadline
passed, and its policy asks a person).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any, assert_never

from streams.core.plan_change.due import NO_ROOM
from streams.core.plan_change.machine import Change, ChangeRepaired, Effect, Rules, State, Step
from streams.core.plan_change.messages import CommandStep, Request, RequestKind, Resolution, SettlementKind
from streams.core.plan_change.progress import progress, rolled_over
from streams.core.plan_change.told import accepted, accepts_late, finding, refused, settlement

# Where a failed step is taken up again.
_BEFORE = {
    CommandStep.START: State.PENDING,
    CommandStep.EXECUTE: State.STARTED,
    CommandStep.POST: State.PERSISTED,
}


def repair(current: Change | None, fact: ChangeRepaired, now: datetime, rules: Rules) -> Step:
    """Accept or refuse a retry or a resolution. What has been persisted is never taken back."""
    request = fact.validated.request
    reasons = _reasons(current, request, now)
    if reasons or current is None:
        return Step(change=current, effects=(refused(request, current, reasons, now),))
    repaired = _repaired(current, request, now)
    if repaired is None:
        return Step(change=current, effects=(refused(request, current, ("no_later_boundary",), now),))
    effects: list[Effect] = []
    gives_up = request.resolution in (Resolution.ROLL, Resolution.ABANDON)
    if gives_up and now >= current.deadline_at and not current.closed:
        # The store is being asked and its answer will be of an old revision: then nobody else would say it.
        repaired = replace(repaired, missed=True, sequence=repaired.sequence + 1)
        lost = replace(current, missed=True, sequence=current.sequence + 1)
        effects.append(finding(lost, "missed", now, before=current.state, policy=str(request.resolution)))
    if repaired.state is State.ABANDONED:
        repaired = replace(repaired, sequence=repaired.sequence + 1)
        effects.append(finding(repaired, "abandoned", now, before=current.state, request_id=request.request_id))
        if current.closed:  # a late outcome may be on its way, or wait among the dead letters: not any more
            effects.append(settlement(repaired, SettlementKind.CLOSE, now))
    if request.resolution is Resolution.ROLL:
        repaired = replace(repaired, sequence=repaired.sequence + 1)
        effects.append(finding(repaired, "rescheduled", now, before=current.state, request_id=request.request_id))
    going = progress(repaired, now, rules, room=NO_ROOM)
    assert going.change is not None
    return Step(change=going.change, effects=(accepted(request, going.change, now), *effects, *going.effects))


def _reasons(current: Change | None, request: Request, now: datetime) -> tuple[str, ...]:
    if current is None or current.state not in (State.FAILED, State.HELD):
        return ("nothing_to_repair",)
    if request.account_id != current.account_id:
        return ("service_of_another_account",)
    if request.expected_revision not in (None, current.revision):
        return ("revision_mismatch",)
    if current.ended is not None and current.persisted_at is None and request.resolution is not Resolution.ABANDON:
        return (current.ended,)
    if request.kind is RequestKind.RETRY:
        if current.state is State.HELD:
            return ("resolution_needed",)
        if current.persisted_at is None and now >= current.deadline_at and not accepts_late(current):
            return ("deadline_passed",)
        return ()
    if request.resolution is None:
        return ("resolution_missing",)
    return () if current.persisted_at is None else ("already_persisted",)


def _repaired(change: Change, request: Request, now: datetime) -> Change | None:
    if request.kind is RequestKind.RETRY:
        assert change.failed_in is not None  # every way to Failed sets it
        return _again(change, now, attempt=change.attempt + 1)
    assert request.resolution is not None  # _reasons saw to it
    match request.resolution:
        case Resolution.FINISH_LATE:
            # A new revision: the billing store refuses late outcomes of the one that it has closed.
            return _again(
                change,
                now,
                attempt=1,
                revision=change.revision + 1,
                finish_late=True,
                tasks=(),
                # As it was ordered: what hooks made of it belongs to the run that failed.
                to_rate_plan_id=change.element.to_rate_plan_id,
                to_product_id=change.element.to_product_id,
            )
        case Resolution.ROLL:
            return rolled_over(change, now)
        case Resolution.ABANDON:
            revision = change.revision + 1 if change.closed else change.revision
            return replace(change, state=State.ABANDONED, revision=revision, awaiting=None, retry_at=None)
        case _:
            assert_never(request.resolution)


def _again(change: Change, now: datetime, **fields: Any) -> Change:
    """``change`` at the state before the step that failed; one that was held without a failure starts over."""
    state = State.PENDING if change.failed_in is None else _BEFORE[change.failed_in]
    return replace(change, state=state, failed_in=None, reason=None, retry_at=now, **fields)
