"""What the watchdog knows of a plan change: one row per service, merged from facts that may come in any order.

The watchdog reads replies, acknowledgements and findings, which are different topics: an acknowledgement may be seen
before the reply that accepted its change, and after a crash of its writer every record may come again. So
:func:`merge` is a join: commutative, associative, idempotent. What is judged from the rows is in
:mod:`streams.core.watch_rules`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum
from uuid import UUID

from streams.core import ids
from streams.core.events import Audience, Finding, Value
from streams.core.plan_change.machine import Change, State
from streams.core.plan_change.messages import Acknowledgement, AcknowledgementKind, Reply
from streams.core.rows import Kind

_PREFIX = "rate_plan_change."
_AT_RISK = f"{_PREFIX}at_risk"


class Standing(IntEnum):
    """Where a change is, as far as its deadline is concerned; of one revision, the greater one is the newer truth.

    Only OPEN and STUCK may follow on each other (an operator retries), in the order of the change's own events.
    """

    OPEN = 0  # accepted, not persisted
    STUCK = 1  # failed or held: it waits for a person
    MISSED = 2  # the billing store has recorded that nothing was there at the deadline
    ENDED = 3  # cancelled, superseded, abandoned: nothing is expected any more
    PERSISTED = 4
    LATE = 5  # persisted, but not before the deadline


# Standings that one event of the change may take back.
_PASSING = (Standing.OPEN, Standing.STUCK)
_OF_STATE = {
    State.FAILED: Standing.STUCK,
    State.HELD: Standing.STUCK,
    State.CANCELLED: Standing.ENDED,
    State.SUPERSEDED: Standing.ENDED,
    State.REJECTED: Standing.ENDED,
    State.ABANDONED: Standing.ENDED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """One fact about the newest change of a service, and also the row that all of them make.

    ``sequence`` is that of the change's events (0: its reply, -1: an acknowledgement); start, deadline and ``due_at``
    (the instant from which work on it is to be expected) come from the fact with the highest one, and are None while
    only acknowledgements have been seen. ``settled_at``: the commit that persisted it.
    """

    service_id: str
    account_id: str
    change_id: str
    revision: int
    sequence: int
    standing: Standing
    start_at: datetime | None = None
    deadline_at: datetime | None = None
    due_at: datetime | None = None
    settled_at: datetime | None = None


def release_at(change_id: str, start_at: datetime, deadline_at: datetime) -> datetime:
    """When the scheduler sends the change to execution: spread by its id over the first half of the lead.

    The rule is the scheduler's (:func:`streams.core.change_window.window`), derived here once more: what watches over
    it must not stand still with it. An id that is no UUID is expected at its start.
    """
    spread_s = int((deadline_at - start_at).total_seconds()) // 2
    try:
        number = UUID(change_id).int
    except ValueError:
        return start_at
    return start_at + timedelta(seconds=number % spread_s) if spread_s > 0 else start_at


def of_reply(reply: Reply) -> Tracked | None:
    """What an answer says; None for a refusal, which changes nothing."""
    start, deadline = reply.start_at, reply.deadline_at
    if not reply.accepted or reply.change_id is None or reply.revision is None or start is None or deadline is None:
        return None
    # An order that comes after its start instant is worked on at once.
    late_order = reply.decided_at >= start
    return Tracked(
        service_id=reply.service_id,
        account_id=reply.account_id,
        change_id=reply.change_id,
        revision=reply.revision,
        sequence=0,
        standing=_standing(reply.state),
        start_at=start,
        deadline_at=deadline,
        due_at=reply.decided_at if late_order else release_at(reply.change_id, start, deadline),
    )


def of_acknowledgement(acknowledgement: Acknowledgement) -> Tracked:
    """What the billing store has committed."""
    match acknowledgement.kind:
        case AcknowledgementKind.MISSED:
            standing = Standing.MISSED
        case AcknowledgementKind.PERSISTED:
            standing = Standing.LATE if acknowledgement.late else Standing.PERSISTED
        case AcknowledgementKind.RELEASED:
            standing = Standing.PERSISTED
    persisted = acknowledgement.kind is AcknowledgementKind.PERSISTED
    return Tracked(
        service_id=acknowledgement.service_id,
        account_id=acknowledgement.account_id,
        change_id=acknowledgement.change_id,
        revision=acknowledgement.revision,
        sequence=-1,
        standing=standing,
        settled_at=acknowledgement.committed_at if persisted else None,
    )


def of_finding(finding: Finding) -> Tracked | None:
    """What the scheduler tells about one of its changes; None if that is nothing about a deadline."""
    facts, state = finding.facts, (finding.current or {}).get("state")
    service_id, revision = facts.get("service_id"), facts.get("revision")
    start, deadline = facts.get("start_at"), facts.get("deadline_at")
    if not (finding.type.startswith(_PREFIX) and finding.type != _AT_RISK and isinstance(state, str)):
        return None
    if not (isinstance(service_id, str) and isinstance(revision, int)):
        return None
    if not (isinstance(start, datetime) and isinstance(deadline, datetime)):
        return None
    return Tracked(
        service_id=service_id,
        account_id=finding.account_id or "",
        change_id=finding.subject_id,
        revision=revision,
        sequence=finding.sequence,
        standing=_standing(state),
        start_at=start,
        deadline_at=deadline,
        due_at=release_at(finding.subject_id, start, deadline),
    )


def of_change(change: Change) -> Tracked:
    """What the scheduler's own row says: only for a watchdog that begins, about orders whose replies are gone."""
    standing = _standing(change.state)
    if change.persisted_at is not None:
        standing = Standing.LATE if change.persisted_at >= change.deadline_at else Standing.PERSISTED
    elif change.closed and standing is not Standing.ENDED:
        standing = Standing.MISSED
    return Tracked(
        service_id=change.service_id,
        account_id=change.account_id,
        change_id=change.change_id,
        revision=change.revision,
        sequence=change.sequence,
        standing=standing,
        start_at=change.start_at,
        deadline_at=change.deadline_at,
        due_at=change.release_at,
        settled_at=change.persisted_at,
    )


def _standing(state: str | None) -> Standing:
    """Persisted is what the billing store says, not what the scheduler believes, so its word for it is just OPEN."""
    try:
        return _OF_STATE.get(State(state or ""), Standing.OPEN)
    except ValueError:  # a state of a newer version
        return Standing.OPEN


def merge(row: Tracked | None, fact: Tracked) -> Tracked:
    """The row after ``fact``; a higher revision (a new order, a roll to another date) replaces all that was known."""
    if row is None or fact.revision > row.revision:
        return fact
    if fact.revision < row.revision:
        return row
    newer, older = (fact, row) if _view(fact) > _view(row) else (row, fact)
    final = max((one.standing for one in (row, fact) if one.standing not in _PASSING), default=newer.standing)
    settled = min((one.settled_at for one in (row, fact) if one.settled_at is not None), default=None)
    dated = newer if newer.deadline_at is not None else older
    return replace(
        newer,
        standing=final,
        settled_at=settled,
        start_at=dated.start_at,
        deadline_at=dated.deadline_at,
        due_at=dated.due_at,
    )


def _view(one: Tracked) -> tuple[object, ...]:
    """A total order, so that two facts make the same row whichever comes first."""
    dates = [0.0 if at is None else at.timestamp() for at in (one.deadline_at, one.start_at, one.due_at)]
    passing = one.standing if one.standing in _PASSING else Standing.OPEN
    return (one.sequence, *dates, passing, one.change_id, one.account_id)


def at_risk(tracked: Tracked, reason: str, at: datetime) -> Finding:
    """``rate_plan_change.at_risk`` of one change; nobody else raises it (ADR 12).

    Its id follows from change and revision, so it is one event, however often, and by how many watchdogs, it is said.
    """
    facts: dict[str, Value] = {
        "service_id": tracked.service_id,
        "revision": tracked.revision,
        "start_at": tracked.start_at,
        "deadline_at": tracked.deadline_at,
        "missed": False,
        "reason": reason,
    }
    return Finding(
        event_id=ids.event_id(_AT_RISK, Kind.RATE_PLAN_CHANGE, tracked.change_id, str(tracked.revision)),
        type=_AT_RISK,
        occurred_at=at,
        subject_kind=Kind.RATE_PLAN_CHANGE,
        subject_id=tracked.change_id,
        account_id=tracked.account_id or None,
        sequence=max(tracked.sequence, 0),
        facts=facts,
        audience=Audience.INTERNAL,
    )
