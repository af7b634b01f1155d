"""Billing objects as they travel on the object-change topics, and the change records themselves.

Every object has changes with ``previous`` and ``current``, numbered per object by ``revision`` (starts at 1, set by the
one writer of the object's kind). States are open text, since billing systems add their own; the ones that Curfew reacts
to are named below. Money is Decimal with a currency, instants are aware UTC datetimes with millisecond precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

#: Ten years: more is a number of another field, and an instant derived from it would be out of every calendar.
MAX_GRACE_DAYS = 3_650


class Op(StrEnum):
    """What happened to the object."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"


class AccountStatus(StrEnum):
    """Statuses of an account that Curfew knows by name; others pass through."""

    ACTIVE = "Active"
    SUSPENDED = "Suspended"
    CANCELLED = "Cancelled"


class ServiceState(StrEnum):
    """States of a service that Curfew knows by name; others pass through."""

    PREACTIVE = "Preactive"
    ACTIVE = "Active"
    SUSPENDED = "Suspended"
    CANCELLED = "Cancelled"


class PackageState(StrEnum):
    """States of a package that Curfew knows by name; others pass through."""

    ACTIVE = "Active"
    CANCELLED = "Cancelled"


class InvoiceState(StrEnum):
    """States of an invoice that Curfew knows by name; others pass through."""

    DRAFT = "Draft"
    POSTED = "Posted"
    PAID = "Paid"
    CANCELLED = "Cancelled"


class RefundState(StrEnum):
    """States of a refund that Curfew knows by name; others pass through."""

    PROCESSED = "Processed"


class CreditState(StrEnum):
    """States of a credit that Curfew knows by name; others pass through."""

    PROCESSED = "Processed"


class PaymentState(StrEnum):
    """States of a payment that Curfew knows by name; others pass through."""

    PROCESSED = "Processed"
    FAILED = "Failed"


class BillRunState(StrEnum):
    """States of a bill run that Curfew knows by name; others pass through."""

    SCHEDULED = "Scheduled"
    STARTED = "Started"
    COMPLETED = "Completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A customer account; ``zone`` is its IANA time zone, ``billing_day`` 1–31 (31 means the last day of a month)."""

    id: str
    status: str
    zone: str
    currency: str
    locale: str
    name: str
    email: str
    billing_day: int

    def __post_init__(self) -> None:
        if not 1 <= self.billing_day <= 31:
            raise ValueError(f"billing_day of account {self.id} is {self.billing_day}; it must be 1 to 31")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What an account uses, e.g. a line or a SIM; its rate plan is a :class:`ServicePlan` of its own."""

    id: str
    account_id: str
    name: str
    state: str
    package_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A product as one account has bought it."""

    id: str
    account_id: str
    product_id: str
    name: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    """An invoice; ``amount`` and ``balance`` are in ``currency``, ``due_date`` is a date in the account's zone.

    Its terms are breached when ``grace_days`` after the due date have passed and a balance is left; ``terms`` is their
    name for people. ``delivered_at`` is the instant of its first delivery.
    """

    id: str
    account_id: str
    bill_run_id: str | None = None
    number: str
    amount: Decimal
    balance: Decimal
    currency: str
    due_date: date
    state: str
    terms: str | None = None
    grace_days: int = 0
    delivered_at: datetime | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.grace_days <= MAX_GRACE_DAYS:
            raise ValueError(f"grace_days of invoice {self.id} is {self.grace_days}; it must be 0 to {MAX_GRACE_DAYS}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """Money given back to an account, for one invoice or for none."""

    id: str
    account_id: str
    invoice_id: str | None = None
    amount: Decimal
    currency: str
    reason: str | None = None
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """An amount that an account need not pay, for one invoice or for none."""

    id: str
    account_id: str
    invoice_id: str | None = None
    amount: Decimal
    currency: str
    reason: str | None = None
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """Money from an account, for one invoice or for none; ``failure_reason`` is the payment provider's."""

    id: str
    account_id: str
    invoice_id: str | None = None
    amount: Decimal
    currency: str
    method: str
    state: str
    failure_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BillRun:
    """A bill run over many accounts; the counts are known when it is completed."""

    id: str
    billing_period: str
    state: str
    accounts: int | None = None
    invoices: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """A billing group member: the service has this rate plan in [valid_from, valid_to); None is open-ended."""

    rate_plan_id: str
    valid_from: datetime
    valid_to: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionTerm:
    """The service has this option in [valid_from, valid_to); None is open-ended."""

    option_id: str
    valid_from: datetime
    valid_to: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePlan:
    """Rate plan, product, memberships and options of a service, once they are true; only the persister writes it.

    ``change_id`` names the rate plan change that made it so (None for the initial state), ``silent`` says that this
    change must not reach the customer.
    """

    service_id: str
    account_id: str
    rate_plan_id: str
    product_id: str
    memberships: tuple[Membership, ...] = ()
    options: tuple[OptionTerm, ...] = ()
    change_id: str | None = None
    silent: bool = False

    @property
    def id(self) -> str:
        """The plan of a service has the service's id, as every object has an ``id``."""
        return self.service_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A product of the catalogue."""

    id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RatePlan:
    """A rate plan of the catalogue; it belongs to one product."""

    id: str
    product_id: str
    name: str


BillingObject = Account | Service | Package | Invoice | Refund | Credit | Payment | BillRun | ServicePlan


class Identified(Protocol):
    """Whatever has changes: an object with an id."""

    @property
    def id(self) -> str: ...


X = TypeVar("X", bound=Identified)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Generic[X]):
    """One create, update or delete of an object; a change that contradicts itself raises ValueError when it is built.

    ``revision`` counts the changes of this object from 1, ``occurred_at`` is business time (UTC), ``source`` names the
    system that made the change.
    """

    op: Op
    previous: X | None = None
    current: X | None = None
    revision: int
    occurred_at: datetime
    source: str

    def __post_init__(self) -> None:
        if self.revision < 1:
            raise ValueError(f"revision {self.revision}: revisions of an object start at 1")
        if (self.previous is None) != (self.op == "created") or (self.current is None) != (self.op == "deleted"):
            raise ValueError(
                f"{self.op}: created goes with `current` only, updated with both, deleted with `previous` only"
            )
        if self.previous is not None and self.current is not None and self.previous.id != self.current.id:
            raise ValueError(
                f"previous is {self.previous.id!r} and current is {self.current.id!r}: one change, one object"
            )

    @property
    def subject(self) -> X:
        """The object as it is now, or as it was last if it is deleted."""
        found = self.previous if self.current is None else self.current
        assert found is not None  # __post_init__ saw to it
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountChange(Change[Account]):
    """A change of an account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceChange(Change[Service]):
    """A change of a service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageChange(Change[Package]):
    """A change of a package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceChange(Change[Invoice]):
    """A change of an invoice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundChange(Change[Refund]):
    """A change of a refund."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditChange(Change[Credit]):
    """A change of a credit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentChange(Change[Payment]):
    """A change of a payment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BillRunChange(Change[BillRun]):
    """A change of a bill run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePlanChange(Change[ServicePlan]):
    """A change of a service's plan."""


AnyChange = (
    AccountChange
    | ServiceChange
    | PackageChange
    | InvoiceChange
    | RefundChange
    | CreditChange
    | PaymentChange
    | BillRunChange
    | ServicePlanChange
)
