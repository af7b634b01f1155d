"""Makes requests, elements and answers of plan changes, so that a test shows only what it is about."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from streams.core.hooks import Hook, HookRegistry, Proceed
from streams.core.money import Fee
from streams.core.objects import Membership, OptionTerm
from streams.core.outcome import seal
from streams.core.plan_change.execute import conclude, draft_of
from streams.core.plan_change.machine import Change, ChangeCancelled, ChangeOrdered, Rules
from streams.core.plan_change.matrix import DateRule, LatePolicy, MatrixElement, MissedPolicy
from streams.core.plan_change.messages import (
    Acknowledgement,
    AcknowledgementKind,
    CommandStep,
    ExecuteCommand,
    ExecutionResult,
    ExecutionVerdict,
    Request,
    RequestKind,
    ValidatedRequest,
)
from streams.core.plan_change.step import step

# Afternoon in Berlin; tomorrow's midnight there is 23:00 UTC, six hours before it is 17:00 UTC.
NOON = datetime(2018, 11, 3, 12, 0, tzinfo=UTC)
START = datetime(2018, 11, 3, 17, 0, tzinfo=UTC)
DEADLINE = datetime(2018, 11, 3, 23, 0, tzinfo=UTC)
LONG_AGO = datetime(2017, 1, 1, tzinfo=UTC)

NO_HOOKS = Rules(hooks=HookRegistry())


def hooked(*keys: str) -> Rules:
    """Rules with one agreeing hook at each key."""
    return Rules(hooks=HookRegistry.of(Hook(name=key, key=key, call=lambda context: Proceed()) for key in keys))


def an_element(key: str = "basic-to-plus", **changed: Any) -> MatrixElement:
    """From plan basic to plus, tomorrow, six hours of lead, one fee, one option added and one removed."""
    fields: dict[str, Any] = {
        "key": key,
        "from_product_id": "P1",
        "from_rate_plan_id": "basic",
        "to_product_id": "P1",
        "to_rate_plan_id": "plus",
        "date_rule": DateRule.TOMORROW,
        "lead_hours": 6,
        "channels": ("crm", "web"),
        "fees": (Fee(code="change", amount=Decimal("5.00"), currency="EUR"),),
        "late_policy": LatePolicy.REFUSE,
        "missed_policy": MissedPolicy.FINISH_LATE,
        "options_added": ("roaming",),
        "options_removed": ("sms",),
    }
    return MatrixElement(**{**fields, **changed})


def a_request(request_id: str = "R1", **changed: Any) -> Request:
    """An order of service S1 of account A1."""
    fields: dict[str, Any] = {
        "request_id": request_id,
        "kind": RequestKind.ORDER,
        "account_id": "A1",
        "service_id": "S1",
        "element_key": "basic-to-plus",
        "effective_date": None,
        "silent": False,
        "apply_fees": True,
        "options": (),
        "channel": "crm",
        "expected_revision": None,
        "requested_at": NOON,
    }
    return Request(**{**fields, **changed})


def a_cancel(request_id: str = "C1", **changed: Any) -> Request:
    """A cancel for service S1."""
    return a_request(request_id, kind=RequestKind.CANCEL, element_key=None, **changed)


def known(request: Request, **changed: Any) -> ValidatedRequest:
    """The request with what the account's partition knows: an active service on plan basic, in Berlin."""
    fields: dict[str, Any] = {
        "request": request,
        "valid": True,
        "reasons": (),
        "zone": "Europe/Berlin",
        "billing_day": 15,
        "account_status": "Active",
        "service_state": "Active",
        "service_revision": 1,
        "account_revision": 1,
        "rate_plan_id": "basic",
        "product_id": "P1",
        "memberships": (Membership(rate_plan_id="basic", valid_from=LONG_AGO, valid_to=None),),
        "options_held": (OptionTerm(option_id="sms", valid_from=LONG_AGO, valid_to=None),),
        "plan_change_id": None,
    }
    return ValidatedRequest(**{**fields, **changed})


def ordered(request: Request | None = None, element: MatrixElement | None = None, **changed: Any) -> ChangeOrdered:
    """The fact that an order arrived."""
    return ChangeOrdered(validated=known(request or a_request(), **changed), element=element or an_element())


def cancelled(request: Request | None = None) -> ChangeCancelled:
    """The fact that a cancel arrived."""
    return ChangeCancelled(validated=known(request or a_cancel()))


def pending(rules: Rules = NO_HOOKS, **changed: Any) -> Change:
    """The change of an order made at noon."""
    change = step(None, ordered(element=an_element(**changed)), NOON, rules).change
    assert change is not None
    return change


def a_command(**changed: Any) -> ExecuteCommand:
    """Execute the change of :func:`a_request`."""
    fields: dict[str, Any] = {
        "command_id": "5f0c1f54-8f3b-5d52-9c3e-0d5b2c0f7a11",
        "step": CommandStep.EXECUTE,
        "attempt": 1,
        "change_id": "0d9f5a3e-3a50-5c38-a7b5-4f3c1c6b2e10",
        "revision": 1,
        "account_id": "A1",
        "service_id": "S1",
        "element_key": "basic-to-plus",
        "channel": "crm",
        "from_rate_plan_id": "basic",
        "to_rate_plan_id": "plus",
        "from_product_id": "P1",
        "to_product_id": "P1",
        "effective_date": date(2018, 11, 4),
        "zone": "Europe/Berlin",
        "effective_from": DEADLINE,
        "silent": False,
        "apply_fees": True,
        "options": (),
        "fees": (Fee(code="change", amount=Decimal("5.00"), currency="EUR"),),
        "options_added": ("roaming",),
        "options_removed": ("sms",),
        "memberships": (Membership(rate_plan_id="basic", valid_from=LONG_AGO, valid_to=None),),
        "options_held": (OptionTerm(option_id="sms", valid_from=LONG_AGO, valid_to=None),),
        "sent_at": START,
    }
    return ExecuteCommand(**{**fields, **changed})


def executed(command: ExecuteCommand, finished_at: datetime | None = None) -> ExecutionResult:
    """What the executor answers when no hook has anything to say."""
    is_execute = command.step is CommandStep.EXECUTE
    return ExecutionResult(
        command_id=command.command_id,
        step=command.step,
        attempt=command.attempt,
        change_id=command.change_id,
        revision=command.revision,
        account_id=command.account_id,
        service_id=command.service_id,
        verdict=ExecutionVerdict.SEALED if is_execute else ExecutionVerdict.PROCEEDED,
        reason=None,
        retryable=False,
        sealed=seal(conclude(command, draft_of(command))) if is_execute else None,
        finished_at=finished_at or command.sent_at,
    )


def acknowledgement(change: Change, kind: AcknowledgementKind, at: datetime) -> Acknowledgement:
    """A commit of the billing store for this revision of ``change``."""
    return Acknowledgement(
        kind=kind,
        change_id=change.change_id,
        revision=change.revision,
        account_id=change.account_id,
        service_id=change.service_id,
        committed_at=at,
        late=kind is AcknowledgementKind.PERSISTED and at >= change.deadline_at,
    )
