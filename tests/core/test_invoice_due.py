"""When invoices are overdue and rules come due: instants, what moves them, and what comes too late."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.event_rules import EventRule
from streams.core.invoice_due import InvoiceWork, Raise, Taken, derive, due, first_delivery, instants, pack, pin, unpack
from streams.core.invoice_events import finding
from streams.core.midnight import first_instant, local_instant
from streams.core.objects import Invoice
from tests.core.billing import INVOICE

BERLIN, SAO_PAULO, HAVANA = "Europe/Berlin", "America/Sao_Paulo", "America/Havana"
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
POSTED = replace(INVOICE, state="Posted")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def rule(name: str = "r", days: int = 1, at: str = "02:30", since: datetime = LONG_AGO, **fields: Any) -> Taken:
    return Taken(rule=EventRule(name=name, days=days, at=at, **fields), since=since)


def an_invoice(due_date: str = "2018-11-03", **fields: Any) -> Invoice:
    return replace(POSTED, due_date=date.fromisoformat(due_date), **fields)


@pytest.mark.parametrize(
    ("zone", "due_date", "grace_days", "expected"),
    [
        (BERLIN, "2018-11-03", 0, "2018-11-03T23:00"),
        (BERLIN, "2018-11-03", 3, "2018-11-06T23:00"),
        (SAO_PAULO, "2018-11-03", 0, "2018-11-04T03:00"),  # 00:00 does not exist, 01:00 is the first instant
        (HAVANA, "2018-11-03", 0, "2018-11-04T04:00"),  # 00:00 comes twice, the first counts
        ("Pacific/Apia", "2011-12-29", 0, "2011-12-30T10:00"),  # the whole of the 30th is missing
    ],
)
def test_terms_are_breached_at_the_first_instant_after_them(
    zone: str, due_date: str, grace_days: int, expected: str
) -> None:
    """Whatever the clocks of the account do that night."""
    found = instants(an_invoice(due_date, grace_days=grace_days), zone, ())

    assert found == {f"overdue {due_date}": utc(expected)}


@pytest.mark.parametrize(
    ("delivered", "expected"),
    [
        ("2019-03-30T12:00", "2019-03-31T01:00"),  # 02:30 does not exist: 03:00 is the first instant after the gap
        ("2018-10-27T12:00", "2018-10-28T00:30"),  # 02:30 comes twice: the first
        ("2018-11-03T23:30", "2018-11-05T01:30"),  # in Berlin it is the 4th already
        ("2018-11-03T12:00", "2018-11-04T01:30"),
    ],
)
def test_a_local_time_that_is_missing_or_comes_twice(delivered: str, expected: str) -> None:
    """One instant in every case."""
    paid = an_invoice(balance=Decimal(0), delivered_at=utc(delivered))

    assert instants(paid, BERLIN, [rule()]) == {"plus r": utc(expected)}


def test_what_owes_nothing_is_not_overdue() -> None:
    """Paid, a draft, cancelled; and a rule for the unpaid has nothing to say then."""
    delivered = utc("2018-11-01T12:00")
    rules = [rule("always"), rule("unpaid", only_while_unpaid=True)]

    def tasks(**fields: Any) -> set[str]:
        return set(instants(an_invoice(delivered_at=delivered, **fields), BERLIN, rules))

    assert tasks() == {"overdue 2018-11-03", "plus always", "plus unpaid"}
    assert tasks(balance=Decimal(0)) == tasks(balance=Decimal("-1")) == {"plus always"}
    assert tasks(state="Draft") == {"plus always", "plus unpaid"}
    assert tasks(state="Cancelled") == set()


def test_impossible_dates_are_left_out() -> None:
    """The partition goes on; whoever sent the date sees no event."""
    last = an_invoice("9999-12-31", delivered_at=datetime(9999, 12, 30, tzinfo=UTC))

    assert instants(last, BERLIN, [rule(days=30)]) == {}
    assert instants(an_invoice("0001-01-01"), "Asia/Tokyo", ()) != {}


def test_a_new_rule_says_nothing_about_the_past() -> None:
    """Else it would raise an event for every invoice that was ever delivered."""
    invoice = an_invoice(balance=Decimal(0), delivered_at=utc("2018-11-01T12:00"))
    at = utc("2018-11-02T01:30")

    assert instants(invoice, BERLIN, [rule(since=at)]) == {}
    assert instants(invoice, BERLIN, [rule(since=at - timedelta(milliseconds=1))]) == {"plus r": at}


def test_the_first_delivery_stays() -> None:
    """Sent again, or forgotten by the billing system: rules count from the first."""
    first, second = utc("2018-11-01T12:00"), utc("2018-11-09T12:00")
    known = an_invoice(delivered_at=first)

    assert first_delivery(known, an_invoice(delivered_at=second)).delivered_at == first
    assert first_delivery(known, an_invoice(delivered_at=None)).delivered_at == first
    assert first_delivery(an_invoice(), an_invoice(delivered_at=second)).delivered_at == second


def test_a_change_that_came_too_late_does_not_prevent_what_was_due_before_it() -> None:
    """Paid an hour after midnight, and read before the tick of midnight: it was overdue all the same."""
    breached = utc("2018-11-03T23:00")
    unpaid, paid = an_invoice(), an_invoice(balance=Decimal(0), state="Paid")
    work = derive(InvoiceWork(), unpaid, BERLIN, ())

    late = derive(pin(work, unpaid, 2, breached + timedelta(hours=1)), paid, BERLIN, ())
    early = derive(pin(work, unpaid, 2, breached - timedelta(milliseconds=1)), paid, BERLIN, ())
    raises, after = due(unpack(pack(late)), paid, 3, BERLIN, (), breached)

    assert raises == [Raise(task="overdue 2018-11-03", at=breached, revision=2, invoice=unpaid)]
    assert (after.pending, after.pinned, after.raised) == ({}, {}, ("overdue 2018-11-03",))
    assert early.is_empty


def test_the_same_due_date_is_raised_once_and_another_one_again() -> None:
    """Whatever becomes of balance and zone."""
    breached = utc("2018-11-03T23:00")
    _, work = due(derive(InvoiceWork(), an_invoice(), BERLIN, ()), an_invoice(), 1, BERLIN, (), breached)

    assert derive(work, an_invoice(balance=Decimal(5)), "Asia/Tokyo", ()).pending == {}
    assert derive(work, an_invoice("2018-11-20"), BERLIN, ()).pending == {"overdue 2018-11-20": utc("2018-11-20T23:00")}


def test_a_rule_that_was_moved_is_followed_even_before_anyone_looked_at_the_invoice() -> None:
    """An entry of the index is a hint: at the old instant nothing is raised, the new one is pending."""
    invoice = an_invoice(balance=Decimal(0), delivered_at=utc("2018-11-01T12:00"))
    old = derive(InvoiceWork(), invoice, BERLIN, [rule(days=1)])
    moved = [rule(days=5)]

    raises, after = due(old, invoice, 1, BERLIN, moved, utc("2018-11-02T01:30"))

    assert raises == []
    assert after.pending == {"plus r": utc("2018-11-06T01:30")}


def test_ids_come_from_due_date_and_rule_and_not_from_the_instant() -> None:
    """Moved to another zone, or by a change of the rule, it is the same event."""

    def ids(zone: str, days: int) -> list[str]:
        invoice, rules = an_invoice(delivered_at=utc("2018-11-01T12:00")), [rule(days=days)]
        raises, _ = due(derive(InvoiceWork(), invoice, zone, rules), invoice, 1, zone, rules, utc("2030-01-01T00:00"))
        return sorted(finding(one, rules).event_id for one in raises)

    assert ids(BERLIN, 1) == ids("Asia/Tokyo", 9)
    assert len(set(ids(BERLIN, 1))) == 2


@pytest.mark.parametrize("zone", [BERLIN, SAO_PAULO, HAVANA, "Australia/Lord_Howe", "Asia/Kathmandu"])
@pytest.mark.parametrize("at", ["00:00", "00:30", "01:45", "02:30"])
def test_a_year_of_days_gives_each_day_one_instant_of_its_own(zone: str, at: str) -> None:
    """Both daylight-saving changes included: in order, at the local time, or where the gap ends that swallowed it."""
    local, wanted = ZoneInfo(zone), time.fromisoformat(at)
    before = local_instant(zone, date(2018, 2, 28), wanted)
    odd = 0
    for day in (date(2018, 3, 1) + timedelta(days=number) for number in range(366)):
        found = local_instant(zone, day, wanted)
        shown = found.astimezone(local)
        assert shown.date() == day
        assert timedelta(hours=22) < found - before < timedelta(hours=26)
        if shown.time().replace(tzinfo=None) != wanted:
            odd += 1
            just_before = (found - timedelta(milliseconds=1)).astimezone(local)
            assert (just_before.date(), just_before.time()) < (day, wanted)
            assert shown.time() > wanted
        assert shown.fold == 0
        if at == "00:00":
            assert found == first_instant(zone, day)
        before = found
    assert odd <= 1  # clocks go forward once a year


@settings(max_examples=60, deadline=None)
@given(
    zone=st.sampled_from([BERLIN, SAO_PAULO, HAVANA]),
    deliveries=st.lists(st.integers(0, 8_759), min_size=1, max_size=6),
    ticks=st.lists(st.integers(0, 9_800), min_size=1, max_size=40).map(sorted),
    days=st.integers(0, 3),
)
def test_over_a_year_everything_is_raised_once_and_never_before_its_instant(
    zone: str, deliveries: list[int], ticks: list[int], days: int
) -> None:
    """However the clock jumps."""
    start = utc("2018-03-01T00:00")
    rules = [rule("a", days=days, at="02:30"), rule("b", days=days, at="00:00")]
    for hours in deliveries:
        delivered = start + timedelta(hours=hours)
        invoice = an_invoice((delivered + timedelta(days=days)).date().isoformat(), delivered_at=delivered)
        wanted = instants(invoice, zone, rules)
        work, found = derive(InvoiceWork(), invoice, zone, rules), dict[str, datetime]()
        for now in [*(start + timedelta(hours=tick) for tick in ticks), utc("2020-01-01T00:00")]:
            raises, work = due(unpack(pack(work)), invoice, 1, zone, rules, now)
            for one in raises:
                assert one.task not in found
                assert one.at <= now
                found[one.task] = one.at
        assert found == wanted
