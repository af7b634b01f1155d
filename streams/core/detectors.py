"""Detectors: what a change of an object means. Each is a small pure function; :data:`DETECTORS` registers them all.

A detector gets the change and what was known of the object before it (None when nothing was). It compares the change's
own ``previous`` and ``current``, so a gap in revisions never makes it guess. Whether a change is new at all has been
decided before, by :func:`streams.core.rows.follow`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from streams.core.catalogue import CATALOGUE
from streams.core.events import Audience, Finding, Value
from streams.core.graph import GRAPH
from streams.core.ids import event_id
from streams.core.objects import (
    AccountChange,
    AccountStatus,
    AnyChange,
    BillRunChange,
    BillRunState,
    CreditChange,
    CreditState,
    InvoiceChange,
    InvoiceState,
    PackageChange,
    PackageState,
    PaymentChange,
    PaymentState,
    RefundChange,
    RefundState,
    ServiceChange,
    ServicePlanChange,
)
from streams.core.rows import Kind
from streams.core.usage.objects import BucketChange, ContractChange, SimChange

#: A plan change becomes effective once, and an invoice is delivered for the first time once, whatever revision of the
#: object says so: their ids must not depend on a repetition.
ONCE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A change with its context: the object's kind, and ``before``, the object as the store knew it (or None)."""

    kind: Kind
    change: AnyChange
    before: Any = None


Detector = Callable[[Seen], Iterator[Finding]]


def service_state_transitioned(seen: Seen) -> Iterator[Finding]:
    """The state of a service differs."""
    return _transition(seen, "state", "service.state_transitioned")


def account_status_changed(seen: Seen) -> Iterator[Finding]:
    """The status of an account differs."""
    return _transition(seen, "status", "account.status_changed")


def account_cancelled(seen: Seen) -> Iterator[Finding]:
    """The status of an account becomes Cancelled."""
    return _transition(seen, "status", "account.cancelled", to=AccountStatus.CANCELLED)


def invoice_posted(seen: Seen) -> Iterator[Finding]:
    """The state of an invoice becomes Posted; one that is created so is posted too."""
    return _transition(seen, "state", "invoice.posted", to=InvoiceState.POSTED, created=True)


def invoice_delivered(seen: Seen) -> Iterator[Finding]:
    """An invoice is delivered for the first time; one that is created so is delivered too."""
    change = seen.change
    assert isinstance(change, InvoiceChange)
    invoice = change.current
    if invoice is None or invoice.delivered_at is None:
        return
    if any(known is not None and known.delivered_at is not None for known in (change.previous, seen.before)):
        return
    facts: dict[str, Value] = {"delivered_at": invoice.delivered_at}
    yield _finding(seen, "invoice.delivered", facts, cause=ONCE)


def refund_processed(seen: Seen) -> Iterator[Finding]:
    """The state of a refund becomes Processed; one that is created so is processed too."""
    return _transition(seen, "state", "refund.processed", to=RefundState.PROCESSED, created=True)


def credit_processed(seen: Seen) -> Iterator[Finding]:
    """The state of a credit becomes Processed; one that is created so is processed too."""
    return _transition(seen, "state", "credit.processed", to=CreditState.PROCESSED, created=True)


def payment_processed(seen: Seen) -> Iterator[Finding]:
    """The state of a payment becomes Processed; one that is created so is processed too."""
    return _transition(seen, "state", "payment.processed", to=PaymentState.PROCESSED, created=True)


def payment_failed(seen: Seen) -> Iterator[Finding]:
    """The state of a payment becomes Failed; one that is created so has failed too."""
    return _transition(seen, "state", "payment.failed", to=PaymentState.FAILED, created=True)


def account_package_changed(seen: Seen) -> Iterator[Finding]:
    """The package of an account changes its product."""
    change = seen.change
    assert isinstance(change, PackageChange)
    before, after = change.previous, change.current
    if before is not None and after is not None and before.product_id != after.product_id:
        facts: dict[str, Value] = {"from_product_id": before.product_id, "to_product_id": after.product_id}
        yield _finding(seen, "account_package.changed", facts)


def package_cancelled(seen: Seen) -> Iterator[Finding]:
    """The state of a package becomes Cancelled."""
    return _transition(seen, "state", "package.cancelled", to=PackageState.CANCELLED)


def bill_run_started(seen: Seen) -> Iterator[Finding]:
    """The state of a bill run becomes Started."""
    if _becomes(seen.change, "state", BillRunState.STARTED):
        yield _finding(seen, "bill_run.started", {})


def bill_run_completed(seen: Seen) -> Iterator[Finding]:
    """The state of a bill run becomes Completed; it is marked when its start was never seen."""
    run = seen.change.current
    if run is not None and _becomes(seen.change, "state", BillRunState.COMPLETED):
        start_missing = seen.before is None or seen.before.state == BillRunState.SCHEDULED
        facts: dict[str, Value] = {"accounts": run.accounts, "invoices": run.invoices}  # type: ignore[union-attr]
        yield _finding(seen, "bill_run.completed", {"start_missing": start_missing, **facts})


def rate_plan_change_effective(seen: Seen) -> Iterator[Finding]:
    """The plan of a service was made true by a rate plan change; a silent one is internal."""
    change = seen.change
    assert isinstance(change, ServicePlanChange)
    plan, before = change.current, change.previous
    if plan is None or plan.change_id is None or (before is not None and before.change_id == plan.change_id):
        return
    type = "rate_plan_change.effective"
    yield Finding(
        event_id=event_id(type, Kind.RATE_PLAN_CHANGE, plan.change_id, ONCE),
        type=type,
        occurred_at=change.occurred_at,
        subject_kind=Kind.RATE_PLAN_CHANGE,
        subject_id=plan.change_id,
        account_id=plan.account_id,
        sequence=change.revision,
        facts={
            "service_id": plan.service_id,
            "from_rate_plan_id": before.rate_plan_id if before else None,
            "to_rate_plan_id": plan.rate_plan_id,
            "from_product_id": before.product_id if before else None,
            "to_product_id": plan.product_id,
            "silent": plan.silent,
        },
        audience=Audience.INTERNAL if plan.silent else CATALOGUE[type].audience,
    )


#: Which detectors look at which changes; a new detector is registered here and nowhere else.
DETECTORS: Mapping[Kind, tuple[Detector, ...]] = {
    Kind.ACCOUNT: (account_status_changed, account_cancelled),
    Kind.SERVICE: (service_state_transitioned,),
    Kind.PACKAGE: (package_cancelled, account_package_changed),
    Kind.INVOICE: (invoice_posted, invoice_delivered),
    Kind.REFUND: (refund_processed,),
    Kind.CREDIT: (credit_processed,),
    Kind.PAYMENT: (payment_processed, payment_failed),
    Kind.BILL_RUN: (bill_run_started, bill_run_completed),
    Kind.SERVICE_PLAN: (rate_plan_change_effective,),
    # What usage means is decided where usage is, in the usage worker.
    Kind.SIM: (),
    Kind.BUCKET: (),
    Kind.CONTRACT: (),
}

#: The kind of object that a class of changes is about.
KINDS: Mapping[type[Any], Kind] = {
    AccountChange: Kind.ACCOUNT,
    ServiceChange: Kind.SERVICE,
    PackageChange: Kind.PACKAGE,
    InvoiceChange: Kind.INVOICE,
    RefundChange: Kind.REFUND,
    CreditChange: Kind.CREDIT,
    PaymentChange: Kind.PAYMENT,
    BillRunChange: Kind.BILL_RUN,
    ServicePlanChange: Kind.SERVICE_PLAN,
    SimChange: Kind.SIM,
    BucketChange: Kind.BUCKET,
    ContractChange: Kind.CONTRACT,
}


def detect(kind: Kind, change: AnyChange, before: Any, registered: Collection[str] = ()) -> list[Finding]:
    """Everything that ``change`` means; ``registered`` are the create, update and delete types that somebody wants."""
    seen = Seen(kind=kind, change=change, before=before)
    findings = [finding for detector in DETECTORS[kind] for finding in detector(seen)]
    if registered and (type := f"{kind}.{change.op}") in registered:
        findings.append(_finding(seen, type, {}))
    return findings


def _becomes(change: AnyChange, field: str, value: str) -> bool:
    if getattr(change.current, field, None) != value:
        return False
    return change.previous is None or getattr(change.previous, field) != value


def _transition(
    seen: Seen, field: str, type: str, to: str | None = None, *, created: bool = False
) -> Iterator[Finding]:
    """``field`` differs (and is ``to`` now). A new object has a state but has not changed it, unless ``created``."""
    change = seen.change
    if change.current is None or (change.previous is None and not created):
        return
    after: str = getattr(change.current, field)
    before: str | None = None if change.previous is None else getattr(change.previous, field)
    if before != after and (to is None or after == to):
        yield _finding(seen, type, {"from": before, "to": after})


def _finding(seen: Seen, type: str, facts: dict[str, Value], cause: int | None = None) -> Finding:
    change, subject = seen.change, seen.change.subject
    return Finding(
        event_id=event_id(type, seen.kind, subject.id, change.revision if cause is None else cause),
        type=type,
        occurred_at=change.occurred_at,
        subject_kind=seen.kind,
        subject_id=subject.id,
        account_id=_account_id(seen.kind, subject),
        sequence=change.revision,
        previous=plain_state(seen.kind, change.previous),
        current=plain_state(seen.kind, change.current),
        facts=facts,
        audience=CATALOGUE[type].audience,
    )


def _account_id(kind: Kind, subject: Any) -> str | None:
    if kind is Kind.BILL_RUN:
        return None
    id: str = subject.id if kind is Kind.ACCOUNT else subject.account_id
    return id


# An attrgetter reads all fields in one call; asking for each by name was the dearest line of an event.
_FIELDS: Mapping[Kind, tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]] = {
    kind: (tuple(GRAPH[kind].fields), attrgetter(*GRAPH[kind].fields)) for kind in DETECTORS
}


def plain_state(kind: Kind, subject: Any) -> dict[str, Value] | None:
    """The plain fields of an object, as findings carry them; None for none."""
    if subject is None:
        return None
    names, read = _FIELDS[kind]
    return dict(zip(names, read(subject), strict=True))
