"""The events worker, chunk by chunk: from records to events in queues, guarded by revision."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from streams.codec.cloudevents import cloud_event
from streams.core.events import Audience, Event, Finding
from streams.core.objects import Membership, Product, RatePlan
from streams.core.routing import Route, RouteAudience
from streams.core.rows import object_key
from tests.core.billing import ACCOUNT, BILL_RUN, INVOICE, PACKAGE, PLAN, SERVICE, created, deleted, updated
from tests.events.works import ALL_EVENTS, Works, topic_of

#: Text that is in no record of this worker, but makes an event with it larger than Kafka takes.
ENORMOUS = "x" * 1_200_000


@pytest.fixture
def works() -> Works:
    """A worker that knows account A1 with its service, package and plan."""
    works = Works()
    works.catalogue.put("rate_plan", "basic", RatePlan(id="basic", product_id="fibre", name="Basic 50"))
    works.catalogue.put("rate_plan", "plus", RatePlan(id="plus", product_id="fibre", name="Plus 200"))
    works.catalogue.put("product", "fibre", Product(id="fibre", name="Fibre"))
    for subject in (ACCOUNT, SERVICE, PACKAGE, PLAN, INVOICE):
        change = created(subject)
        assert works.feed(topic_of(change), [change]) == []
    return works


def test_a_suspension_becomes_an_event_with_parameters(works: Works) -> None:
    """From the change of a service to its queue: parameters of service, account, plan and product."""
    [event] = works.feed("billing.service", [updated(SERVICE, state="Suspended")])

    assert event.type == "service.state_transitioned"
    assert event.facts == {"from": "Active", "to": "Suspended"}
    assert event.missing == ()
    assert event.parameters == {
        "service.name": SERVICE.name,
        "service.state": "Suspended",
        "account.name": ACCOUNT.name,
        "account.currency": "BRL",
        "rate_plan.name": "Basic 50",
        "product.name": "Fibre",
    }


def test_the_record_is_keyed_by_account_with_cloudevents_headers(works: Works) -> None:
    """What a client that is not ours sees of an event; the trace goes on."""
    [event] = works.feed(
        "billing.service",
        [updated(SERVICE, state="Suspended")],
        headers=[("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")],
    )

    output = next(one for one in works.outputs if one.topic.startswith("queue."))
    attributes = cloud_event(output.headers or ())
    assert (output.topic, output.key) == ("queue.operations", "A1")
    assert attributes is not None
    assert (attributes.id, attributes.type) == (event.event_id, "service.state_transitioned")
    assert attributes.traceparent == event.traceparent == "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_money_and_dates_keep_their_types(works: Works) -> None:
    """An amount arrives as a Decimal, the due date as a date."""
    [event] = works.feed("billing.invoice", [updated(INVOICE, state="Posted")])

    assert event.parameters["invoice.amount"] == Decimal("129.90")
    assert event.parameters["invoice.due_date"] == INVOICE.due_date


def test_a_repeated_or_older_revision_changes_nothing(works: Works) -> None:
    """Neither an event nor the row."""
    suspended = updated(SERVICE, 2, state="Suspended")
    works.feed("billing.service", [suspended, updated(suspended.current, 3, state="Active")])
    row = works.row("billing.service", object_key("service", "S1"))

    assert works.feed("billing.service", [suspended, created(SERVICE), suspended]) == []
    assert works.row("billing.service", object_key("service", "S1")) == row


def test_a_gap_in_revisions_is_counted_and_not_guessed_over(works: Works) -> None:
    """The event is the one of the record that came; the row and the counts remember what did not."""
    [event] = works.feed("billing.service", [updated(SERVICE, 5, state="Suspended")])

    assert event.facts == {"from": "Active", "to": "Suspended"}
    assert works.row("billing.service", object_key("service", "S1")).gaps == 3
    assert works.counts["gaps service"] == 3


def test_rows_of_one_chunk_are_seen_by_its_later_records(works: Works) -> None:
    """The plan becomes effective and the service changes in the same chunk of different topics, or of one."""
    first = updated(SERVICE, 2, state="Suspended")
    second = updated(first.current, 3, state="Active")

    assert len(works.feed("billing.service", [first, second, second])) == 2


def test_an_effective_change_carries_the_new_plan_and_an_earlier_event_the_old(works: Works) -> None:
    """Tables change when the plan becomes true, not hours before."""
    [before] = works.feed("billing.service", [updated(SERVICE, 2, state="Suspended")])
    [effective] = works.feed("billing.service-plan", [updated(PLAN, rate_plan_id="plus", change_id="C1")])

    assert before.parameters["rate_plan.name"] == "Basic 50"
    assert effective.type == "rate_plan_change.effective"
    assert effective.parameters["rate_plan.name"] == "Plus 200"
    assert effective.parameters["from_rate_plan.name"] == "Basic 50"


def test_a_row_that_is_not_there_yet_is_marked_missing() -> None:
    """The service comes before its account: no crash, no wait, an explicit marker."""
    works = Works()

    [event] = works.feed("billing.service", [updated(SERVICE, state="Suspended")])

    assert "account.name" in event.missing
    assert event.parameters["account.name"] is None


def test_a_deleted_account_is_not_used_for_parameters(works: Works) -> None:
    """Its row stays as a guard, its data does not travel on."""
    works.feed("billing.account", [deleted(ACCOUNT)])

    [event] = works.feed("billing.service", [updated(SERVICE, state="Suspended")])

    assert "account.name" in event.missing
    assert works.row("billing.account", object_key("account", "A1")).revision == 2


def test_an_invoice_reaches_its_bill_run_which_is_in_another_partition(works: Works) -> None:
    """Bill runs are read whole by every worker."""
    works.catalogue.put("bill_run", "R1", BILL_RUN)

    [event] = works.feed("billing.invoice", [updated(INVOICE, state="Posted")])

    assert event.parameters["bill_run.billing_period"] == "2018-11"


def test_a_completion_without_its_start_is_marked(works: Works) -> None:
    """The run's own row knows whether a start was seen."""
    started = updated(BILL_RUN, 2, state="Started")
    completed = updated(started.current, 3, state="Completed", accounts=2, invoices=2)

    [first, second] = works.feed("billing.bill-run", [created(BILL_RUN), started, completed])
    [alone] = Works().feed("billing.bill-run", [completed])

    assert (first.type, second.type, alone.type) == ("bill_run.started", "bill_run.completed", "bill_run.completed")
    assert second.facts["start_missing"] is False
    assert alone.facts["start_missing"] is True
    assert alone.account_id is None
    assert works.outputs[-1].key == "R1"


def _finding(**fields: Any) -> Finding:
    start_at = datetime(2018, 11, 3, 20, tzinfo=UTC)
    defaults: dict[str, Any] = {
        "event_id": "e1",
        "type": "rate_plan_change.started",
        "occurred_at": start_at,
        "subject_kind": "rate_plan_change",
        "subject_id": "C1",
        "account_id": "A1",
        "sequence": 2,
        "current": {"state": "Started"},
        "facts": {"service_id": "S1", "from_rate_plan_id": "basic", "to_rate_plan_id": "plus", "start_at": start_at},
        "audience": Audience.INTERNAL,
    }
    return Finding(**(defaults | fields))


def test_a_finding_of_another_worker_gets_the_parameters_of_its_account() -> None:
    """Detect where the data is, enrich where the account is; instants keep their type."""
    works = Works(
        Route(
            name="r",
            event_types=("rate_plan_change.*",),
            queues=("operations",),
            audience=RouteAudience.INTERNAL,
            parameters=("rate_plan_change.start_at", "rate_plan_change.state", "account.zone"),
        )
    )
    works.feed("billing.account", [created(ACCOUNT)])

    [event] = works.feed("events.findings", [_finding()])

    assert event.parameters["account.zone"] == ACCOUNT.zone
    assert event.parameters["rate_plan_change.start_at"] == datetime(2018, 11, 3, 20, tzinfo=UTC)
    assert event.parameters["rate_plan_change.state"] == "Started"


def test_routes_are_followed_without_a_restart(works: Works) -> None:
    """The next chunk after a change of the catalogue sees it."""
    first = updated(SERVICE, 2, state="Suspended")
    works.feed("billing.service", [first])
    works.catalogue.put(
        "route", "all", Route(name="all", event_types=("service.*",), queues=("billing-events", "customer-events"))
    )

    works.feed("billing.service", [updated(first.current, 3, state="Active")])

    assert [len(works.queued(queue)) for queue in ("operations", "billing-events", "customer-events")] == [1, 1, 1]


def test_events_without_a_route_are_counted_exactly_once() -> None:
    """A replayed chunk (its outputs were sent, its rows were lost) counts what was not counted before, no more."""
    works = Works(Route(name="r", event_types=("invoice.*",), queues=("operations",)))
    first = updated(SERVICE, 2, state="Suspended")
    works.feed("billing.service", [created(SERVICE)])

    works.feed("billing.service", [first], crash=True)
    works.feed("billing.service", [first])
    works.feed("billing.service", [first, updated(first.current, 3, state="Active")])

    assert works.counts == {"unrouted service.state_transitioned": 2}


def test_a_chunk_whose_counts_are_durable_but_not_its_rows_is_not_counted_twice(works: Works) -> None:
    """Rows become durable in order; after a crash between them the counts are the ones that are there."""
    suspended = updated(SERVICE, 2, state="Suspended")
    before = dict(works.store.scan(b"service/"))
    works.feed("billing.service", [suspended])
    works.store.write(list(before.items()), None)
    works.offsets["billing.service"] -= 1

    again = works.feed("billing.service", [suspended])

    assert len(again) == 1
    assert works.counts["raised service.state_transitioned"] == 1


def test_an_internal_event_is_withheld_from_customer_routes() -> None:
    """Counted apart from events that nobody wants."""
    works = Works(Route(name="c", event_types=("rate_plan_change.*",), queues=("customer-events",)))

    assert works.feed("events.findings", [_finding()]) == []
    assert works.counts == {"withheld rate_plan_change.started": 1}


def test_a_route_to_a_queue_that_does_not_exist_stops_nothing() -> None:
    """The other queues of the route get the event."""
    works = Works(Route(name="r", event_types=("service.*",), queues=("no-such-queue", "operations")))

    works.feed("billing.service", [updated(SERVICE, state="Suspended")])

    assert {output.topic for output in works.outputs} == {"queue.operations", "usage.contexts"}


@pytest.mark.parametrize(
    ("value", "key", "reason"),
    [
        (b"not avro at all", "A1", "not_avro"),
        (b"\x00\x00\x00\x00\x01rest", "A1", "unknown_schema_id"),
        (updated(SERVICE, state="Suspended"), "A2", "wrong_key"),
    ],
)
def test_a_poison_record_goes_to_the_dead_letters_and_the_flow_goes_on(
    works: Works, value: object, key: str, reason: str
) -> None:
    """Only the bad record is put aside, with its reason."""
    works.feed("billing.service", [value], key=key)

    [event] = works.feed("billing.service", [updated(SERVICE, state="Suspended")])
    [dead] = works.dead()

    assert event.type == "service.state_transitioned"
    assert any(reason.encode() in value for _, value in dead.headers or ())


def test_registered_object_changes_are_raised_when_a_route_names_them() -> None:
    """Off by default; on for exactly the type that was named."""
    works = Works(
        ALL_EVENTS,
        Route(name="u", event_types=("account.updated",), queues=("operations",), audience=RouteAudience.ALL),
    )

    events: list[Event] = works.feed("billing.account", [created(ACCOUNT), updated(ACCOUNT, email="x@aurora.example")])

    assert [event.type for event in events] == ["account.updated"]


@pytest.mark.parametrize("billing_day", [0, -1, 32, 99])
def test_an_account_with_a_billing_day_that_no_month_has_is_put_aside(works: Works, billing_day: int) -> None:
    """Deadlines are derived from it; the account's next record is handled."""
    change = updated(ACCOUNT, 2, name="renamed")
    datum = works.codec.decode_any(works.codec.encode("billing.account", change)).datum
    datum["current"]["billing_day"] = billing_day
    impossible = works.codec.encode_datum("billing.account", "curfew.billing.AccountChange", datum)

    works.feed("billing.account", [impossible, updated(ACCOUNT, 3, name="corrected")])

    assert reasons(works) == [b"invalid"]
    assert works.row("billing.account", object_key("account", "A1")).current.name == "corrected"


@pytest.fixture
def strained() -> Works:
    """Two queues; the second wants a parameter that is too large, so an event is refused when half of it is out."""
    works = Works(
        Route(name="a", event_types=("service.*", "rate_plan_change.*"), queues=("customer-events",),
              audience=RouteAudience.ALL),
        Route(name="b", event_types=("service.*", "rate_plan_change.*"), queues=("operations",),
              audience=RouteAudience.ALL, parameters=("rate_plan.product_id", "to_rate_plan.product_id")),
    )  # fmt: skip
    works.catalogue.put("rate_plan", "basic", RatePlan(id="basic", product_id=ENORMOUS, name="Basic 50"))
    works.catalogue.put("rate_plan", "plus", RatePlan(id="plus", product_id=ENORMOUS, name="Plus 200"))
    for subject in (ACCOUNT, SERVICE, PLAN):
        change = created(subject)
        works.feed(topic_of(change), [change])
    return works


def reasons(works: Works) -> list[bytes]:
    return [dict(dead.headers or ())["curfew-reason"] for dead in works.dead()]


def test_a_record_that_is_refused_late_leaves_nothing_and_the_next_one_is_handled(strained: Works) -> None:
    """No row, no count, no half of its events; what came before it in its chunk stays, what comes behind it goes on."""
    renamed = updated(SERVICE, 2, name="second line")
    refused = updated(renamed.current, 6, state="Suspended")
    again = updated(renamed.current, 3, name="third line")
    other = replace(SERVICE, id="S2", name="another")
    chunks = [[renamed, refused], [refused, again, created(other), updated(other, state="Suspended")]]

    none = strained.feed("billing.service", chunks[0])
    before = strained.row("billing.service", object_key("service", "S1"))
    events = strained.feed("billing.service", chunks[1])

    assert none == []
    assert before.revision == 2
    assert [event.subject_id for event in events] == ["S2", "S2"]  # it has no plan, so nothing enormous
    assert reasons(strained) == [b"too_large"] * 2
    row = strained.row("billing.service", object_key("service", "S1"))
    assert (row.revision, row.current, row.gaps) == (3, again.current, 0)
    assert strained.counts == {"raised service.state_transitioned": 1}


def test_a_record_that_was_refused_late_can_be_redriven(strained: Works) -> None:
    """Once its cause is gone it is news, not "seen already", and it is counted once."""
    refused = updated(SERVICE, 5, state="Suspended")
    strained.feed("billing.service", [refused])
    strained.catalogue.put("rate_plan", "basic", RatePlan(id="basic", product_id="fibre", name="Basic 50"))

    events = strained.feed("billing.service", [refused])

    assert len(events) == 2
    assert strained.row("billing.service", object_key("service", "S1")).revision == 5
    assert strained.counts == {"raised service.state_transitioned": 1, "gaps service": 3}


def test_a_finding_that_is_refused_late_leaves_no_event_in_any_queue(strained: Works) -> None:
    """Redriven it would raise all of them; until then nobody has half of the story."""
    assert strained.feed("events.findings", [_finding(audience=Audience.CUSTOMER)]) == []

    assert reasons(strained) == [b"too_large"]
    assert strained.counts == {}


def test_an_object_with_too_many_parts_is_put_aside_alone(works: Works) -> None:
    """Its record is small, its row is not (rows name their fields): refused at the end it would stop the worker."""
    at = datetime(1970, 1, 1, tzinfo=UTC)
    many = replace(PLAN, service_id="S3", memberships=(Membership(rate_plan_id="", valid_from=at),) * 50_000)
    small = replace(PLAN, service_id="S4")

    works.feed("billing.service-plan", [created(many), created(small)])

    assert reasons(works) == [b"too_large"]
    assert works.row("billing.service-plan", object_key("service_plan", "S3")) is None
    assert works.row("billing.service-plan", object_key("service_plan", "S4")).revision == 1
