"""The messages of a plan change on the wire: one dataclass per Avro record of ``curfew.planchange``.

Flow: Request → (account's partition) ValidatedRequest → (service's partition) Reply, ExecuteCommand → ExecutionResult →
Acknowledgement, and at the deadline Settlement → Acknowledgement. All instants are aware UTC, cut to milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from streams.core.money import Fee
from streams.core.objects import Membership, OptionTerm
from streams.core.outcome import SealedOutcome


class RequestKind(StrEnum):
    """What is asked for."""

    ORDER = "order"
    CANCEL = "cancel"
    RETRY = "retry"  # try the failed step again
    RESOLVE = "resolve"  # a person decides about a change that waits for one: see ``resolution``


class Resolution(StrEnum):
    """What a person decides about a change that is held or has failed."""

    FINISH_LATE = "finish_late"
    ROLL = "roll"
    ABANDON = "abandon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Order, cancel or repair a plan change of one service.

    ``request_id`` is chosen by the caller, unique per service: the same id with the same content gets the same answer.
    ``expected_revision`` names the open change to be cancelled or superseded; a second order without it is refused.
    ``effective_date`` is needed by the date rule ``date_given`` only. ``resolution`` belongs to the kind resolve alone.
    ``requested_at`` is not a part of the content.
    """

    request_id: str
    kind: RequestKind
    account_id: str
    service_id: str
    element_key: str | None
    effective_date: date | None
    silent: bool
    apply_fees: bool
    options: tuple[str, ...]
    channel: str
    expected_revision: int | None
    resolution: Resolution | None = None
    requested_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatedRequest:
    """A request with what the account's partition knows. ``valid`` is about that only: the service's partition decides.

    Everything after ``reasons`` is None or empty where the row is unknown. ``account_revision`` and
    ``service_revision`` tell which of two statements is newer. ``plan_change_id`` is the change that made the current
    plan: it tells a stale view of the plan from a current one.
    """

    request: Request
    valid: bool
    reasons: tuple[str, ...]
    zone: str | None
    account_revision: int | None = None
    billing_day: int | None
    account_status: str | None
    service_state: str | None
    service_revision: int | None = None
    rate_plan_id: str | None
    product_id: str | None
    memberships: tuple[Membership, ...]
    options_held: tuple[OptionTerm, ...]
    plan_change_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What pending changes depend on has changed. ``service_id`` None: it is about all services of the account, and the
    record is in every partition. ``revision`` is the account's or the service's; ``zone`` is None for a service."""

    account_id: str
    service_id: str | None
    revision: int
    zone: str | None
    cancelled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to one request. ``revision`` is what a later cancel or order names as ``expected_revision``."""

    request_id: str
    account_id: str
    service_id: str
    change_id: str | None
    revision: int | None
    accepted: bool
    state: str | None
    reasons: tuple[str, ...]
    start_at: datetime | None
    deadline_at: datetime | None
    decided_at: datetime


class CommandStep(StrEnum):
    """Which part of the process a command runs, off the scheduler's loop."""

    ORDER = "order"  # hookpoint ORDER only
    START = "start"  # hookpoint START only
    EXECUTE = "execute"  # PRIOR, core logic, AFTER, seal
    POST = "post"  # hookpoint POST only


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteCommand:
    """Run one step of a change. It carries all that the step needs, so that execution needs no table of its own.

    ``fees``, ``options_added`` and ``options_removed`` are the matrix element's at the time of the order; ``options``
    were chosen by the customer; ``memberships`` and ``options_held`` are the service's when it was ordered (nothing
    else can change them while a change is open).
    """

    command_id: str
    step: CommandStep
    attempt: int
    change_id: str
    revision: int
    account_id: str
    service_id: str
    element_key: str
    channel: str
    from_rate_plan_id: str
    to_rate_plan_id: str
    from_product_id: str
    to_product_id: str
    effective_date: date
    zone: str
    effective_from: datetime
    silent: bool
    apply_fees: bool
    options: tuple[str, ...]
    fees: tuple[Fee, ...]
    options_added: tuple[str, ...]
    options_removed: tuple[str, ...]
    memberships: tuple[Membership, ...]
    options_held: tuple[OptionTerm, ...]
    sent_at: datetime


class ExecutionVerdict(StrEnum):
    """How a command ended."""

    SEALED = "sealed"  # execute: the outcome is in ``sealed``
    PROCEEDED = "proceeded"  # order, start, post: every hook agreed
    ABORTED = "aborted"  # a hook said no, with a reason
    FAILED = "failed"  # a hook broke, ran out of time, or an invariant does not hold


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResult:
    """The one answer to a command. ``retryable``: the failed hook's policy asks for another attempt."""

    command_id: str
    step: CommandStep
    attempt: int
    change_id: str
    revision: int
    account_id: str
    service_id: str
    verdict: ExecutionVerdict
    reason: str | None
    retryable: bool
    sealed: SealedOutcome | None
    finished_at: datetime


class SettlementKind(StrEnum):
    """What the scheduler asks of the billing store at the deadline."""

    CLOSE = "close"  # not known as persisted: find it, or record it as missed
    RELEASE = "release"  # persisted: what the world sees becomes true now


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """Sent at the deadline, again until acknowledged.

    ``accept_late``: after ``missed`` an outcome of this revision may still be written (missed policy ``finish_late``);
    if False it must not, since the change was rolled to a later revision or waits for a person.
    """

    kind: SettlementKind
    change_id: str
    revision: int
    account_id: str
    service_id: str
    deadline_at: datetime
    accept_late: bool
    sent_at: datetime


class AcknowledgementKind(StrEnum):
    """What the billing store has committed."""

    PERSISTED = "persisted"
    MISSED = "missed"
    RELEASED = "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """A commit of the billing store. ``late``: ``committed_at`` (read after COMMIT) is not before the deadline."""

    kind: AcknowledgementKind
    change_id: str
    revision: int
    account_id: str
    service_id: str
    committed_at: datetime
    late: bool
