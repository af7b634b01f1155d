"""Routing: which queues get an event, with which parameters, and what is refused before it is saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from streams.core.catalogue import CATALOGUE, matching
from streams.core.detectors import detect
from streams.core.events import Finding
from streams.core.routing import Route, RouteAudience, Routed, Router, mismatch, problems
from streams.core.rows import Kind
from streams.filters import CelLanguage
from tests.core.billing import ACCOUNT, INVOICE, PLAN, SERVICE, updated

QUEUES = {"customer-events", "billing-events", "operations"}
LANGUAGE = CelLanguage()
ROWS: dict[tuple[str, str], object] = {("account", "A1"): ACCOUNT, ("service_plan", "S1"): PLAN}


@dataclass(frozen=True)
class Wish:
    """A subscription, as far as routing is concerned."""

    queue: str
    parameters: tuple[str, ...]
    event_types: tuple[str, ...] = ()
    active: bool = True


def route(name: str = "r", **others: Any) -> Route:
    return Route(**({"name": name, "event_types": ("service.*",), "queues": ("operations",)} | others))


def suspended() -> Finding:
    [finding] = detect(Kind.SERVICE, updated(SERVICE, state="Suspended"), SERVICE)
    return finding


def effective(*, silent: bool = False) -> Finding:
    [finding] = detect(Kind.SERVICE_PLAN, updated(PLAN, change_id="C1", silent=silent), PLAN)
    return finding


def routed(finding: Finding, *routes: Route, asks: tuple[Wish, ...] = ()) -> Routed:
    return Router(routes, asks, language=LANGUAGE).route(finding, lambda kind, id: ROWS.get((kind, id)))


def queues(result: Routed) -> set[str]:
    return {queue for dispatch in result.dispatches for queue in dispatch.queues}


def test_an_event_goes_to_the_queues_of_all_routes_that_take_it() -> None:
    """Two routes, three queues; a queue that both name gets the event once."""
    result = routed(
        suspended(),
        route("a", queues=("operations", "customer-events")),
        route("b", event_types=("service.state_transitioned",), queues=("operations", "billing-events")),
        route("c", event_types=("invoice.posted",)),
    )

    assert sorted(queue for dispatch in result.dispatches for queue in dispatch.queues) == sorted(QUEUES)


def test_an_event_that_no_route_takes_is_unrouted() -> None:
    """It is not dropped in silence: whoever routes counts it."""
    assert routed(suspended(), route(event_types=("invoice.*",))).unrouted
    assert routed(suspended(), route(active=False)).unrouted
    assert routed(suspended()).unrouted


def test_an_internal_event_goes_only_where_somebody_said_so() -> None:
    """A silent change is withheld from the customer's route, and operators see it."""
    customer, operators = (
        route("c", event_types=("rate_plan_change.*",)),
        route("o", event_types=("rate_plan_change.*",), audience=RouteAudience.INTERNAL),
    )

    assert routed(effective(silent=True), customer).withheld
    assert queues(routed(effective(silent=True), customer, operators)) == {"operations"}
    assert routed(effective(), operators).withheld
    assert queues(routed(effective(), customer)) == {"operations"}


def test_a_route_for_all_audiences_gets_both() -> None:
    """One queue may hold everything."""
    everything = route(event_types=("rate_plan_change.*",), audience=RouteAudience.ALL)

    assert queues(routed(effective(), everything)) == queues(routed(effective(silent=True), everything))


def test_content_decides_where_a_route_says_so() -> None:
    """Of facts, states and parameters; what the filter reads is looked up for it."""
    agrees = 'facts.to in ["Suspended", "Cancelled"] && account.currency == "BRL" && previous.state == "Active"'

    assert queues(routed(suspended(), route(filter=agrees))) == {"operations"}
    assert routed(suspended(), route(filter=agrees.replace("BRL", "EUR"))).unrouted
    assert routed(suspended(), route(filter='facts.to == "Active"')).unrouted


def test_a_filter_without_an_answer_takes_nothing_and_is_named() -> None:
    """The rate plan is not known, so its name cannot begin with anything; the other route is not harmed."""
    result = routed(
        suspended(),
        route("careless", filter='rate_plan.name.startsWith("Basic")', queues=("billing-events",)),
        route("other"),
    )
    alone = routed(suspended(), route("broken", filter="1 +"))

    assert (queues(result), result.unfit) == ({"operations"}, ("careless",))
    assert (alone.unrouted, alone.unfit) == (True, ("broken",))


def test_amounts_are_compared_by_value_and_not_by_zeros() -> None:
    """Avro pads decimals to six places; a person writes 129.9."""
    [finding] = detect(Kind.INVOICE, updated(INVOICE, state="Posted"), INVOICE)

    result = routed(finding, route(event_types=("invoice.posted",), filter="invoice.amount == 129.9"))

    assert queues(result) == {"operations"}


def test_a_queue_gets_the_parameters_that_are_asked_for_there() -> None:
    """Defaults, those of its routes and those of its subscriptions; another queue does not pay for them."""
    result = routed(
        suspended(),
        route("a", parameters=("account.email",)),
        route("b", queues=("customer-events",)),
        asks=(
            Wish("operations", ("account.locale", "invoice.amount")),
            Wish("customer-events", ("account.zone",), ("x",)),
        ),
    )

    by_queue = {queue: set(dispatch.event.parameters) for dispatch in result.dispatches for queue in dispatch.queues}
    defaults = set(CATALOGUE["service.state_transitioned"].defaults)
    assert by_queue["operations"] == defaults | {"account.email", "account.locale"}
    assert by_queue["customer-events"] == defaults


def test_a_parameter_used_only_as_a_condition_does_not_travel() -> None:
    """A route may look at the e-mail address without sending it to everybody."""
    result = routed(suspended(), route(filter=f'account.email == "{ACCOUNT.email}"'))

    [dispatch] = result.dispatches
    assert "account.email" not in dispatch.event.parameters


def test_missing_names_are_those_of_the_event_only() -> None:
    """The rate plan's row is not there; the event says so."""
    [dispatch] = routed(suspended(), route()).dispatches

    assert dispatch.event.missing == ("rate_plan.name", "product.name")
    assert dispatch.event.parameters["rate_plan.name"] is None
    assert dispatch.event.parameters["account.name"] == ACCOUNT.name


def test_the_event_keeps_everything_of_the_finding() -> None:
    """Enrichment adds; the trace context of the record travels on."""
    finding = suspended()
    result = Router([route()], language=LANGUAGE).route(finding, lambda kind, id: None, "00-trace")

    [dispatch] = result.dispatches
    for field in (
        "event_id",
        "type",
        "occurred_at",
        "subject_id",
        "account_id",
        "sequence",
        "previous",
        "current",
        "facts",
    ):
        assert getattr(dispatch.event, field) == getattr(finding, field)
    assert dispatch.event.traceparent == "00-trace"


def test_a_star_means_a_group_but_never_registered_types() -> None:
    """Whoever wants every update of every account has to say so."""
    assert matching("service.*") == ("service.state_transitioned",)
    assert matching("service.updated") == ("service.updated",)
    assert Router([route()], language=LANGUAGE).registered == frozenset()
    assert Router([route(event_types=("service.updated",))], language=LANGUAGE).registered == {"service.updated"}
    assert Router([route(event_types=("service.updated",), active=False)], language=LANGUAGE).registered == frozenset()


def test_a_type_that_is_not_in_the_catalogue_is_unrouted_and_not_a_crash() -> None:
    """A newer program may send findings that this one does not know yet."""
    finding = Finding(
        event_id="e", type="moon.full", occurred_at=suspended().occurred_at, subject_kind="moon", subject_id="1",
        sequence=1, facts={},
    )  # fmt: skip

    assert routed(finding, route()).unrouted


REFUSED = [
    ({"event_types": ("service.stat_transitioned",)}, "did you mean service.state_transitioned"),
    ({"event_types": ("servic.*",)}, "there is no event type 'servic.*'"),
    ({"event_types": ()}, "event_types is empty"),
    ({"queues": ()}, "queues is empty"),
    ({"queues": ("operation",)}, "there is no queue 'operation'; there are billing-events"),
    ({"event_types": ("bill_run.completed",), "parameters": ("service.name",)}, "its object is a bill run"),
    ({"filter": 'facts.too == "x"'}, "column 1 of 'facts.too == \"x\"': there is no facts.too (did you mean facts.to"),
    ({"filter": 'current.colour == "x"'}, "there is no current.colour (did you mean"),
    ({"filter": "invoice.amount > 1"}, "there is no invoice.amount"),
    ({"filter": "facts.to == 5"}, "column 10 of 'facts.to == 5': == cannot be used on (string, long)"),
]


@pytest.mark.parametrize(("wrong", "message"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_a_wrong_route_is_refused_with_a_reason(wrong: dict[str, Any], message: str) -> None:
    """Before it is saved, with what would be right."""
    found = problems(route(**wrong), QUEUES, LANGUAGE)

    assert any(message in problem for problem in found), found


def test_a_right_route_has_no_problems() -> None:
    """Every field used, every name in reach."""
    right = route(
        event_types=("service.*", "invoice.posted"),
        filter='account.currency == "EUR" && facts.to == "Suspended"',
        parameters=("account.email",),
    )

    assert problems(right, QUEUES, LANGUAGE) == []


def test_a_dry_match_says_why_not() -> None:
    """The same rules as for real events, on fields that a person typed."""
    picky = route(filter='facts.to == "Active"')

    def why(finding: Finding, one: Route = picky) -> str | None:
        return mismatch(one, finding, {}, LANGUAGE)

    assert why(suspended(), route(filter='facts.to == "Suspended"')) is None
    assert why(suspended()) == "the filter 'facts.to == \"Active\"' does not agree"
    assert "has no answer" in (why(suspended(), route(filter='account.name < "b"')) or "")
    assert why(effective(silent=True)) == "is for audience customer, the event is internal"
