"""For every type of event that the account half raises: when it is raised, with which values, and when it is not.

Each scenario has an account of its own, so all of them are played at once on one worker. ``expect`` is None where the
type must not be raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from streams.core.catalogue import CATALOGUE
from streams.core.event_rules import EventRule
from streams.core.events import Audience, Value
from streams.core.objects import (
    Account,
    BillRun,
    Credit,
    Invoice,
    Package,
    Payment,
    Refund,
    Service,
    ServicePlan,
)
from tests.core.billing import created, deleted, updated
from tests.events.scenarios.changes import Life, life, other_life
from tests.events.scenarios.stage import Step

#: Friday noon; Berlin's clocks go back in the night to Sunday: 02:30 of the 28th comes twice.
T0 = datetime(2018, 10, 26, 12, tzinfo=UTC)
T1, T2 = T0 + timedelta(hours=1), T0 + timedelta(hours=2)
#: After the spring's change, and after everything that is due.
END = datetime(2019, 4, 20, tzinfo=UTC)
MS = timedelta(milliseconds=1)
DUE = date(2018, 11, 9)
#: The first instant of 2018-11-13 in Berlin: due date, three days of grace, and the day after.
BREACHED = datetime(2018, 11, 12, 23, tzinfo=UTC)
RULES = (
    EventRule(name="night", days=1, at="02:30"),
    EventRule(name="unpaid", days=2, at="09:00", only_while_unpaid=True),
    EventRule(name="off", days=0, at="23:00", active=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the event has to say. ``facts`` are all of them; of the states only what is named here."""

    subject: tuple[str, str]
    facts: dict[str, Value]
    parameters: dict[str, Value]
    at: datetime
    previous: dict[str, Value] | None = None
    current: dict[str, Value] | None = None
    audience: Audience | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Steps of the account (or bill run) ``id``, and what they raise of ``type``: exactly these, or nothing."""

    type: str
    what: str
    id: str
    steps: tuple[Step, ...]
    expect: tuple[Expected, ...] = ()

    def __str__(self) -> str:
        return f"{self.type}-{self.what}".replace(" ", "-")


# -- the world of one account ---------------------------------------------------------------------------------------


def account(id: str) -> Account:
    return Account(
        id=id, status="Active", zone="Europe/Berlin", currency="EUR", locale="de-DE", name=f"Ada {id}",
        email="ada@example.com", billing_day=15,
    )  # fmt: skip


def service(id: str) -> Service:
    return Service(id=f"{id}-S", account_id=id, name="line 1", state="Active", package_id=f"{id}-P")


def package(id: str) -> Package:
    return Package(id=f"{id}-P", account_id=id, product_id="fibre", name="Fibre at home", state="Active")


def plan(id: str) -> ServicePlan:
    return ServicePlan(service_id=f"{id}-S", account_id=id, rate_plan_id="basic", product_id="fibre")


def invoice(id: str, **fields: Any) -> Invoice:
    made = Invoice(
        id=f"{id}-I", account_id=id, bill_run_id="R1", number="2018-17", amount=Decimal("129.90"),
        balance=Decimal("100.00"), currency="EUR", due_date=DUE, state="Posted", terms="net-14", grace_days=3,
    )  # fmt: skip
    return replace(made, **fields)


def refund(id: str) -> Refund:
    return Refund(id=f"{id}-R", account_id=id, invoice_id=f"{id}-I", amount=Decimal("5.50"), currency="EUR",
                  reason="charged twice", state="Requested")  # fmt: skip


def credit(id: str) -> Credit:
    return Credit(id=f"{id}-C", account_id=id, invoice_id=f"{id}-I", amount=Decimal("7.00"), currency="EUR",
                  reason="outage", state="Approved")  # fmt: skip


def payment(id: str) -> Payment:
    return Payment(id=f"{id}-M", account_id=id, invoice_id=f"{id}-I", amount=Decimal("100.00"), currency="EUR",
                   method="card", state="Pending")  # fmt: skip


def bill_run(id: str) -> BillRun:
    return BillRun(id=id, billing_period="2018-10", state="Scheduled")


MAKERS: dict[str, Callable[[str], Any]] = {
    "account": account, "service": service, "package": package, "invoice": invoice, "refund": refund,
    "credit": credit, "payment": payment, "bill_run": bill_run, "service_plan": plan,
}  # fmt: skip
ORDER = ("account", "service", "package", "service_plan", "invoice")


def defaults(kind: str, id: str) -> dict[str, Value]:
    """The values of the default parameters of an event about the world's object of this kind."""
    named: dict[str, Value] = {"account.name": f"Ada {id}"}
    ada: dict[str, Value] = {**named, "invoice.number": "2018-17"}
    rated: dict[str, Value] = {"rate_plan.name": "Basic 50", "product.name": "Fibre"}
    values: dict[str, dict[str, Value]] = {
        "account": {**named, "account.status": "Active", "account.currency": "EUR", "account.zone": "Europe/Berlin"},
        "service": {
            **named, "service.name": "line 1", "service.state": "Active", "account.currency": "EUR", **rated,
        },
        "service_plan": {**named, "service.name": "line 1", **rated},
        "package": {
            **named, "package.name": "Fibre at home", "package.state": "Active", "product.name": "Fibre",
        },
        "invoice": {
            **named, "invoice.number": "2018-17", "invoice.amount": Decimal("129.90"),
            "invoice.balance": Decimal("100.00"), "invoice.currency": "EUR", "invoice.due_date": DUE,
            "bill_run.billing_period": "2018-10",
        },
        "refund": {
            **ada, "refund.amount": Decimal("5.50"), "refund.currency": "EUR", "refund.reason": "charged twice",
        },
        "credit": {**ada, "credit.amount": Decimal("7.00"), "credit.currency": "EUR", "credit.reason": "outage"},
        "payment": {
            **ada, "payment.amount": Decimal("100.00"), "payment.currency": "EUR", "payment.method": "card",
            "payment.failure_reason": None,
        },
        "bill_run": {
            "bill_run.billing_period": "2018-10", "bill_run.state": "Scheduled", "bill_run.accounts": None,
            "bill_run.invoices": None,
        },
        "rate_plan_change": {
            **named, "service.name": "line 1", "rate_plan.name": "Basic 50", "from_rate_plan.name": "Basic 50",
            "to_rate_plan.name": "Plus 200", "rate_plan_change.effective_date": date(2018, 11, 4),
        },
    }  # fmt: skip
    return values[kind]


def world(id: str, without: str = "") -> tuple[Step, ...]:
    """The account and what belongs to it, created at T0; without the kind that the scenario is about."""
    return tuple(Step(at=T0, value=created(MAKERS[kind](id))) for kind in ORDER if kind != without)


def at(instant: datetime, change: Any) -> Step:
    return Step(at=instant, value=replace(change, occurred_at=instant))


# -- the scenarios --------------------------------------------------------------------------------------------------


def becomes(
    type: str, kind: str, field: str, before: str, after: str, *, prefix: str | None = None, **more: Any
) -> Iterator[Scenario]:
    """A field of the object differs: raised; another field differs: not."""
    for what, id in (("raised", f"{type}-yes"), ("not-raised", f"{type}-no")):
        first = replace(MAKERS[kind](id), **{field: before})
        then = updated(first, 2, **{field: after, **more})
        other = updated(first, 2, **{"name" if kind in ("service", "account", "package") else "currency": "EUR2"})
        steps = (*world(id, kind), at(T0, created(first)), at(T1, then if what == "raised" else other))
        parameters = {**defaults(kind, id)}
        for name, value in ((field, after), *more.items()):
            if f"{kind}.{name}" in parameters:
                parameters[f"{kind}.{name}"] = value
        expected = Expected(
            subject=(kind, first.id), facts={"from": before, "to": after}, parameters=parameters, at=T1,
            previous={field: before}, current={field: after},
        )  # fmt: skip
        yield Scenario(type=type, what=what, id=id, steps=steps, expect=(expected,) if what == "raised" else ())


def bill_runs() -> Iterator[Scenario]:
    """They span accounts, so nothing of an account is in reach; a completion without its start is marked."""
    counted: dict[str, Any] = {"state": "Completed", "accounts": 12, "invoices": 11}
    known: dict[str, Value] = {"bill_run.billing_period": "2018-10", "bill_run.accounts": 12, "bill_run.invoices": 11}
    for what in ("raised", "start-missing", "not-raised"):
        id = f"run-{what}"
        run = bill_run(id)
        started = updated(run, 2, state="Started")
        done = updated(started.current, 3, **counted)
        rest = {"raised": (started, done), "start-missing": (done,), "not-raised": (updated(run, 2, accounts=1),)}
        steps = (at(T0, created(run)), *(at(T1 + n * MS, change) for n, change in enumerate(rest[what])))
        start, completion = at(T1, started), at(T1 + (timedelta(0) if what == "start-missing" else MS), done)
        yield Scenario(
            type="bill_run.started", what=what, id=id, steps=steps,
            expect=() if what != "raised" else (Expected(
                subject=("bill_run", id), facts={}, at=start.at, previous={"state": "Scheduled"},
                current={"state": "Started"}, parameters={**defaults("bill_run", id), "bill_run.state": "Started"},
            ),),
        )  # fmt: skip
        yield Scenario(
            type="bill_run.completed", what=what, id=id, steps=(),  # the same run
            expect=() if what == "not-raised" else (Expected(
                subject=("bill_run", id), at=completion.at, previous={"state": "Started"},
                facts={"start_missing": what == "start-missing", "accounts": 12, "invoices": 11},
                current={"state": "Completed"}, parameters={**known, "bill_run.state": "Completed"},
            ),),
        )  # fmt: skip


def packages() -> Iterator[Scenario]:
    """Another product: changed; another name: not."""
    for what, change in (("raised", {"product_id": "mobile"}), ("not-raised", {"name": "Fibre at work"})):
        id = f"account_package.changed-{what}"
        expected = Expected(
            subject=("package", f"{id}-P"), at=T1, facts={"from_product_id": "fibre", "to_product_id": "mobile"},
            previous={"product_id": "fibre"}, current={"product_id": "mobile"},
            parameters={**defaults("package", id), "product.name": "Mobile"},
        )  # fmt: skip
        steps = (*world(id), at(T1, updated(package(id), 2, **change)))
        yield Scenario(
            type="account_package.changed", what=what, id=id, steps=steps,
            expect=(expected,) if what == "raised" else (),
        )  # fmt: skip


def overdue() -> Iterator[Scenario]:
    """A balance is left when the terms are breached; once per due date; what ends or moves before is not."""
    before, after = BREACHED - MS, BREACHED + MS

    def one(what: str, *changes: Step, raised: bool, wait: timedelta = timedelta(0), **fields: Any) -> Scenario:
        id = f"invoice.overdue-{what}"
        expected = Expected(
            subject=("invoice", f"{id}-I"), at=BREACHED, parameters=defaults("invoice", id),
            facts={"due_date": DUE, "grace_days": 3, "overdue_at": BREACHED, "balance": Decimal("100.00")},
            current={"state": "Posted", "balance": Decimal("100.00")},
        )  # fmt: skip
        made = at(T0, created(invoice(id, **fields)))
        steps = [replace(step, at=step.at + wait) if step.topic == "billing.account" else step
                 for step in world(id, "invoice")]  # fmt: skip
        return Scenario(
            type="invoice.overdue", what=what, id=id, steps=(*steps, made, *changes), expect=(expected,) * raised
        )

    def change(what: str, when: datetime, revision: int = 2, **fields: Any) -> Step:
        return at(when, updated(invoice(f"invoice.overdue-{what}"), revision, **fields))

    paid: dict[str, Any] = {"balance": Decimal(0), "state": "Paid"}
    yield one("raised", raised=True)
    yield one("paid before", change("paid before", before, **paid), raised=False)
    yield one("paid after", change("paid after", after, **paid), raised=True)
    yield one("cancelled before", change("cancelled before", before, state="Cancelled"), raised=False)
    yield one("deleted before", at(before, deleted(invoice("invoice.overdue-deleted before"))), raised=False)
    yield one("a draft", raised=False, state="Draft")
    yield one("nothing owed", raised=False, balance=Decimal(0))
    yield one("partly paid later", change("partly paid later", after, balance=Decimal(1)), raised=True)
    yield one("before its account", raised=True, wait=timedelta(days=2))
    moved = one("moved", change("moved", before, due_date=date(2018, 11, 20)), raised=True)
    then = datetime(2018, 11, 23, 23, tzinfo=UTC)
    [expected] = moved.expect
    yield replace(moved, expect=(replace(
        expected, at=then, facts={**expected.facts, "due_date": date(2018, 11, 20), "overdue_at": then},
        parameters={**expected.parameters, "invoice.due_date": date(2018, 11, 20)},
    ),))  # fmt: skip
    east = one("account moves east", at(T1, updated(account("invoice.overdue-account moves east"), 2,
                                                    zone="Asia/Tokyo")), raised=True)  # fmt: skip
    tokyo = datetime(2018, 11, 12, 15, tzinfo=UTC)
    [expected] = east.expect
    yield replace(east, expect=(replace(expected, at=tokyo, facts={**expected.facts, "overdue_at": tokyo}),))


def deliveries() -> Iterator[Scenario]:
    """The first delivery only; and the rules that count from it."""
    paid: dict[str, Any] = {"balance": Decimal(0), "state": "Paid"}

    def delivered(id: str, when: datetime, **fields: Any) -> Expected:
        return Expected(
            subject=("invoice", f"{id}-I"), at=when, facts={"delivered_at": when}, previous={"delivered_at": None},
            current={"delivered_at": when}, parameters=_with(id, fields),
        )  # fmt: skip

    def plus(id: str, rule: str, sent: datetime, when: datetime, **fields: Any) -> Expected:
        days, time = {"night": (1, "02:30"), "unpaid": (2, "09:00")}[rule]
        return Expected(
            subject=("invoice", f"{id}-I"), at=when, current={"delivered_at": sent}, parameters=_with(id, fields),
            facts={"rule": rule, "days": days, "at": time, "delivered_at": sent, "due_at": when},
        )  # fmt: skip

    def steps(id: str, sent: datetime, *more: Step, **fields: Any) -> tuple[Step, ...]:
        first = invoice(id, **fields)
        return (*world(id, "invoice"), at(T0, created(first)), at(sent, updated(first, 2, delivered_at=sent)), *more)

    # Berlin, Saturday 14:00: the night after has 02:30 twice, the first at 00:30 UTC.
    id, sent = "delivered-twice", datetime(2018, 10, 27, 12, tzinfo=UTC)
    night, unpaid = datetime(2018, 10, 28, 0, 30, tzinfo=UTC), datetime(2018, 10, 29, 8, tzinfo=UTC)
    again = at(sent + timedelta(days=1), updated(invoice(id, delivered_at=sent), 3,
                                                 delivered_at=sent + timedelta(days=1)))  # fmt: skip
    yield Scenario(type="invoice.delivered", what="raised once", id=id, steps=steps(id, sent, again),
                   expect=(delivered(id, sent),))  # fmt: skip
    yield Scenario(type="invoice.delivered_plus", what="02:30 comes twice", id=id, steps=(),
                   expect=(plus(id, "night", sent, night), plus(id, "unpaid", sent, unpaid)))  # fmt: skip
    # Berlin, Saturday 13:00: in the night after 02:30 does not exist, 03:00 is 01:00 UTC.
    id, sent = "delivered-in-spring", datetime(2019, 3, 30, 12, tzinfo=UTC)
    yield Scenario(
        type="invoice.delivered_plus", what="02:30 does not exist", id=id, steps=steps(id, sent, **paid),
        expect=(plus(id, "night", sent, datetime(2019, 3, 31, 1, tzinfo=UTC), **paid),),
    )  # fmt: skip
    id, sent = "delivered-then-paid", datetime(2018, 10, 30, 12, tzinfo=UTC)
    instant = datetime(2018, 11, 1, 8, tzinfo=UTC)
    pays = at(instant - MS, updated(invoice(id, delivered_at=sent), 3, **paid))
    yield Scenario(type="invoice.delivered_plus", what="paid before its instant", id=id,
                   steps=steps(id, sent, pays),
                   expect=(plus(id, "night", sent, datetime(2018, 10, 31, 1, 30, tzinfo=UTC)),))  # fmt: skip
    id = "not-delivered"
    yield Scenario(type="invoice.delivered", what="not delivered", id=id, steps=(*world(id),))
    yield Scenario(type="invoice.delivered_plus", what="not delivered", id=id, steps=())


def _with(id: str, fields: dict[str, Any]) -> dict[str, Value]:
    parameters = defaults("invoice", id)
    return {**parameters, **{f"invoice.{k}": v for k, v in fields.items() if f"invoice.{k}" in parameters}}


def registered() -> Iterator[Scenario]:
    """Create, update and delete of every kind that reaches the worker; an older revision is no news."""
    for kind, make in MAKERS.items():
        types = {op: CATALOGUE[f"{kind}.{op}"] for op in ("created", "updated", "deleted")}
        assert all(known.raised for known in types.values())
        for op in types:
            for what in ("raised", "not-raised"):
                id = f"{kind}.{op}-{what}"
                first = make(id)
                change = updated(first, 2, **{"reason": "other"} if kind in ("refund", "credit") else {})
                life = {
                    ("created", "raised"): (created(first),),
                    ("created", "not-raised"): (change,),  # its creation was never seen
                    ("updated", "raised"): (created(first), change),
                    ("updated", "not-raised"): (deleted(first, 3), change),  # older than what is known
                    ("deleted", "raised"): (created(first), deleted(first)),
                    ("deleted", "not-raised"): (created(first), change),
                }[op, what]
                steps = [at(T1 + n * MS, one) for n, one in enumerate(life)]
                parameters = defaults(kind, id)
                if op == "updated" and f"{kind}.reason" in parameters:
                    parameters[f"{kind}.reason"] = "other"
                name = "account_id" if kind == "service_plan" else "id"
                state: dict[str, Value] = {name: getattr(first, name)}
                expected = Expected(
                    subject=(kind, first.id), facts={}, parameters=parameters, at=steps[-1].at,
                    previous=None if op == "created" else state,
                    current=None if op == "deleted" else state,
                )  # fmt: skip
                yield Scenario(
                    type=f"{kind}.{op}", what=what, id=id,
                    steps=(*(() if kind == "bill_run" else world(id, kind)), *steps),
                    expect=(expected,) if what == "raised" else (),
                )  # fmt: skip


def plan_changes() -> Iterator[Scenario]:
    """What the scheduler finds in the lives of changes gets the parameters of its account."""
    for type in CATALOGUE:
        group, _, name = type.partition(".")
        if group != "rate_plan_change" or name == "effective":
            continue
        for what, lives in (("raised", life), ("not-raised", other_life)):
            id = f"{type}-{what}"
            one: Life = lives(name, id)
            found = [finding for finding in one.findings if finding.type == type]
            parameters = defaults("rate_plan_change", id)
            missing: tuple[str, ...] = ()
            if name == "at_risk":  # the watchdog knows the change's instants, and not what was ordered
                missing = ("rate_plan_change.effective_date", "from_rate_plan.name", "to_rate_plan.name")
            if name == "rejected":  # a refused order has no date and no plans
                missing = ("from_rate_plan.name", "to_rate_plan.name")
                parameters["rate_plan_change.effective_date"] = None
            parameters = {key: None if key in missing else value for key, value in parameters.items()}
            expected = tuple(
                Expected(
                    subject=("rate_plan_change", finding.subject_id), facts=finding.facts, at=finding.occurred_at,
                    previous=finding.previous, current=finding.current, parameters=parameters, missing=missing,
                    audience=finding.audience,
                )
                for finding in found
            )  # fmt: skip
            yield Scenario(
                type=type, what=what, id=id, expect=expected,
                steps=(*world(id), *(Step(at=finding.occurred_at, value=finding) for finding in one.findings)),
            )  # fmt: skip


def effective() -> Iterator[Scenario]:
    """The plan was made true by a change: raised; by nobody: not. A silent one is internal."""
    type = "rate_plan_change.effective"
    for what, fields in (
        ("raised", {"change_id": "C1"}),
        ("silent", {"change_id": "C2", "silent": True}),
        ("not-raised", {}),
    ):
        id = f"{type}-{what}"
        silent = what == "silent"
        expected = Expected(
            subject=("rate_plan_change", str(fields.get("change_id"))), at=T1,
            facts={
                "service_id": f"{id}-S", "from_rate_plan_id": "basic", "to_rate_plan_id": "plus",
                "from_product_id": "fibre", "to_product_id": "fibre", "silent": silent,
            },
            parameters={
                "service.name": "line 1", "account.name": f"Ada {id}", "rate_plan.name": "Plus 200",
                "product.name": "Fibre", "from_rate_plan.name": "Basic 50",
            },
            audience=Audience.INTERNAL if silent else Audience.CUSTOMER,
        )  # fmt: skip
        change = updated(plan(id), 2, rate_plan_id="plus", **fields)
        steps = (*world(id), at(T1, change))
        yield Scenario(type=type, what=what, id=id, steps=steps, expect=() if what == "not-raised" else (expected,))


SCENARIOS: tuple[Scenario, ...] = (
    *becomes("service.state_transitioned", "service", "state", "Active", "Suspended"),
    *becomes("account.status_changed", "account", "status", "Active", "Suspended"),
    *becomes("account.cancelled", "account", "status", "Active", "Cancelled"),
    *becomes("package.cancelled", "package", "state", "Active", "Cancelled"),
    *becomes("invoice.posted", "invoice", "state", "Draft", "Posted"),
    *becomes("refund.processed", "refund", "state", "Requested", "Processed"),
    *becomes("credit.processed", "credit", "state", "Approved", "Processed"),
    *becomes("payment.processed", "payment", "state", "Pending", "Processed"),
    *becomes("payment.failed", "payment", "state", "Pending", "Failed", failure_reason="insufficient_funds"),
    *bill_runs(),
    *packages(),
    *overdue(),
    *deliveries(),
    *registered(),
    *effective(),
    *plan_changes(),
)
