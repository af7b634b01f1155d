"""Weeks in zones whose clocks change, and what has to be raised in them: once each, at the very instant.

Each zone has an account with invoices, a contract and a bucket by local months, and a SIM. The months begin on the day
of the zone's autumn change, so that periods end where midnight is missing, comes twice or lies an hour off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from streams.core.event_rules import EventRule
from streams.core.invoice_due import Taken, instants
from streams.core.midnight import first_instant
from streams.core.objects import Op, Service, ServiceChange
from streams.core.routing import Route, RouteAudience
from streams.core.usage.objects import PeriodRule, Sim, Usage
from tests.core.billing import INVOICE, created
from tests.events.scenarios.table import account
from tests.usage.makers import a_bucket, a_contract, a_rule, changed
from tests.usage.scenarios.stage import UsageStep

#: Zone → the day of the month on which its clocks change in the autumn of 2018 (Kathmandu's never do).
ZONES = {
    "Europe/Berlin": 28, "America/Sao_Paulo": 4, "America/Havana": 4, "Australia/Lord_Howe": 7, "Asia/Kathmandu": 1,
}  # fmt: skip
#: All changes of these zones between March 2018 and April 2019.
CHANGES = (date(2018, 3, 11), date(2018, 3, 25), date(2018, 4, 1), date(2018, 10, 7), date(2018, 10, 28),
           date(2018, 11, 4), date(2019, 2, 17), date(2019, 3, 10), date(2019, 3, 31), date(2019, 4, 7))  # fmt: skip
RULES = (EventRule(name="night", days=1, at="02:30"), EventRule(name="midnight", days=1, at="00:00"),
         EventRule(name="unpaid", days=2, at="01:30", only_while_unpaid=True))  # fmt: skip
DORMANT_AFTER = 10
SETUP = (*RULES, a_rule(DORMANT_AFTER))
TYPES = ("invoice.overdue", "invoice.delivered_plus", "contract.under_commit", "usage.threshold_exceeded",
         "sim.dormant", "sim.active_again")  # fmt: skip
ROUTE = Route(name="all", event_types=TYPES, queues=("operations",), audience=RouteAudience.ALL)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
HALF, DAY = timedelta(minutes=30), timedelta(days=1)

#: Type, subject, what of it (a rule, or its period's first day), instant.
Key = tuple[str, str, str, datetime]


def weeks(first: date, last: date, tag: str = "") -> tuple[list[UsageStep], Counter[Key]]:
    """What happens from ``first`` to before ``last``, and what it raises before :func:`ends`. ``tag`` makes other
    accounts of it."""
    steps: list[UsageStep] = []
    expected: Counter[Key] = Counter()
    for zone, month_day in ZONES.items():
        id = zone.replace("/", "-") + tag
        begin = first_instant(zone, first)
        made = replace(account(id), zone=zone)
        steps.append(UsageStep(at=begin, value=created(made)))
        for number, sent_on in enumerate(_invoice_days(first, last)):
            _invoice(steps, expected, f"{id}-{number}", id, zone, sent_on)
        _months(steps, expected, id, zone, month_day, first, last)
        _sim(steps, expected, id, begin, first, last)
    return steps, expected


def ends(last: date) -> datetime:
    """When these weeks are over, and all that is due in them has been raised: two days behind the last."""
    return datetime.combine(last, time(0), UTC) + 2 * DAY


def key_of(event: Any) -> Key:
    """Of an event or a finding."""
    what = event.facts.get("rule") or event.facts.get("period_starts_on") or ""
    return event.type, event.subject_id, str(what), event.occurred_at


def _invoice_days(first: date, last: date) -> Iterator[date]:
    """Each day near a change, otherwise each week."""
    for number in range((last - first).days - 3):
        day = first + number * DAY
        if day.weekday() == 2 or any(abs(day - change) <= 3 * DAY for change in CHANGES):
            yield day


def _invoice(
    steps: list[UsageStep], expected: Counter[Key], id: str, account_id: str, zone: str, sent_on: date
) -> None:
    sent = datetime.combine(sent_on, time(12), UTC)
    invoice = replace(INVOICE, id=id, account_id=account_id, state="Posted", delivered_at=sent, due_date=sent_on)
    steps.append(UsageStep(at=sent, value=replace(created(invoice), occurred_at=sent)))
    taken = [Taken(rule=rule, since=LONG_AGO) for rule in RULES]
    for task, at in instants(invoice, zone, taken).items():
        kind, _, name = task.partition(" ")
        type = "invoice.delivered_plus" if kind == "plus" else "invoice.overdue"
        expected[type, id, name if kind == "plus" else "", at] += 1


def _months(
    steps: list[UsageStep], expected: Counter[Key], id: str, zone: str, month_day: int, first: date, last: date
) -> None:
    """Usage half an hour inside of both ends of the even months, else only at its beginning: 60 of 100 each."""
    start = next(day for n in range(32) if (day := first + n * DAY).day == month_day)
    rule = PeriodRule(zone=zone, starts_on=start, months=1)
    defined = first_instant(zone, first) + HALF
    definitions = (
        a_contract(100, id=f"{id}-K", account_id=id, period=rule),
        a_bucket(id=f"{id}-B", account_id=id, service_id=f"{id}-S", period=rule, tiers=(Decimal(100),)),
    )
    steps += (UsageStep(at=defined, value=replace(changed(one), occurred_at=defined)) for one in definitions)
    while (end := _next_month(start)) <= last:
        begins, closes = first_instant(zone, start), first_instant(zone, end)
        full = start.month % 2 == 0
        for at in (begins + HALF, *((closes - HALF,) if full else ())):
            used = Usage(
                id=f"{id}-{at.isoformat()}", account_id=id, service_id=f"{id}-S", unit="MB", quantity=Decimal(60),
                event_time=at, bucket_id=f"{id}-B", contract_id=f"{id}-K",
            )  # fmt: skip
            steps.append(UsageStep(at=at, value=used))
        if full:
            expected["usage.threshold_exceeded", f"{id}-B", str(start), closes - HALF] += 1
        else:
            expected["contract.under_commit", f"{id}-K", str(start), closes] += 1
        start = end


def _next_month(day: date) -> date:
    return (day.replace(day=1) + 32 * DAY).replace(day=day.day)


def _sim(steps: list[UsageStep], expected: Counter[Key], id: str, begin: datetime, first: date, last: date) -> None:
    """On a service of its own, used now and then; its days are UTC's, whatever the clocks of the account do."""
    service = Service(id=f"{id}-S2", account_id=id, name="meter", state="Active")
    activated = datetime.combine(first + DAY, time(0), UTC)
    sim = Sim(id=f"{id}-SIM", account_id=id, service_id=service.id, activated_at=activated)
    create = ServiceChange(op=Op.CREATED, current=service, revision=1, occurred_at=begin, source="test")
    steps += (
        UsageStep(at=begin, value=create),
        UsageStep(at=begin + HALF, value=replace(changed(sim), occurred_at=begin)),
    )
    silent = activated
    while (dormant := silent + DORMANT_AFTER * DAY) < ends(last):
        expected["sim.dormant", sim.id, "", dormant] += 1
        used_at = dormant + 1.5 * DAY
        if used_at.date() >= last:
            break
        used = Usage(
            id=f"{id}-{used_at.isoformat()}", account_id=id, service_id=service.id, unit="MB", quantity=Decimal(1),
            event_time=used_at,
        )  # fmt: skip
        steps.append(UsageStep(at=used_at, value=used))
        expected["sim.active_again", sim.id, "", used_at] += 1
        silent = datetime.combine(used_at.date() + DAY, time(0), UTC)
