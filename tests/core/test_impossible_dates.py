"""Dates that no calendar can count on from: whoever sends one gets an answer, and the partition goes on."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from streams.core.plan_change.matrix import DateRule, LatePolicy, MissedPolicy
from streams.core.plan_change.messages import Reply, Request, ValidatedRequest
from tests.plan_changes.makers import NOON, a_request, an_element, known
from tests.plan_changes.plant import Plant, a_plan, a_service, an_account

REQUESTS = "plan-change.requests"
VALIDATED = "plan-change.validated"
LAST_NOON = datetime(9999, 12, 31, 12, tzinfo=UTC)
#: East and west of Greenwich, also by the local mean time that year 1 has: their midnights are before and after UTC's.
ZONES = ("Asia/Tokyo", "Europe/Berlin", "Pacific/Niue")


def plant(zone: str = "Europe/Berlin", now: datetime = NOON, **element: Any) -> Plant:
    """A scheduler that knows service S1, at ``now``; its element is ``basic-to-plus`` with these fields."""
    made = Plant(elements=(an_element(**element), an_element("good")))
    made.knows(an_account(zone=zone), a_service(), a_plan())
    made.tick(now)
    return made


def answers(made: Plant, *requests: Request) -> dict[str, Reply]:
    return {reply.request_id: reply for reply in made.replies(made.request(*requests))}


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("late", LatePolicy)
@pytest.mark.parametrize("day", [date.min, date(1, 1, 2)])
def test_a_date_in_year_1_is_refused_and_the_next_order_of_the_chunk_is_taken(
    day: date, late: LatePolicy, zone: str
) -> None:
    """Its midnight, or the start before it, is no instant at all; rolling from it never comes to an end."""
    made = plant(zone, date_rule=DateRule.DATE_GIVEN, late_policy=late)

    told = answers(made, a_request("bad", effective_date=day), a_request("good", element_key="good"))

    assert told["bad"].reasons in (
        ("effective_date_impossible",),
        ("deadline_passed",),
        ("before_present_plan",),
    )
    assert told["good"].accepted


def test_the_midnight_of_the_first_day_is_no_instant_in_the_east() -> None:
    """The one of the reasons above that an unguarded calculation turns into a worker that stops at every start."""
    made = plant("Asia/Tokyo", date_rule=DateRule.DATE_GIVEN)

    told = answers(made, a_request("bad", effective_date=date.min))

    assert told["bad"].reasons == ("effective_date_impossible",)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("missed", MissedPolicy)
def test_a_date_in_year_9999_waits_and_stops_nobody(missed: MissedPolicy, zone: str) -> None:
    """It is a date like any other, only late: it is taken, survives a restart, and time goes on around it."""
    made = plant(zone, date_rule=DateRule.DATE_GIVEN, missed_policy=missed)

    told = answers(made, a_request(effective_date=date.max))
    made.changes.reopen()
    later = made.tick(datetime(2030, 1, 1, tzinfo=UTC))

    assert told["R1"].accepted
    assert made.settlements(later) == []


@pytest.mark.parametrize("rule", [DateRule.TOMORROW, DateRule.END_OF_MONTH])
def test_an_order_on_the_last_day_of_all_has_no_date(rule: DateRule) -> None:
    """There is no tomorrow, and no next month."""
    made = plant("Europe/Berlin", LAST_NOON, date_rule=rule)

    assert answers(made, a_request())["R1"].reasons == ("effective_date_impossible",)


def test_lead_hours_that_begin_before_all_time_are_refused() -> None:
    """The catalogue takes any number of hours; an order by such an element is answered."""
    made = plant(lead_hours=10**9)

    assert answers(made, a_request())["R1"].reasons == ("effective_date_impossible",)


@pytest.mark.parametrize("billing_day", [0, -3, 32, 99])
def test_a_billing_day_that_no_month_has_stops_nobody(billing_day: int) -> None:
    """No account has one (the events worker puts it aside), but the scheduler does not rely on it."""
    made = plant(date_rule=DateRule.NEXT_BILL_DAY)
    bad = known(a_request("bad"), billing_day=billing_day)
    good = known(a_request("good", element_key="good"))
    records = [("S1", made.codec.encode(VALIDATED, one)) for one in (bad, good)]

    outputs = made.changes.run(made.scheduler.requests, VALIDATED, records)
    told = {reply.request_id: reply for reply in made.replies(outputs)}

    if billing_day < 1:
        assert told["bad"].reasons == ("effective_date_impossible",)
        assert told["good"].accepted
    else:  # after the last day of the month is the last day, as 31 is in February
        assert told["bad"].accepted


@pytest.mark.parametrize("days", [-800_000, 3_000_000])
def test_a_date_that_no_calendar_has_is_put_aside(days: int) -> None:
    """Avro counts days without end; Python ends with the year 9999. The request cannot even be read."""
    made = plant()
    good = a_request("good", element_key="good")
    datum = made.codec.decode_any(made.codec.encode(REQUESTS, good)).datum | {"effective_date": days}
    unreadable = made.codec.encode_datum(REQUESTS, "curfew.planchange.Request", datum)

    outputs = made.events.run(
        made.orders.requests, REQUESTS, [("A1", unreadable), ("A1", made.codec.encode(REQUESTS, good))]
    )

    [dead] = [output for output in outputs if output.topic == "dead-letters.events"]
    assert dict(dead.headers or ())["curfew-reason"] == b"undecodable"
    assert [one.request for one in made.read(outputs, VALIDATED, ValidatedRequest)] == [good]
