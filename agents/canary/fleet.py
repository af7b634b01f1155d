"""The canaries: 24 accounts, each with one service, in 24 zones; two plans and the way there and back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from agents.canary.probes import CHANNEL, ELEMENTS, HOUR, LEAD, PLANS, PREFIX
from streams.core.objects import (
    Account,
    AccountChange,
    Membership,
    Op,
    Product,
    RatePlan,
    Service,
    ServiceChange,
    ServicePlan,
)
from streams.core.plan_change.matrix import DateRule, LatePolicy, MatrixElement, MissedPolicy
from streams.topics import MATRIX_ELEMENTS

PRODUCT: Final = "canary"
_LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)


def zone_of(hour: int) -> str:
    """The zone in which it is midnight at ``hour`` UTC. Its names count westwards: Etc/GMT+3 is three hours behind."""
    behind = hour if hour <= 12 else hour - 24
    return f"Etc/GMT{behind:+d}" if behind else "Etc/GMT"


def objects() -> dict[str, Mapping[str, object]]:
    """Topic → key → record: what `curfew canary setup` writes, the same each time. Plans: see :func:`plans`."""
    hours = [f"{PREFIX}{hour:02}" for hour in range(24)]
    accounts = [_account(id) for id in hours]
    services = [Service(id=id, account_id=id, name=_name(id), state="Active") for id in hours]
    fields: dict[str, Any] = {"op": Op.CREATED, "revision": 1, "occurred_at": _LONG_AGO, "source": "curfew-canary"}
    return {
        "catalog.product": {PRODUCT: Product(id=PRODUCT, name="Canary")},
        "catalog.rate-plan": {plan: RatePlan(id=plan, product_id=PRODUCT, name=plan) for plan in PLANS},
        MATRIX_ELEMENTS: {
            key: _element(key, before, after)
            for key, before, after in zip(ELEMENTS, PLANS, reversed(PLANS), strict=True)
        },
        "billing.account": {one.id: AccountChange(current=one, **fields) for one in accounts},
        "billing.service": {one.account_id: ServiceChange(current=one, **fields) for one in services},
    }


def plans() -> list[ServicePlan]:
    """The plan of each canary at the beginning, for the billing store."""
    member = (Membership(rate_plan_id=PLANS[0], valid_from=_LONG_AGO),)
    return [
        ServicePlan(service_id=id, account_id=id, rate_plan_id=PLANS[0], product_id=PRODUCT, memberships=member)
        for id in (f"{PREFIX}{hour:02}" for hour in range(24))
    ]


def _name(id: str) -> str:
    return f"Canary {id.removeprefix(PREFIX)} UTC"


def _account(id: str) -> Account:
    return Account(
        id=id,
        status="Active",
        zone=zone_of(int(id.removeprefix(PREFIX))),
        currency="EUR",
        locale="en",
        name=_name(id),
        email="canary@localhost",
        billing_day=1,
    )


def _element(key: str, before: str, after: str) -> MatrixElement:
    return MatrixElement(
        key=key,
        from_product_id=PRODUCT,
        to_product_id=PRODUCT,
        from_rate_plan_id=before,
        to_rate_plan_id=after,
        date_rule=DateRule.TOMORROW,
        lead_hours=LEAD // HOUR,
        channels=(CHANNEL,),
        fees=(),
        late_policy=LatePolicy.REFUSE,
        # A canary that is late still arrives, so that the next one finds its service free.
        missed_policy=MissedPolicy.FINISH_LATE,
        options_added=(),
        options_removed=(),
    )
