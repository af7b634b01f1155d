"""What a service could order now: the same decision as the scheduler's, before anybody orders."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import pytest

from streams.core.objects import Account, Service, ServicePlan
from streams.core.plan_change.eligibility import Known, Offer, annotated, offers
from streams.core.plan_change.machine import Change, State
from streams.core.plan_change.matrix import DateRule, MatrixElement
from streams.core.plan_change.messages import ValidatedRequest
from streams.core.rows import ObjectRow
from tests.plan_changes.makers import DEADLINE, NO_HOOKS, NOON, START, a_request, an_element, known, pending
from tests.plan_changes.plant import Plant, a_plan, a_service, an_account

TOMORROW = an_element("tomorrow")
GIVEN = an_element("given", date_rule=DateRule.DATE_GIVEN)
WEB_ONLY = an_element("web-only", channels=("web",))
FROM_GOLD = an_element("from-gold", from_rate_plan_id="gold")
MATRIX = (TOMORROW, GIVEN, WEB_ONLY, FROM_GOLD)


def offered(
    current: Change | None = None,
    now: datetime = NOON,
    elements: tuple[MatrixElement, ...] = MATRIX,
    **asked: Any,
) -> dict[str, Offer]:
    request = a_request(element_key=None, **asked)
    return {one.element.key: one for one in offers(known(request), elements, current, now, NO_HOOKS)}


def test_only_elements_of_the_present_plan_and_the_channel_are_offered() -> None:
    """Those that start elsewhere, or that another channel sells, are not."""
    assert sorted(offered()) == ["given", "tomorrow"]
    assert sorted(offered(channel="web")) == ["given", "tomorrow", "web-only"]


def test_an_offer_has_the_dates_that_an_order_now_would_get() -> None:
    """By the account's zone and the element's lead."""
    change = offered()["tomorrow"].change

    assert change is not None
    assert (change.effective_date, change.start_at, change.deadline_at) == (date(2018, 11, 4), START, DEADLINE)


def test_a_given_date_is_for_elements_that_take_one() -> None:
    """The others keep their rule; without a date such an element says that it needs one."""
    found = offered(effective_date=date(2018, 12, 24))

    given, tomorrow = found["given"].change, found["tomorrow"].change
    assert given is not None
    assert tomorrow is not None
    assert (given.effective_date, tomorrow.effective_date) == (date(2018, 12, 24), date(2018, 11, 4))
    assert offered()["given"].reasons == ("effective_date_missing",)


def test_with_an_open_change_an_offer_says_why_it_would_be_refused_and_still_has_its_dates() -> None:
    """So that a clerk can say from when it would be possible instead."""
    current = pending()

    before, after = offered(current)["tomorrow"], offered(current, START)["tomorrow"]
    superseding = offered(current, expected_revision=current.revision)["tomorrow"]

    assert (before.reasons, after.reasons, superseding.reasons) == (("open_change",), ("open_change",), ())
    assert before.change is not None
    assert before.change.deadline_at == DEADLINE
    assert offered(current, START, expected_revision=1)["tomorrow"].reasons == ("too_late_to_supersede",)


def test_an_order_that_leaves_no_time_to_cancel_is_offered_by_policy_only() -> None:
    """Asked after its start instant."""
    strict = an_element("strict", allow_without_cancel=False)

    found = offered(now=START + timedelta(minutes=1), elements=(strict, TOMORROW))

    assert (found["strict"].reasons, found["strict"].change) == (("no_time_to_cancel",), None)
    assert found["tomorrow"].reasons == ()
    assert found["tomorrow"].change is not None
    assert found["tomorrow"].change.state is State.STARTED


def test_nothing_is_offered_to_a_service_without_a_plan() -> None:
    """There is nothing to start from."""
    validated = known(a_request(), rate_plan_id=None)

    assert offers(validated, MATRIX, None, NOON, NO_HOOKS) == []


@pytest.mark.parametrize(
    ("account", "service", "plan"),
    [
        (an_account(), a_service(), a_plan()),
        (an_account(zone="Mars/Olympus"), a_service(state="Suspended"), a_plan()),
        (an_account(id="A2"), a_service(account_id="A2"), a_plan()),
        (an_account(status="Cancelled"), a_service(id="S2"), a_plan(service_id="S2")),
    ],
    ids=["known", "no zone", "of another account", "of another service"],
)
def test_a_request_is_annotated_as_the_events_app_does_it(
    account: Account, service: Service, plan: ServicePlan
) -> None:
    """`eligible` and `dry-run` would otherwise promise what an order does not get."""
    plant = Plant()
    plant.knows(account, service, plan)
    request = a_request()
    plant.request(request)

    rows = Known(
        account=ObjectRow(revision=1, current=account) if account.id == request.account_id else None,
        service=ObjectRow(revision=1, current=service) if service.id == request.service_id else None,
        plan=ObjectRow(revision=1, current=plan) if plan.service_id == request.service_id else None,
    )
    [theirs] = plant.read(plant.events.sent, "plan-change.validated", ValidatedRequest)
    assert annotated(request, rows) == theirs
