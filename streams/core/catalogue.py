"""The catalogue of event types: the one place that says which events there are, about what, for whom and why.

``curfew events list``, the schemas' documentation and every check of a route or a subscription read it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from streams.core.events import Audience
from streams.core.rows import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class EventType:
    """One type. ``kind`` is the kind of its subject, ``facts`` what its ``facts`` hold (name → meaning), ``defaults``
    the parameters that it has unasked. ``raised`` is False while no detector raises it. A ``registered`` type (create,
    update, delete of an object) is raised only if an active route names it exactly."""

    type: str
    kind: str
    audience: Audience
    about: str
    facts: Mapping[str, str] = field(default_factory=dict)
    defaults: tuple[str, ...] = ()
    raised: bool = False
    registered: bool = False


CUSTOMER, INTERNAL = Audience.CUSTOMER, Audience.INTERNAL

#: Parameters that events about a kind have unasked: what nearly every message needs; no more, each costs a look-up.
DEFAULTS: Mapping[str, tuple[str, ...]] = {
    Kind.ACCOUNT: ("account.name", "account.status", "account.currency", "account.zone"),
    Kind.SERVICE: (
        "service.name",
        "service.state",
        "account.name",
        "account.currency",
        "rate_plan.name",
        "product.name",
    ),
    Kind.SERVICE_PLAN: ("service.name", "account.name", "rate_plan.name", "product.name"),
    Kind.PACKAGE: ("package.name", "package.state", "account.name", "product.name"),
    Kind.INVOICE: (
        "invoice.number",
        "invoice.amount",
        "invoice.balance",
        "invoice.currency",
        "invoice.due_date",
        "account.name",
        "bill_run.billing_period",
    ),
    Kind.REFUND: ("refund.amount", "refund.currency", "refund.reason", "account.name", "invoice.number"),
    Kind.CREDIT: ("credit.amount", "credit.currency", "credit.reason", "account.name", "invoice.number"),
    Kind.PAYMENT: (
        "payment.amount",
        "payment.currency",
        "payment.method",
        "payment.failure_reason",
        "account.name",
        "invoice.number",
    ),
    Kind.BILL_RUN: ("bill_run.billing_period", "bill_run.state", "bill_run.accounts", "bill_run.invoices"),
    Kind.SIM: ("sim.id", "sim.msisdn", "service.name", "account.name", "product.name"),
    Kind.BUCKET: ("bucket.name", "bucket.unit", "service.name", "account.name"),
    Kind.CONTRACT: ("contract.name", "contract.measure", "contract.unit", "contract.currency", "account.name"),
    Kind.RATE_PLAN_CHANGE: (
        "rate_plan_change.effective_date",
        "service.name",
        "account.name",
        "rate_plan.name",
        "from_rate_plan.name",
        "to_rate_plan.name",
    ),
}

_FROM_TO = {"from": "the state before, null for a new object", "to": "the state now"}
_OVERDUE_FACTS = {
    "due_date": "the due date that was breached, in the account's zone",
    "grace_days": "days of grace after it",
    "overdue_at": "the first instant after them in the account's zone",
    "balance": "what was left to be paid then",
}
_DELIVERED_PLUS_FACTS = {
    "rule": "name of the rule (`curfew events rules`)",
    "days": "its days after the first delivery",
    "at": "its local time, HH:MM",
    "delivered_at": "the first delivery",
    "due_at": "the instant that the rule gives in the account's zone",
}
_DORMANCY_FACTS = {
    "days": "after so many days without usage, the service active, a SIM of this product is dormant",
    "silent_since": "the end of the last day with usage (UTC), or the activation; this is the episode's identity",
    "dormant_at": "the UTC midnight at which the days were over",
}
_PERIOD_FACTS = {
    "period_start": "the period's first instant",
    "period_end": "the instant at which it ends",
    "period_starts_on": "its first date in the zone of the object",
    "period_ends_on": "the date on which it ends, exclusive",
    "late": "true when it is found after the period was over (after its grace, for a contract)",
}
_THRESHOLD_FACTS = {
    "tier": "number of the tier, from 1",
    "tiers": "how many there are",
    "tier_amount": "the amount of this tier",
    "threshold": "what had to be used: what was carried over, and all tiers up to this one",
    "used": "what has been used in the period",
    "usage_id": "the usage record; null when a change of the bucket is the cause",
    **_PERIOD_FACTS,
}
_COMMIT_FACTS = {
    "tier": "number of the commit tier, from 1",
    "tier_name": "its name, if it has one",
    "commit": "what was committed to",
    "measured": "what was measured, as contract.measure says",
    "shortfall": "commit less measured; zero when it is met",
    **_PERIOD_FACTS,
}


def _raised(
    type: str,
    kind: Kind,
    audience: Audience,
    about: str,
    facts: Mapping[str, str] | None = None,
    defaults: tuple[str, ...] | None = None,
) -> EventType:
    return EventType(
        type=type,
        kind=kind,
        audience=audience,
        about=about,
        facts=facts or {},
        defaults=DEFAULTS[kind] if defaults is None else defaults,
        raised=True,
    )


#: Kinds whose create, update and delete can be registered.
_CHANGING = (
    Kind.ACCOUNT,
    Kind.SERVICE,
    Kind.PACKAGE,
    Kind.INVOICE,
    Kind.REFUND,
    Kind.CREDIT,
    Kind.PAYMENT,
    Kind.BILL_RUN,
    Kind.SERVICE_PLAN,
    Kind.SIM,
    Kind.BUCKET,
    Kind.CONTRACT,
)


def _object_changes() -> Iterator[EventType]:
    for kind in _CHANGING:
        for op in ("created", "updated", "deleted"):
            yield EventType(
                type=f"{kind}.{op}",
                kind=kind,
                audience=INTERNAL,
                about=f"{op}; raised only if a route names this type exactly",
                defaults=DEFAULTS.get(kind, ()),
                raised=True,
                registered=True,
            )


_EFFECTIVE_FACTS = {
    "service_id": "the service",
    "from_rate_plan_id": "the rate plan before",
    "to_rate_plan_id": "the rate plan from the effective date on",
    "from_product_id": "the product before",
    "to_product_id": "the product from the effective date on",
    "silent": "true when the customer must not hear of it",
}
_PLAN_CHANGE_FACTS = {
    **_EFFECTIVE_FACTS,
    "element_key": "the matrix element that was ordered",
    "effective_date": "the local date in the account's zone from which the new plan is true",
    "start_at": "the instant from which it cannot be cancelled",
    "deadline_at": "the first instant of the effective date in the account's zone",
    "revision": "of the change",
    "missed": "true when it was not persisted before its deadline",
    "reason": "why, in short; null where there is nothing to say",
}


_FAILING_FACTS = {
    "name": "its name",
    "version": "the version of the subscription that fails; a newer one starts anew",
    "percent": "of disable_after_s that has passed; 100 when it is disabled",
    "failures": "in a row",
    "failing_since": "the first of them",
    "reason": "the last one, in short",
    "status": "the last HTTP status; null when there was no answer",
    "success_percent": "attempts of the last 24 hours that were delivered; null when there was none",
}


def _plan_change(step: str, audience: Audience, about: str, **facts: str) -> EventType:
    return _raised(f"rate_plan_change.{step}", Kind.RATE_PLAN_CHANGE, audience, about, _PLAN_CHANGE_FACTS | facts)


_ASKED = "the request of whoever wanted it; null where nobody has asked"


_TYPES = (
    _raised("service.state_transitioned", Kind.SERVICE, CUSTOMER, "the state of a service differs", _FROM_TO),
    _raised("account.status_changed", Kind.ACCOUNT, CUSTOMER, "the status of an account differs", _FROM_TO),
    _raised("account.cancelled", Kind.ACCOUNT, CUSTOMER, "the status of an account becomes Cancelled", _FROM_TO),
    _raised("bill_run.started", Kind.BILL_RUN, INTERNAL, "a bill run is initiated"),
    _raised(
        "bill_run.completed",
        Kind.BILL_RUN,
        INTERNAL,
        "a bill run is completed, with its counts",
        {
            "start_missing": "true when its start was never seen",
            "accounts": "accounts billed",
            "invoices": "invoices made",
        },
    ),
    _raised("invoice.posted", Kind.INVOICE, CUSTOMER, "the state of an invoice becomes Posted", _FROM_TO),
    _raised("package.cancelled", Kind.PACKAGE, CUSTOMER, "the state of a package becomes Cancelled", _FROM_TO),
    _raised(
        "invoice.overdue",
        Kind.INVOICE,
        CUSTOMER,
        "a balance is left after the payment terms; once per due date",
        _OVERDUE_FACTS,
    ),
    _raised(
        "invoice.delivered",
        Kind.INVOICE,
        CUSTOMER,
        "an invoice is delivered for the first time",
        {"delivered_at": "when"},
    ),
    _raised(
        "invoice.delivered_plus",
        Kind.INVOICE,
        CUSTOMER,
        "x days after the first delivery, at a local time; once per invoice and rule",
        _DELIVERED_PLUS_FACTS,
    ),
    _raised("refund.processed", Kind.REFUND, CUSTOMER, "the state of a refund becomes Processed", _FROM_TO),
    _raised("credit.processed", Kind.CREDIT, CUSTOMER, "the state of a credit becomes Processed", _FROM_TO),
    _raised(
        "contract.under_commit",
        Kind.CONTRACT,
        CUSTOMER,
        "a period closed below a commit tier, with the shortfall; one per tier and period",
        _COMMIT_FACTS,
    ),
    _raised(
        "contract.commit_met",
        Kind.CONTRACT,
        CUSTOMER,
        "late usage has met a commit tier that was told as missed: a correction of contract.under_commit",
        _COMMIT_FACTS,
    ),
    _raised(
        "sim.dormant",
        Kind.SIM,
        CUSTOMER,
        "no usage for N days in which the service was active; once per episode",
        _DORMANCY_FACTS,
    ),
    _raised(
        "sim.active_again",
        Kind.SIM,
        CUSTOMER,
        "the first usage after dormancy, or late usage that corrects it",
        {
            **_DORMANCY_FACTS,
            "usage_at": "the usage that ended it",
            "correction": "true for late usage, of before dormant_at: it had not been dormant",
        },
    ),
    _raised(
        "usage.threshold_exceeded",
        Kind.BUCKET,
        CUSTOMER,
        "a tier of a bucket is used up; one per tier and period, in order",
        _THRESHOLD_FACTS,
    ),
    _raised(
        "account_package.changed",
        Kind.PACKAGE,
        CUSTOMER,
        "the package of an account changes its product",
        {"from_product_id": "the product before", "to_product_id": "the product now"},
    ),
    _raised("payment.processed", Kind.PAYMENT, CUSTOMER, "the state of a payment becomes Processed", _FROM_TO),
    _raised("payment.failed", Kind.PAYMENT, CUSTOMER, "the state of a payment becomes Failed", _FROM_TO),
    _plan_change("ordered", CUSTOMER, "a rate plan change is ordered and pending", channel="where the order came from"),
    _plan_change("started", INTERNAL, "its start instant has passed; it can no longer be cancelled"),
    _plan_change("executed", INTERNAL, "its outcome is sealed"),
    _plan_change("persisted", INTERNAL, "the billing store has committed its outcome"),
    _plan_change("completed", INTERNAL, "its post processing is done"),
    _plan_change("cancelled", CUSTOMER, "it was cancelled before its start", request_id=_ASKED),
    _plan_change("superseded", INTERNAL, "another order took its place", superseded_by="that order's change"),
    _plan_change("rejected", CUSTOMER, "the order was refused", request_id="of the order"),
    _plan_change("failed", INTERNAL, "a step failed; it waits for a person"),
    _plan_change("at_risk", INTERNAL, "at the measured rate it will not be persisted before its deadline"),
    _plan_change(
        "missed", INTERNAL, "it was not persisted before its deadline", policy="what is done now; null: persisted, late"
    ),
    _plan_change("held", INTERNAL, "it waits for a person"),
    _plan_change(
        "rescheduled",
        INTERNAL,
        "it was rolled to another date, or its account moved to another zone",
        request_id=_ASKED,
        from_zone="the account's zone before, when that is the reason",
        zone="the account's zone now, when that is the reason",
    ),
    _plan_change("abandoned", INTERNAL, "a person has given it up", request_id=_ASKED),
    _raised(
        "rate_plan_change.rerate_requested",
        Kind.RATE_PLAN_CHANGE,
        INTERNAL,
        "it was persisted late: usage in [rerate_from, rerate_to) was rated on the old plan",
        _PLAN_CHANGE_FACTS | {"rerate_from": "the deadline", "rerate_to": "when it was persisted"},
    ),
    _plan_change(
        "task_released",
        INTERNAL,
        "a task may be done; a communication is for the customer",
        task_kind="provisioning or communication",
        task_name="its name, as the hook gave it",
    ),
    _raised(
        "rate_plan_change.effective",
        Kind.RATE_PLAN_CHANGE,
        CUSTOMER,
        "the new rate plan is true from now on",
        _EFFECTIVE_FACTS,
        ("service.name", "account.name", "rate_plan.name", "product.name", "from_rate_plan.name"),
    ),
    _raised(
        "subscription.failing",
        Kind.SUBSCRIPTION,
        INTERNAL,
        "nothing but failures for 50, 70 or 90 % of the time after which an endpoint is disabled",
        _FAILING_FACTS,
        (),
    ),
    _raised(
        "subscription.disabled",
        Kind.SUBSCRIPTION,
        INTERNAL,
        "an endpoint gets no more attempts: it failed for too long, or answered 410",
        _FAILING_FACTS,
        (),
    ),
    *_object_changes(),
)

_known: dict[str, EventType] = {event_type.type: event_type for event_type in _TYPES}
#: All types: those that come with Curfew, and those that calculations declare.
CATALOGUE: Mapping[str, EventType] = _known


def declare(types: Iterable[EventType]) -> None:
    """Add the types that this deployment's calculations raise; at the start of a process, before anything is routed."""
    for one in types:
        kind = one.kind
        _known[one.type] = replace(one, defaults=one.defaults or tuple(DEFAULTS.get(kind, ())))


def matching(pattern: str) -> tuple[str, ...]:
    """The types that a route's pattern means: an exact type, or ``group.*`` for a group's types.

    Registered types are never meant by a star: somebody who wants every update of every account has to say so.
    """
    if not pattern.endswith(".*"):
        return (pattern,) if pattern in CATALOGUE else ()
    prefix = pattern[:-1]
    return tuple(name for name, known in CATALOGUE.items() if name.startswith(prefix) and not known.registered)


def nearest_types(name: str) -> str:
    """ " (did you mean …?)", or nothing when no type is near."""
    longer = [known for known in CATALOGUE if name and known.startswith(name)]
    near = longer[:3] or difflib.get_close_matches(name, list(CATALOGUE), n=3)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
