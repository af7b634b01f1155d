"""The plan change machine: ``step(current, fact, now)`` decides, the agent acts on the effects.

States: Ordered → Pending → Started → Executed → Persisted → Completed; final also Rejected, Cancelled, Superseded and
Abandoned; waiting for a person: Held, Failed. **Missed** is a flag, and **effective** (``effective_at``) another fact:
a change is open, and blocks its service, until it is effective or final.

Orders and cancels are decided in :mod:`orders`, everything that time and other agents cause in :mod:`progress`, what
people decide about a change that waits for them in :mod:`repairs`, and news of its account in :mod:`context`; this
module holds what they speak of.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from streams.core.events import Finding
from streams.core.hooks import HookRegistry
from streams.core.objects import Membership, OptionTerm
from streams.core.outcome import Task
from streams.core.plan_change.due import Window
from streams.core.plan_change.matrix import MatrixElement
from streams.core.plan_change.messages import (
    Acknowledgement,
    CommandStep,
    Context,
    ExecuteCommand,
    ExecutionResult,
    Reply,
    Settlement,
    SettlementKind,
    ValidatedRequest,
)


class State(StrEnum):
    """Where a change is."""

    ORDERED = "ordered"
    PENDING = "pending"
    STARTED = "started"
    EXECUTED = "executed"
    PERSISTED = "persisted"
    COMPLETED = "completed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    ABANDONED = "abandoned"
    HELD = "held"
    FAILED = "failed"


# In these something is still expected: a result, an acknowledgement, the end of the post work.
_ON_ITS_WAY = frozenset({State.STARTED, State.EXECUTED, State.PERSISTED})
# In these nothing more will happen and nothing became true: the service is free for another order.
_ENDED_WITHOUT_EFFECT = frozenset({State.REJECTED, State.CANCELLED, State.SUPERSEDED, State.ABANDONED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The row of the latest change of a service. ``revision`` grows with every order of the service and every roll.

    ``element`` is the matrix element as it was ordered. Zone, date and ``tz_version`` are the truth, the three instants
    are derived from them. ``awaiting``: a command of this step is out, sent last at ``sent_at``; ``attempt`` numbers
    the attempts of the step, ``retry_at`` says when the next one may begin, and ``failed_in`` which step a person is
    asked about. ``settling``: the settlement sent last, at ``settled_at``. ``closed``: the store has recorded this
    deadline as missed; ``missed`` stays when the change is rolled to another. ``finish_late``: a person has decided so.
    ``next_zone`` and ``ended`` are what was heard after the start, too late for this revision: the account's zone, and
    that account or service are cancelled (a reason). ``account_revision`` and ``service_revision``: up to which news.
    ``tasks`` are those not released yet. ``sequence`` counts the events raised about the change.
    """

    change_id: str
    request_id: str
    revision: int
    account_id: str
    service_id: str
    state: State
    element: MatrixElement
    channel: str
    silent: bool
    apply_fees: bool
    options: tuple[str, ...]
    memberships: tuple[Membership, ...]
    options_held: tuple[OptionTerm, ...]
    zone: str
    account_revision: int | None = None
    service_revision: int | None = None
    billing_day: int | None
    effective_date: date
    tz_version: str
    start_at: datetime
    release_at: datetime
    deadline_at: datetime
    to_rate_plan_id: str
    to_product_id: str
    awaiting: CommandStep | None = None
    attempt: int = 1
    failed_in: CommandStep | None = None
    sent_at: datetime | None = None
    retry_at: datetime | None = None
    settling: SettlementKind | None = None
    settled_at: datetime | None = None
    closed: bool = False
    persisted_at: datetime | None = None
    effective_at: datetime | None = None
    missed: bool = False
    finish_late: bool = False
    next_zone: str | None = None
    ended: str | None = None
    tasks: tuple[Task, ...] = ()
    reason: str | None = None
    sequence: int = 0

    @property
    def is_open(self) -> bool:
        """True while no other change of the service may begin.

        An effective change whose result or post work is still on its way is open too: put aside for another one, it
        would never come to its end.
        """
        if self.state in _ENDED_WITHOUT_EFFECT:
            return False
        return self.effective_at is None or self.state in _ON_ITS_WAY


# Facts: what happened.


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeOrdered:
    """A request of kind order arrived. ``element`` is None if the catalogue has no such key."""

    validated: ValidatedRequest
    element: MatrixElement | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeCancelled:
    """A request of kind cancel arrived."""

    validated: ValidatedRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRepaired:
    """A request of kind retry or resolve arrived."""

    validated: ValidatedRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextChanged:
    """The account has another zone, or account or service were cancelled."""

    context: Context


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePassed:
    """The partition's clock moved. ``room``: the windows of what is in flight that have room for this change."""

    room: frozenset[Window]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionFinished:
    """A command came to its end."""

    result: ExecutionResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """The billing store committed something."""

    acknowledgement: Acknowledgement


Fact = ChangeOrdered | ChangeCancelled | ChangeRepaired | ContextChanged | TimePassed | ExecutionFinished | Acknowledged


# Effects: what is to be done.


@dataclass(frozen=True, slots=True, kw_only=True)
class SendReply:
    """Answer the request, and remember the answer."""

    reply: Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class SendCommand:
    """Have a step executed."""

    command: ExecuteCommand


@dataclass(frozen=True, slots=True, kw_only=True)
class SendSettlement:
    """Ask the billing store to close or release."""

    settlement: Settlement


@dataclass(frozen=True, slots=True, kw_only=True)
class RaiseFinding:
    """Tell the event half."""

    finding: Finding


Effect = SendReply | SendCommand | SendSettlement | RaiseFinding


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The decision: the service's change from now on, the one that it replaced (kept as history), and the effects."""

    change: Change | None
    replaced: Change | None = None
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What decisions depend on besides state, fact and time."""

    hooks: HookRegistry
