"""Lives of rate plan changes as the scheduler decides them, and what it finds: one for each type of event.

The machine is the real one; what the scheduler sends to ``events.findings`` is what the scenarios send.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from streams.core.events import Finding
from streams.core.outcome import Release, Task, TaskKind, seal
from streams.core.plan_change.due import ALL_ROOM
from streams.core.plan_change.machine import (
    Acknowledged,
    Change,
    ChangeCancelled,
    ChangeOrdered,
    ChangeRepaired,
    ContextChanged,
    ExecutionFinished,
    RaiseFinding,
    SendCommand,
    TimePassed,
)
from streams.core.plan_change.matrix import MissedPolicy
from streams.core.plan_change.messages import (
    AcknowledgementKind,
    Context,
    ExecuteCommand,
    ExecutionVerdict,
    RequestKind,
    Resolution,
)
from streams.core.plan_change.step import step
from streams.core.watch import Standing, Tracked, at_risk
from tests.plan_changes.makers import (
    DEADLINE,
    NO_HOOKS,
    NOON,
    START,
    a_request,
    acknowledgement,
    an_element,
    executed,
    known,
)

RUN = START + timedelta(hours=3)
TICK = TimePassed(room=ALL_ROOM)


class Life:
    """The change of one service, and everything that was found on its way."""

    def __init__(self, account_id: str, **element: Any) -> None:
        self.account_id = account_id
        self.element = an_element(**element)
        self.change: Change | None = None
        self.commands: list[ExecuteCommand] = []
        self.findings: list[Finding] = []

    def take(self, fact: Any, now: datetime) -> Life:
        decided = step(self.change, fact, now, NO_HOOKS)
        self.change = decided.change
        self.commands += [effect.command for effect in decided.effects if isinstance(effect, SendCommand)]
        self.findings += [effect.finding for effect in decided.effects if isinstance(effect, RaiseFinding)]
        return self

    def order(self, request_id: str = "R1", now: datetime = NOON, **about: Any) -> Life:
        request = self._request(request_id, **about)
        return self.take(ChangeOrdered(validated=known(request), element=self.element), now)

    def cancel(self, now: datetime) -> Life:
        request = self._request("C1", kind=RequestKind.CANCEL, element_key=None)
        return self.take(ChangeCancelled(validated=known(request)), now)

    def repair(self, now: datetime, kind: RequestKind, resolution: Resolution | None = None) -> Life:
        request = self._request("T1", kind=kind, element_key=None, resolution=resolution)
        return self.take(ChangeRepaired(validated=known(request)), now)

    def start(self) -> Life:
        return self.take(TICK, RUN)

    def execute(self, *, abort: bool = False, task: Task | None = None) -> Life:
        result = executed(self.commands[-1], RUN)
        if abort:
            result = replace(result, verdict=ExecutionVerdict.ABORTED, reason="no_credit", sealed=None)
        elif task is not None:
            assert result.sealed is not None
            result = replace(result, sealed=seal(replace(result.sealed.outcome, tasks=(task,))))
        return self.take(ExecutionFinished(result=result), RUN)

    def acknowledge(self, kind: AcknowledgementKind, now: datetime) -> Life:
        assert self.change is not None
        return self.take(Acknowledged(acknowledgement=acknowledgement(self.change, kind, now)), now)

    def miss(self) -> Life:
        return self.take(TICK, DEADLINE).acknowledge(AcknowledgementKind.MISSED, DEADLINE)

    def move(self, zone: str, now: datetime = NOON) -> Life:
        context = Context(account_id=self.account_id, service_id=None, revision=2, zone=zone, cancelled=False)
        return self.take(ContextChanged(context=context), now)

    def risk(self) -> Life:
        assert self.change is not None
        tracked = Tracked(
            change_id=self.change.change_id, account_id=self.account_id, service_id=self.change.service_id,
            revision=self.change.revision, sequence=self.change.sequence, standing=Standing.OPEN,
            start_at=self.change.start_at, deadline_at=self.change.deadline_at, due_at=self.change.deadline_at,
        )  # fmt: skip
        self.findings.append(at_risk(tracked, "too_slow", RUN))
        return self

    def _request(self, request_id: str, **about: Any) -> Any:
        return a_request(request_id, account_id=self.account_id, service_id=f"{self.account_id}-S", **about)


HOLD = {"missed_policy": MissedPolicy.HOLD}
TASK = Task(kind=TaskKind.COMMUNICATION, name="welcome", release=Release.PERSISTED, details={"text": "hello"})


def life(name: str, account_id: str) -> Life:
    """The life in which ``rate_plan_change.<name>`` is found."""
    one = Life(account_id, **(HOLD if name in ("held", "abandoned") else {}))
    if name == "rejected":
        return one.order(element_key="basic-to-plus", channel="no-such-channel")
    one.order()
    match name:
        case "cancelled":
            one.cancel(NOON)
        case "superseded":
            one.order("R2", expected_revision=1)
        case "rescheduled":
            one.move("Europe/Lisbon")
        case "started":
            one.start()
        case "executed":
            one.start().execute()
        case "persisted" | "completed":
            one.start().execute().acknowledge(AcknowledgementKind.PERSISTED, RUN)
        case "failed":
            one.start().execute(abort=True)
        case "missed" | "held":
            one.start().miss()
        case "rerate_requested":
            one.start().execute().acknowledge(AcknowledgementKind.PERSISTED, DEADLINE + timedelta(hours=1))
        case "abandoned":
            one.start().miss().repair(DEADLINE, RequestKind.RESOLVE, Resolution.ABANDON)
        case "task_released":
            one.start().execute(task=TASK).acknowledge(AcknowledgementKind.PERSISTED, RUN)
        case "at_risk":
            one.start().risk()
    return one


def other_life(name: str, account_id: str) -> Life:
    """A life that comes near, in which it is not found."""
    if name == "ordered":
        return life("rejected", account_id)
    one = Life(account_id).order()
    match name:
        case "cancelled":
            one.start().cancel(RUN)  # past the point of no return: refused
        case "superseded":
            one.start().order("R2", now=RUN, expected_revision=1)
        case "rescheduled":
            one.start().move("Europe/Lisbon", RUN)  # past the point of no return
        case "executed" | "failed":
            one.start()
        case "persisted" | "completed" | "missed" | "held" | "at_risk":
            one.start().execute()
        case "rerate_requested" | "task_released":
            one.start().execute().acknowledge(AcknowledgementKind.PERSISTED, RUN)
        case "abandoned":
            one.repair(NOON, RequestKind.RESOLVE, Resolution.ABANDON)
    return one
