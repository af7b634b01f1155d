"""What the billing engine itself changes in the night: states, statuses, and one bill run with its invoices."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TypeVar

from agents.demo.fleet import FOUNDED, Fleet
from agents.demo.script import Sending
from streams.core.objects import (
    AccountChange,
    AccountStatus,
    BillRun,
    BillRunChange,
    BillRunState,
    Invoice,
    InvoiceChange,
    InvoiceState,
    Op,
    PackageChange,
    ServiceChange,
    ServiceState,
)

SOURCE = "billing-engine"
#: One in so many services changes its state, accounts their status, accounts get an invoice.
STATE_CHANGES, STATUS_CHANGES, INVOICED = 8, 40, 5
ACCOUNTS, SERVICES, PACKAGES = "billing.account", "billing.service", "billing.package"
INVOICES, BILL_RUNS = "billing.invoice", "billing.bill-run"

Change = TypeVar("Change", AccountChange, ServiceChange, PackageChange, InvoiceChange, BillRunChange)


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """The billing engine's records, and how many events of each type they have to raise."""

    sendings: list[Sending]
    raised: Counter[str]


def created(fleet: Fleet) -> Iterator[Sending]:
    """The whole fleet as creations, in an order in which joins find what they need."""
    for account in fleet.accounts:
        value = _change(AccountChange, None, account, 1, FOUNDED)
        yield Sending(at=FOUNDED, topic=ACCOUNTS, key=account.id, value=value)
    for package in fleet.packages:
        created_package = _change(PackageChange, None, package, 1, FOUNDED)
        yield Sending(at=FOUNDED, topic=PACKAGES, key=package.account_id, value=created_package)
    for service in fleet.services:
        created_service = _change(ServiceChange, None, service, 1, FOUNDED)
        yield Sending(at=FOUNDED, topic=SERVICES, key=service.account_id, value=created_service)


def write(fleet: Fleet, start: datetime, end: datetime, rng: random.Random) -> Night:
    """Billing changes between ``start`` and ``end``."""
    sendings = [*_states(fleet, start, end, rng), *_statuses(fleet, start, end, rng), *_bill_run(fleet, start, rng)]
    return Night(sendings=sendings, raised=Counter(_raises(sending) for sending in sendings if _raises(sending)))


def _states(fleet: Fleet, start: datetime, end: datetime, rng: random.Random) -> Iterator[Sending]:
    others = [service for service in fleet.services if service.account_id != fleet.big.id]
    for service in rng.sample(others, k=len(others) // STATE_CHANGES):
        at = _some_time(start, end, rng)
        new = ServiceState.ACTIVE if service.state == ServiceState.PREACTIVE else ServiceState.SUSPENDED
        later = replace(service, state=new)
        yield Sending(
            at=at, topic=SERVICES, key=service.account_id, value=_change(ServiceChange, service, later, 2, at)
        )
        if new is ServiceState.SUSPENDED and rng.random() < 0.3 and (back_at := at + timedelta(hours=2)) < end:
            back = _change(ServiceChange, later, replace(later, state=ServiceState.ACTIVE), 3, back_at)
            yield Sending(at=back_at, topic=SERVICES, key=service.account_id, value=back)


def _statuses(fleet: Fleet, start: datetime, end: datetime, rng: random.Random) -> Iterator[Sending]:
    for account in rng.sample(fleet.accounts[1:], k=len(fleet.accounts) // STATUS_CHANGES):
        at = _some_time(start, end, rng)
        later = replace(account, status=AccountStatus.SUSPENDED)
        yield Sending(at=at, topic=ACCOUNTS, key=account.id, value=_change(AccountChange, account, later, 2, at))


def _bill_run(fleet: Fleet, start: datetime, rng: random.Random) -> Iterator[Sending]:
    """Scheduled, started, invoices drafted and posted, completed with counts: six hours."""
    billed = rng.sample(fleet.accounts, k=max(1, len(fleet.accounts) // INVOICED))
    began = start + timedelta(hours=8)
    posted = began + timedelta(hours=4)
    runs = (
        BillRun(id="BR-2018-10", billing_period="2018-10", state=BillRunState.SCHEDULED),
        BillRun(id="BR-2018-10", billing_period="2018-10", state=BillRunState.STARTED),
        BillRun(
            id="BR-2018-10",
            billing_period="2018-10",
            state=BillRunState.COMPLETED,
            accounts=len(billed),
            invoices=len(billed),
        ),
    )
    times = (start + timedelta(hours=1), began, began + timedelta(hours=6))
    for revision, (before, run, at) in enumerate(zip((None, *runs), runs, times, strict=False), 1):
        yield Sending(at=at, topic=BILL_RUNS, key=run.id, value=_change(BillRunChange, before, run, revision, at))
    for number, account in enumerate(billed, 1):
        draft = Invoice(
            id=f"I{number:06}",
            account_id=account.id,
            bill_run_id=runs[0].id,
            number=f"2018-10-{number:06}",
            amount=(amount := Decimal(rng.randrange(990, 19_900)) / 100),
            balance=amount,
            currency=account.currency,
            due_date=date(2018, 11, 18),
            state=InvoiceState.DRAFT,
        )
        drafted_at, posted_at = _some_time(began, posted, rng), _some_time(posted, times[2], rng)
        change = _change(InvoiceChange, None, draft, 1, drafted_at)
        yield Sending(at=drafted_at, topic=INVOICES, key=account.id, value=change)
        change = _change(InvoiceChange, draft, replace(draft, state=InvoiceState.POSTED), 2, posted_at)
        yield Sending(at=posted_at, topic=INVOICES, key=account.id, value=change)


def _raises(sending: Sending) -> str:
    """The type of the event that the detectors have to find in this record, or nothing."""
    match sending.value:
        case ServiceChange():
            return "service.state_transitioned"
        case AccountChange():
            return "account.status_changed"
        case InvoiceChange(op=Op.UPDATED):
            return "invoice.posted"
        case BillRunChange(op=Op.UPDATED, current=BillRun(state=state)):
            return f"bill_run.{state.lower()}"
        case _:
            return ""


def _change(cls: type[Change], previous: object | None, current: object, revision: int, at: datetime) -> Change:
    op = Op.CREATED if previous is None else Op.UPDATED
    return cls(op=op, previous=previous, current=current, revision=revision, occurred_at=at, source=SOURCE)  # type: ignore[arg-type]


def _some_time(start: datetime, end: datetime, rng: random.Random) -> datetime:
    return start + timedelta(seconds=rng.randrange(int((end - start).total_seconds())))
