"""The topics of object changes that the events worker follows, and how their records are keyed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from streams.core.errors import Poison
from streams.core.objects import (
    Account,
    AccountChange,
    BillRun,
    BillRunChange,
    Credit,
    CreditChange,
    Invoice,
    InvoiceChange,
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
from streams.core.rows import Kind, ObjectRow
from streams.core.usage.objects import Bucket, BucketChange, Contract, ContractChange, Sim, SimChange
from streams.kafka.chunks import Record
from streams.topics import SERVICE_PLANS

CHANGELOG = "events-store-changelog"

#: Topic → (kind, class of its changes, class of its objects).
FEEDS: Mapping[str, tuple[Kind, type[Any], type[Any]]] = {
    "billing.account": (Kind.ACCOUNT, AccountChange, Account),
    "billing.service": (Kind.SERVICE, ServiceChange, Service),
    "billing.package": (Kind.PACKAGE, PackageChange, Package),
    "billing.invoice": (Kind.INVOICE, InvoiceChange, Invoice),
    "billing.refund": (Kind.REFUND, RefundChange, Refund),
    "billing.credit": (Kind.CREDIT, CreditChange, Credit),
    "billing.payment": (Kind.PAYMENT, PaymentChange, Payment),
    "billing.bill-run": (Kind.BILL_RUN, BillRunChange, BillRun),
    SERVICE_PLANS: (Kind.SERVICE_PLAN, ServicePlanChange, ServicePlan),
    "billing.contract": (Kind.CONTRACT, ContractChange, Contract),
    # Kept by service and by bucket in the usage worker, which sends their changes on to the account.
    "usage.sims": (Kind.SIM, SimChange, Sim),
    "usage.buckets": (Kind.BUCKET, BucketChange, Bucket),
}


@dataclass(frozen=True, slots=True)
class Feed:
    """What is needed per record of one topic, bound once."""

    kind: Kind
    decode: Callable[[bytes | None], Any]
    row: Callable[[bytes], ObjectRow[Any]]


def routing_key(kind: Kind, subject: Any) -> str:
    """What a record of this kind has to be keyed by: the account, so that joins are local; bill runs by themselves."""
    key: str = subject.id if kind in (Kind.ACCOUNT, Kind.BILL_RUN) else subject.account_id
    return key


def check_key(record: Record, expected: str) -> None:
    """Raise Poison (``wrong_key``) for a record that lies with another key: its account's rows are elsewhere."""
    if record.key != expected.encode():
        raise Poison("wrong_key", f"the key is {record.key!r}, for this record it must be {expected!r}")
