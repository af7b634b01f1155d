"""Parameters: what an event can carry, what is refused and how, and what is missing."""

from __future__ import annotations

from decimal import Decimal

import pytest

from streams.core.catalogue import CATALOGUE
from streams.core.detectors import detect
from streams.core.events import Finding, Value
from streams.core.graph import GRAPH, reach
from streams.core.objects import Product, RatePlan
from streams.core.parameters import available, check, compile_plan, resolve
from streams.core.rows import Kind
from tests.core.billing import ACCOUNT, BILL_RUN, INVOICE, PACKAGE, PLAN, SERVICE, created, deleted, updated

OBJECTS: dict[tuple[str, str], object] = {
    ("account", "A1"): ACCOUNT,
    ("package", "P1"): PACKAGE,
    ("service", "S1"): SERVICE,
    ("service_plan", "S1"): PLAN,
    ("rate_plan", "basic"): RatePlan(id="basic", product_id="fibre", name="Basic 50"),
    ("product", "fibre"): Product(id="fibre", name="Fibre"),
    ("bill_run", "R1"): BILL_RUN,
}


def look_up(kind: str, id: str) -> object | None:
    return OBJECTS.get((kind, id))


def suspended() -> Finding:
    [finding] = detect(Kind.SERVICE, updated(SERVICE, state="Suspended"), SERVICE)
    return finding


def resolved(finding: Finding, *names: str) -> tuple[dict[str, Value], tuple[str, ...]]:
    return resolve(compile_plan(finding.subject_kind, names), finding, look_up)


def test_a_service_event_reaches_what_belongs_to_one_service() -> None:
    """Account, package, plan, rate plan and product of a service: each is one, so each has a value."""
    names = ("service.name", "account.currency", "package.name", "rate_plan.name", "product.name")

    assert check("service.state_transitioned", names) == []
    assert resolved(suspended(), *names) == (
        {
            "service.name": SERVICE.name,
            "account.currency": "BRL",
            "package.name": "Fibre at home",
            "rate_plan.name": "Basic 50",
            "product.name": "Fibre",
        },
        (),
    )


def test_a_service_name_on_a_bill_run_is_refused_with_what_a_bill_run_can_give() -> None:
    """Many services belong to one run. The message says so, and names what there is instead."""
    [problem] = check("bill_run.completed", ["service.name"])

    assert problem.startswith("service.name cannot be a parameter of bill_run.completed: its object is a bill run")
    assert "reaches bill_run only" in problem
    for name in ("bill_run.billing_period", "bill_run.accounts", "bill_run.invoices"):
        assert name in problem


def test_a_misspelt_field_is_refused_with_the_nearest_name() -> None:
    """The object is right, the field is not."""
    [problem] = check("invoice.posted", ["account.curency"])

    assert "account has no field curency" in problem
    assert "nearest names: account.currency" in problem


def test_only_the_wrong_names_are_refused() -> None:
    """One message per wrong name, none for the right ones."""
    problems = check("invoice.posted", ["account.name", "service.name", "bill_run.id", "invoice.colour"])

    assert [problem.split(" ", 1)[0] for problem in problems] == ["service.name", "invoice.colour"]


def test_an_unknown_event_type_is_refused_with_near_ones() -> None:
    """A parameter of nothing cannot be checked."""
    [problem] = check("service.state_transition", ["service.name"])

    assert "did you mean service.state_transitioned" in problem


def test_an_event_about_usage_reaches_its_service_and_account_and_a_service_its_sim() -> None:
    """SIM → service → account; a service's SIM is looked up by the service; a contract has an account only."""
    assert check("sim.dormant", ["sim.id", "service.name", "account.name", "product.name"]) == []
    assert check("usage.threshold_exceeded", ["bucket.unit", "service.name", "account.zone"]) == []
    assert check("service.state_transitioned", ["sim.msisdn"]) == []
    [problem] = check("contract.under_commit", ["service.name"])

    assert "It reaches contract, account" in problem
    [load] = compile_plan(Kind.SERVICE, ["sim.id"]).loads
    assert (load.kind, load.field) == (Kind.SERVICE_SIM, "id")


def test_a_row_that_is_not_there_yet_is_missing_and_not_a_crash() -> None:
    """Everything behind the missing row is missing too; what does not depend on it has its value."""
    [finding] = detect(Kind.SERVICE, updated(SERVICE, state="Suspended", account_id="A2", id="S1"), SERVICE)

    parameters, missing = resolved(finding, "account.name", "service.name", "rate_plan.name")

    assert parameters == {"account.name": None, "service.name": SERVICE.name, "rate_plan.name": "Basic 50"}
    assert missing == ("account.name",)


def test_everything_behind_a_missing_row_is_missing() -> None:
    """Without the plan of the service neither its rate plan nor its product can be known."""
    plan = compile_plan("service", ["service_plan.rate_plan_id", "rate_plan.name", "product.name", "service.state"])

    parameters, missing = resolve(plan, suspended(), lambda kind, id: None)

    assert missing == ("service_plan.rate_plan_id", "rate_plan.name", "product.name")
    assert parameters["service.state"] == "Suspended"


def test_an_empty_relation_is_null_and_not_missing() -> None:
    """A service without a package has no package name, and waiting for one would be wrong."""
    [finding] = detect(Kind.SERVICE, updated(SERVICE, state="Suspended", package_id=None), SERVICE)

    assert resolved(finding, "package.name") == ({"package.name": None}, ())


def test_values_are_those_of_the_event_and_not_of_the_row() -> None:
    """The subject's own fields come from the change itself: a snapshot, whatever the row says by then."""
    parameters, _ = resolved(suspended(), "service.state")

    assert parameters == {"service.state": "Suspended"}


def test_a_deleted_subject_still_has_its_last_values() -> None:
    """What is gone can still be named."""
    [finding] = detect(Kind.SERVICE, deleted(SERVICE), SERVICE, ("service.deleted",))

    assert resolved(finding, "service.name", "account.name") == (
        {"service.name": SERVICE.name, "account.name": ACCOUNT.name},
        (),
    )


def test_types_are_kept() -> None:
    """Money stays a Decimal, a date a date, a count an int."""
    posted = updated(INVOICE, state="Posted")
    [finding] = detect(Kind.INVOICE, posted, INVOICE)

    parameters, _ = resolved(finding, "invoice.amount", "invoice.due_date", "account.billing_day")

    assert parameters == {
        "invoice.amount": Decimal("129.90"),
        "invoice.due_date": INVOICE.due_date,
        "account.billing_day": 31,
    }
    assert type(parameters["invoice.amount"]) is Decimal
    assert available("invoice")["invoice.amount"] == "decimal"
    assert available("invoice")["invoice.due_date"] == "date"


def test_an_effective_change_carries_the_new_plan() -> None:
    """``rate_plan`` is what the service has at that instant, ``from_rate_plan`` what it had."""
    OBJECTS["rate_plan", "plus"] = RatePlan(id="plus", product_id="fibre", name="Plus 200")
    change = updated(PLAN, rate_plan_id="plus", change_id="C1")
    [finding] = detect(Kind.SERVICE_PLAN, change, PLAN)
    rows = OBJECTS | {("service_plan", "S1"): change.current}
    names = ("rate_plan.name", "from_rate_plan.name", "to_rate_plan.name", "rate_plan_change.id", "service.name")

    parameters, missing = resolve(
        compile_plan(finding.subject_kind, names), finding, lambda kind, id: rows.get((kind, id))
    )

    assert missing == ()
    assert list(parameters.values()) == ["Plus 200", "Basic 50", "Plus 200", "C1", SERVICE.name]


def test_the_product_of_a_service_is_the_one_it_is_rated_by() -> None:
    """A service reaches a product by its plan and by its package; the plan's is the one that bills it."""
    assert [relation.name for relation in reach("service")["product"].via] == ["service_plan", "product"]


def test_a_relation_to_many_gives_no_parameter() -> None:
    """Memberships and options have no single value."""
    assert not [name for name in available("service_plan") if "memberships" in name or "options" in name]


def test_each_object_is_fetched_once() -> None:
    """Five names of two objects cost two look-ups."""
    asked: list[tuple[str, str]] = []

    def counting(kind: str, id: str) -> object | None:
        asked.append((kind, id))
        return look_up(kind, id)

    names = ("account.name", "account.zone", "rate_plan.name", "rate_plan.id", "service_plan.silent")
    resolve(compile_plan("service", names), suspended(), counting)

    assert sorted(asked) == [("account", "A1"), ("rate_plan", "basic"), ("service_plan", "S1")]


@pytest.mark.parametrize("event_type", CATALOGUE)
def test_the_defaults_of_every_type_are_in_reach(event_type: str) -> None:
    """A default that cannot be reached would be missing from every event."""
    assert check(event_type, CATALOGUE[event_type].defaults) == []


@pytest.mark.parametrize("kind", GRAPH)
def test_every_relation_starts_at_a_field_and_ends_at_a_kind(kind: str) -> None:
    """The graph is data: a misspelt field would give missing values for ever."""
    for relation in GRAPH[kind].relations:
        assert relation.kind in GRAPH
        assert relation.field in GRAPH[kind].fields


def test_the_first_object_of_an_account_needs_no_other_rows() -> None:
    """A change that arrives before everything else raises nothing and breaks nothing."""
    assert detect(Kind.PACKAGE, created(PACKAGE), None) == []
