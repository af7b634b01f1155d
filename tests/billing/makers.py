"""Plans, sealed outcomes and settlements for the tests of the billing store, short to write."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from streams.core.money import Fee
from streams.core.objects import Membership, OptionTerm, ServicePlan
from streams.core.outcome import Outcome, Release, Task, TaskKind, seal
from streams.core.plan_change.messages import CommandStep, ExecutionResult, ExecutionVerdict, Settlement, SettlementKind

#: São Paulo, 2018-11-04: the date begins at 01:00 local, since 00:00 does not exist.
MIDNIGHT = datetime(2018, 11, 4, 3, tzinfo=UTC)
NEXT_MIDNIGHT = MIDNIGHT + timedelta(days=1)
EVENING = MIDNIGHT - timedelta(hours=4)
MORNING = MIDNIGHT + timedelta(hours=6)
LONG_AGO = datetime(2018, 1, 1, tzinfo=UTC)


def at(instant: datetime) -> Any:
    """A clock that stands still."""
    return lambda: instant


def plan(number: int, **fields: Any) -> ServicePlan:
    """Service ``s<number>`` of account ``a<number>``, in rate plan BASIC with option ``roaming`` for long."""
    held = ServicePlan(
        service_id=f"s{number}",
        account_id=f"a{number}",
        rate_plan_id="BASIC",
        product_id="MOBILE",
        memberships=(Membership(rate_plan_id="BASIC", valid_from=LONG_AGO),),
        options=(OptionTerm(option_id="roaming", valid_from=LONG_AGO),),
    )
    return replace(held, **fields)


def outcome(number: int, **fields: Any) -> Outcome:
    """Change ``c<number>``: from BASIC to GOLD at :data:`MIDNIGHT`, with an option in, one out, a fee and a task."""
    at = fields.get("effective_from", MIDNIGHT)
    to = fields.get("to_rate_plan_id", "GOLD")
    made = Outcome(
        change_id=f"c{number}",
        revision=1,
        command_id=f"k{number}",
        account_id=f"a{number}",
        service_id=f"s{number}",
        from_rate_plan_id="BASIC",
        to_rate_plan_id=to,
        from_product_id="MOBILE",
        to_product_id="MOBILE+",
        effective_date=date(2018, 11, 4),
        zone="America/Sao_Paulo",
        effective_from=at,
        memberships=(Membership(rate_plan_id=to, valid_from=at),),
        options_created=(OptionTerm(option_id="hotspot", valid_from=at),),
        options_ended=("roaming",),
        fees=(Fee(code="CHANGE", amount=Decimal("12.500000"), currency="BRL"),),
        tasks=(
            Task(kind=TaskKind.PROVISIONING, name="apn", release=Release.EFFECTIVE, details={"apn": "gold.example"}),
        ),
        silent=False,
        sealed_at=EVENING,
    )
    return replace(made, **fields)


def sealed(number: int, **fields: Any) -> ExecutionResult:
    """The executor's result that carries :func:`outcome` sealed."""
    made = seal(outcome(number, **fields))
    return ExecutionResult(
        command_id=made.outcome.command_id,
        step=CommandStep.EXECUTE,
        attempt=1,
        change_id=made.outcome.change_id,
        revision=made.outcome.revision,
        account_id=made.outcome.account_id,
        service_id=made.outcome.service_id,
        verdict=ExecutionVerdict.SEALED,
        reason=None,
        retryable=False,
        sealed=made,
        finished_at=EVENING,
    )


def settlement(kind: SettlementKind, number: int, **fields: Any) -> Settlement:
    """For change ``c<number>`` at :data:`MIDNIGHT`; late writing is accepted unless a field says otherwise."""
    made = Settlement(
        kind=kind,
        change_id=f"c{number}",
        revision=1,
        account_id=f"a{number}",
        service_id=f"s{number}",
        deadline_at=MIDNIGHT,
        accept_late=True,
        sent_at=MIDNIGHT,
    )
    return replace(made, **fields)


def closing(number: int, **fields: Any) -> Settlement:
    return settlement(SettlementKind.CLOSE, number, **fields)


def releasing(number: int, **fields: Any) -> Settlement:
    return settlement(SettlementKind.RELEASE, number, **fields)
