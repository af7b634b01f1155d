"""The orders of the midnight bench: one plan change for each service, all for the same midnight, accounts skewed."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from streams.core.midnight import first_instant, start_instant
from streams.core.money import Fee
from streams.core.objects import AccountStatus, Membership, OptionTerm, ServicePlan, ServiceState
from streams.core.plan_change.matrix import DateRule, LatePolicy, MatrixElement, MissedPolicy
from streams.core.plan_change.messages import Request, RequestKind, ValidatedRequest
from streams.kafka.partitioner import partition_of

ZONE = "America/Sao_Paulo"
#: That date begins at 01:00 in São Paulo: its 00:00 does not exist.
NIGHT = date(2018, 11, 4)
LONG_AGO = datetime(2018, 1, 1, tzinfo=UTC)
PARTITIONS = 4

#: What real ones have: a fee, an option that comes and one that goes, so that a change is about seven rows.
ELEMENT = MatrixElement(
    key="basic-to-gold",
    from_product_id="mobile",
    from_rate_plan_id="basic",
    to_product_id="mobile",
    to_rate_plan_id="gold",
    date_rule=DateRule.TOMORROW,
    lead_hours=6,
    channels=("bulk",),
    fees=(Fee(code="change", amount=Decimal("12.50"), currency="BRL"),),
    late_policy=LatePolicy.REFUSE,
    missed_policy=MissedPolicy.FINISH_LATE,
    options_added=("hotspot",),
    options_removed=("roaming",),
)

DEADLINE = first_instant(ZONE, NIGHT)
START = start_instant(DEADLINE, ELEMENT.lead_hours)
#: Releases are spread over half of the lead; from here on all of them are due.
ALL_DUE = START + (DEADLINE - START) / 2
ORDERED = START - timedelta(hours=6)

#: The share of the largest account.
BIG_SHARE = 10


def service_id(number: int) -> str:
    return f"S{number:08}"


def account_id(number: int, changes: int) -> str:
    """The first tenth of the services is one account's; of the others, the first accounts have more, the last one."""
    big = changes // BIG_SHARE
    if number < big:
        return "A0000000"
    place = (number - big) / (changes - big)
    return f"A{1 + int(place**2 * (changes - big) / 2):07}"


def plan(number: int, changes: int) -> ServicePlan:
    """What the service has before the change."""
    return ServicePlan(
        service_id=service_id(number),
        account_id=account_id(number, changes),
        rate_plan_id=ELEMENT.from_rate_plan_id,
        product_id=ELEMENT.from_product_id,
        memberships=(Membership(rate_plan_id=ELEMENT.from_rate_plan_id, valid_from=LONG_AGO),),
        options=tuple(OptionTerm(option_id=option, valid_from=LONG_AGO) for option in ELEMENT.options_removed),
    )


def order(number: int, changes: int) -> ValidatedRequest:
    """The order of the service, as the account's partition passes it on."""
    held = plan(number, changes)
    return ValidatedRequest(
        request=Request(
            request_id=f"R{number:08}",
            kind=RequestKind.ORDER,
            account_id=held.account_id,
            service_id=held.service_id,
            element_key=ELEMENT.key,
            effective_date=None,
            silent=False,
            apply_fees=True,
            options=(),
            channel=ELEMENT.channels[0],
            expected_revision=None,
            requested_at=ORDERED,
        ),
        valid=True,
        reasons=(),
        zone=ZONE,
        billing_day=1,
        account_status=AccountStatus.ACTIVE,
        service_state=ServiceState.ACTIVE,
        rate_plan_id=held.rate_plan_id,
        product_id=held.product_id,
        memberships=held.memberships,
        options_held=held.options,
        plan_change_id=None,
    )


def probes(round_: int) -> list[ValidatedRequest]:
    """One cancel for each partition, of services that have nothing to cancel: each is answered with a refusal."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < PARTITIONS:
        name = f"PROBE-{round_}-{number}"
        found.setdefault(partition_of(name, PARTITIONS), name)
        number += 1
    return [
        ValidatedRequest(
            request=Request(
                request_id=name,
                kind=RequestKind.CANCEL,
                account_id="PROBE",
                service_id=name,
                element_key=None,
                effective_date=None,
                silent=True,
                apply_fees=False,
                options=(),
                channel="probe",
                expected_revision=None,
                requested_at=ORDERED,
            ),
            valid=False,
            reasons=(),
            zone=None,
            billing_day=None,
            account_status=None,
            service_state=None,
            rate_plan_id=None,
            product_id=None,
            memberships=(),
            options_held=(),
            plan_change_id=None,
        )
        for name in found.values()
    ]
