"""What a change says to others: its events, commands, settlements and replies, with ids derived from causes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from streams.core import ids
from streams.core.events import Audience, Finding, Value
from streams.core.outcome import Task, TaskKind
from streams.core.plan_change.machine import Change, RaiseFinding, SendCommand, SendReply, SendSettlement, State
from streams.core.plan_change.matrix import MissedPolicy
from streams.core.plan_change.messages import CommandStep, ExecuteCommand, Reply, Request, Settlement, SettlementKind
from streams.core.rows import Kind

_PREFIX = "rate_plan_change"

# What a customer may be told; everything else of the lifecycle is for operators.
_CUSTOMER_EVENTS = frozenset({"ordered", "cancelled", "rejected"})


def accepts_late(change: Change) -> bool:
    """True if the change is finished although its deadline has passed: by its element's policy, or a person said so."""
    return change.finish_late or change.element.missed_policy is MissedPolicy.FINISH_LATE


def audience_of(name: str) -> Audience:
    """Whom ``rate_plan_change.<name>`` is for."""
    return Audience.CUSTOMER if name in _CUSTOMER_EVENTS else Audience.INTERNAL


def is_told(change: Change, name: str) -> bool:
    """Nothing is raised for a silent change where the customer is the audience."""
    return not (change.silent and name in _CUSTOMER_EVENTS)


def finding(change: Change, name: str, at: datetime, *, before: State | None = None, **facts: Value) -> RaiseFinding:
    """``rate_plan_change.<name>`` of this revision; the change's sequence has been moved on for it already."""
    found = Finding(
        event_id=ids.event_id(f"{_PREFIX}.{name}", Kind.RATE_PLAN_CHANGE, change.change_id, _cause(change, name)),
        type=f"{_PREFIX}.{name}",
        occurred_at=at,
        subject_kind=Kind.RATE_PLAN_CHANGE,
        subject_id=change.change_id,
        account_id=change.account_id,
        sequence=change.sequence,
        previous=None if before is None else {"state": before.value},
        current={"state": change.state.value},
        facts=_facts(change) | facts,
        audience=audience_of(name),
    )
    return RaiseFinding(finding=found)


def cancelled(
    change: Change, at: datetime, *, reason: str | None = None, **facts: Value
) -> tuple[Change, tuple[RaiseFinding, ...]]:
    """The change after its cancellation, and what is told of it: nothing if it is silent. ``reason``: nobody asked."""
    told = is_told(change, "cancelled")
    after = replace(
        change,
        state=State.CANCELLED,
        awaiting=None,
        reason=change.reason if reason is None else reason,
        sequence=change.sequence + told,
    )
    return after, (finding(after, "cancelled", at, before=change.state, **facts),) if told else ()


def _cause(change: Change, name: str) -> str:
    """Two things can happen twice in one revision: a failure (of another attempt or step), and a move to a zone."""
    match name:
        case "failed":
            return f"{change.revision}/{change.failed_in}/{change.attempt}"
        case "rescheduled":
            return f"{change.revision}/{change.account_revision}"
        case _:
            return str(change.revision)


def _facts(change: Change) -> dict[str, Value]:
    return {
        "service_id": change.service_id,
        "element_key": change.element.key,
        "from_rate_plan_id": change.element.from_rate_plan_id,
        "to_rate_plan_id": change.to_rate_plan_id,
        "from_product_id": change.element.from_product_id,
        "to_product_id": change.to_product_id,
        "effective_date": change.effective_date,
        "start_at": change.start_at,
        "deadline_at": change.deadline_at,
        "revision": change.revision,
        "silent": change.silent,
        "missed": change.missed,
        "reason": change.reason,
    }


def rejection(request: Request, change_id: str, reasons: tuple[str, ...], at: datetime) -> tuple[RaiseFinding, ...]:
    """``rate_plan_change.rejected`` of an order that never became a change."""
    if request.silent:
        return ()
    found = Finding(
        event_id=ids.event_id(f"{_PREFIX}.rejected", Kind.RATE_PLAN_CHANGE, change_id, 0),
        type=f"{_PREFIX}.rejected",
        occurred_at=at,
        subject_kind=Kind.RATE_PLAN_CHANGE,
        subject_id=change_id,
        account_id=request.account_id,
        sequence=1,
        previous=None,
        current={"state": State.REJECTED.value},
        facts={
            "service_id": request.service_id,
            "element_key": request.element_key,
            "effective_date": request.effective_date,
            "request_id": request.request_id,
            "reason": ",".join(reasons),
        },
        audience=audience_of("rejected"),
    )
    return (RaiseFinding(finding=found),)


def task_finding(change: Change, task: Task, number: int, at: datetime) -> RaiseFinding:
    """``rate_plan_change.task_released``: a task or communication that a hook asked for may be done now."""
    details: dict[str, Value] = {f"detail_{name}": value for name, value in task.details.items()}
    type_ = f"{_PREFIX}.task_released"
    cause = f"{change.revision}/{task.release}/{number}/{task.name}"
    found = Finding(
        event_id=ids.event_id(type_, Kind.RATE_PLAN_CHANGE, change.change_id, cause),
        type=type_,
        occurred_at=at,
        subject_kind=Kind.RATE_PLAN_CHANGE,
        subject_id=change.change_id,
        account_id=change.account_id,
        sequence=change.sequence,
        previous=None,
        current=None,
        facts=_facts(change) | {"task_kind": task.kind.value, "task_name": task.name} | details,
        audience=Audience.CUSTOMER if task.kind is TaskKind.COMMUNICATION else Audience.INTERNAL,
    )
    return RaiseFinding(finding=found)


def command(change: Change, step: CommandStep, at: datetime) -> SendCommand:
    """The command for ``step``; sent again, everything but ``sent_at`` is the same."""
    element = change.element
    return SendCommand(
        command=ExecuteCommand(
            command_id=ids.command_id(change.change_id, change.revision, step, change.attempt),
            step=step,
            attempt=change.attempt,
            change_id=change.change_id,
            revision=change.revision,
            account_id=change.account_id,
            service_id=change.service_id,
            element_key=element.key,
            channel=change.channel,
            from_rate_plan_id=element.from_rate_plan_id,
            to_rate_plan_id=change.to_rate_plan_id,
            from_product_id=element.from_product_id,
            to_product_id=change.to_product_id,
            effective_date=change.effective_date,
            zone=change.zone,
            effective_from=change.deadline_at,
            silent=change.silent,
            apply_fees=change.apply_fees,
            options=change.options,
            fees=element.fees,
            options_added=element.options_added,
            options_removed=element.options_removed,
            memberships=change.memberships,
            options_held=change.options_held,
            sent_at=at,
        )
    )


def settlement(change: Change, kind: SettlementKind, at: datetime) -> SendSettlement:
    """``close`` or ``release`` of this revision."""
    return SendSettlement(
        settlement=Settlement(
            kind=kind,
            change_id=change.change_id,
            revision=change.revision,
            account_id=change.account_id,
            service_id=change.service_id,
            deadline_at=change.deadline_at,
            accept_late=accepts_late(change) and change.state is not State.ABANDONED,
            sent_at=at,
        )
    )


def accepted(request: Request, change: Change, at: datetime) -> SendReply:
    """Yes, and the instants that matter to the caller."""
    return SendReply(
        reply=Reply(
            request_id=request.request_id,
            account_id=request.account_id,
            service_id=request.service_id,
            change_id=change.change_id,
            revision=change.revision,
            accepted=True,
            state=change.state,
            reasons=(),
            start_at=change.start_at,
            deadline_at=change.deadline_at,
            decided_at=at,
        )
    )


def refused(request: Request, current: Change | None, reasons: tuple[str, ...], at: datetime) -> SendReply:
    """No, and why; with the open change of the service, if there is one, so that the caller can name its revision."""
    shown = current if current is not None and current.is_open else None
    return SendReply(
        reply=Reply(
            request_id=request.request_id,
            account_id=request.account_id,
            service_id=request.service_id,
            change_id=None if shown is None else shown.change_id,
            revision=None if shown is None else shown.revision,
            accepted=False,
            state=None if shown is None else shown.state,
            reasons=reasons,
            start_at=None if shown is None else shown.start_at,
            deadline_at=None if shown is None else shown.deadline_at,
            decided_at=at,
        )
    )
