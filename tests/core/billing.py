"""Billing objects and changes for tests: every maker has defaults, so that a test names only what it is about."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from streams.core.objects import (
    Account,
    AccountChange,
    BillRun,
    BillRunChange,
    Credit,
    CreditChange,
    Invoice,
    InvoiceChange,
    Op,
    Package,
    PackageChange,
    Payment,
    PaymentChange,
    Refund,
    RefundChange,
    Service,
    ServiceChange,
    ServicePlan,
    ServicePlanChange,
)

AT = datetime(2018, 11, 3, 21, 30, tzinfo=UTC)

ACCOUNT = Account(
    id="A1",
    status="Active",
    zone="America/Sao_Paulo",
    currency="BRL",
    locale="pt-BR",
    name="Padaria Aurora",
    email="contato@aurora.example",
    billing_day=31,
)
SERVICE = Service(id="S1", account_id="A1", name="+55 11 5550 0100", state="Active", package_id="P1")
PACKAGE = Package(id="P1", account_id="A1", product_id="fibre", name="Fibre at home", state="Active")
PLAN = ServicePlan(service_id="S1", account_id="A1", rate_plan_id="basic", product_id="fibre")
INVOICE = Invoice(
    id="I1",
    account_id="A1",
    bill_run_id="R1",
    number="2018-000017",
    amount=Decimal("129.90"),
    balance=Decimal("129.90"),
    currency="BRL",
    due_date=date(2018, 11, 30),
    state="Draft",
)
BILL_RUN = BillRun(id="R1", billing_period="2018-11", state="Scheduled")

_CLASSES: dict[type[Any], type[Any]] = {
    Account: AccountChange,
    Service: ServiceChange,
    Package: PackageChange,
    Invoice: InvoiceChange,
    Refund: RefundChange,
    Credit: CreditChange,
    Payment: PaymentChange,
    BillRun: BillRunChange,
    ServicePlan: ServicePlanChange,
}


def created(current: Any, revision: int = 1) -> Any:
    """The first change of an object."""
    return _CLASSES[type(current)](
        op=Op.CREATED, previous=None, current=current, revision=revision, occurred_at=AT, source="test"
    )


def updated(previous: Any, revision: int = 2, **fields: Any) -> Any:
    """``previous`` with other fields."""
    return _CLASSES[type(previous)](
        op=Op.UPDATED,
        previous=previous,
        current=replace(previous, **fields),
        revision=revision,
        occurred_at=AT,
        source="test",
    )


def deleted(previous: Any, revision: int = 2) -> Any:
    """The last change of an object."""
    return _CLASSES[type(previous)](
        op=Op.DELETED, previous=previous, current=None, revision=revision, occurred_at=AT, source="test"
    )
