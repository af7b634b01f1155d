"""Overdue invoices and rules in the events worker: rows, ticks, what moves them, and crashes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from agents import timers
from agents.events import invoice_timers
from agents.events.invoice_timers import RULES_KEY, RulesRow
from agents.events.limits import MAX_INVOICE_BYTES
from streams.codec.rows import encode_row, row_decoder
from streams.core.event_rules import EventRule
from streams.core.events import Event, Finding
from streams.core.invoice_due import InvoiceWork, Pinned, pack
from streams.core.midnight import TZ_VERSION
from streams.core.objects import Invoice
from streams.core.routing import Route
from streams.core.rows import object_key
from streams.kafka.store import MAX_ROW_BYTES
from tests.core.billing import ACCOUNT, INVOICE, created, deleted, updated
from tests.events.works import Works

#: São Paulo, 2018-11-30 + 1 day, two hours west of Greenwich in its summer.
BREACHED = datetime(2018, 12, 1, 2, tzinfo=UTC)
DELIVERED = datetime(2018, 11, 3, 21, 30, tzinfo=UTC)
#: One day after the delivery, 02:30.
REMINDED = datetime(2018, 11, 4, 4, 30, tzinfo=UTC)
START = datetime(2018, 11, 3, 12, tzinfo=UTC)
POSTED = replace(INVOICE, state="Posted")
RULE = EventRule(name="reminder", days=1, at="02:30")
MS = timedelta(milliseconds=1)


def put_rules(works: Works, *rules: EventRule) -> None:
    for rule in rules:
        works.catalogue.put("event_rule", rule.name, rule)


@pytest.fixture
def works() -> Works:
    """Account A1 is known, the clock is at START."""
    works = Works()
    put_rules(works, RULE)
    works.tick(START)
    works.feed("billing.account", [created(ACCOUNT)])
    return works


def change(invoice: Invoice, revision: int, at: datetime, **fields: Any) -> Any:
    return replace(updated(invoice, revision, **fields), occurred_at=at)


def types(events: list[Event]) -> list[str]:
    return [event.type for event in events]


def test_an_unpaid_invoice_is_overdue_at_the_first_instant_after_its_terms(works: Works) -> None:
    """Not a millisecond before; with facts, parameters and the instant as its time."""
    works.feed("billing.invoice", [created(POSTED)])

    early = works.tick(BREACHED - MS)
    [event] = works.tick(BREACHED)

    assert early == []
    assert (event.type, event.occurred_at, event.sequence) == ("invoice.overdue", BREACHED, 1)
    assert event.facts == {
        "due_date": INVOICE.due_date, "grace_days": 0, "overdue_at": BREACHED, "balance": Decimal("129.90"),
    }  # fmt: skip
    assert event.parameters["account.name"] == ACCOUNT.name
    assert event.current is not None
    assert event.current["number"] == INVOICE.number
    assert works.tick(BREACHED + timedelta(days=300)) == []
    assert works.counts["raised invoice.overdue"] == 1


def test_the_clock_is_told_what_comes_next(works: Works) -> None:
    """The virtual clock goes there at once."""
    works.feed("billing.invoice", [created(replace(POSTED, delivered_at=DELIVERED))])
    first = works.next_due()
    works.tick(REMINDED)
    second = works.next_due()
    works.tick(BREACHED)

    assert (first, second, works.next_due()) == (REMINDED, BREACHED, None)


@pytest.mark.parametrize("end", ["paid", "cancelled", "deleted", "draft"])
def test_what_ends_before_its_terms_is_not_overdue(works: Works, end: str) -> None:
    """By the time at which it happened."""
    works.feed("billing.invoice", [created(POSTED)])
    before = BREACHED - MS
    ends = {
        "paid": change(POSTED, 2, before, balance=Decimal(0), state="Paid"),
        "cancelled": change(POSTED, 2, before, state="Cancelled"),
        "deleted": replace(deleted(POSTED), occurred_at=before),
        "draft": change(POSTED, 2, before, state="Draft"),
    }

    works.feed("billing.invoice", [ends[end]])

    assert works.tick(BREACHED) == []


def test_a_payment_that_came_after_the_terms_is_too_late_even_if_it_is_read_before_the_tick(works: Works) -> None:
    """A worker that was away reads both at once: what it raises does not depend on which it reads first."""
    paid = change(POSTED, 2, BREACHED, balance=Decimal(0), state="Paid")
    works.feed("billing.invoice", [created(POSTED), paid])
    works.reopen()

    [event] = works.tick(BREACHED)

    assert (event.type, event.facts["balance"], event.sequence) == ("invoice.overdue", Decimal("129.90"), 1)


def test_a_due_date_that_moves_takes_its_instant_along_and_each_is_raised_once(works: Works) -> None:
    """Extended before the first was breached: only the second; breached, then extended: both."""
    later = POSTED.due_date + timedelta(days=10)
    extended = change(POSTED, 2, BREACHED - MS, due_date=later)
    works.feed("billing.invoice", [created(POSTED), extended])
    silent = works.tick(BREACHED)
    [second] = works.tick(BREACHED + timedelta(days=10))
    again = change(extended.current, 3, second.occurred_at + MS, due_date=later + timedelta(days=10))
    back = change(again.current, 4, second.occurred_at + 2 * MS, due_date=later)
    works.feed("billing.invoice", [again, back])

    assert silent == []
    assert second.facts["due_date"] == later
    assert works.tick(BREACHED + timedelta(days=60)) == []


def test_an_invoice_that_comes_before_its_account_waits_for_it() -> None:
    """It is in another topic. Nothing is guessed, nothing is lost, also over a restart."""
    works = Works()
    put_rules(works, RULE)
    works.tick(START)
    works.feed("billing.invoice", [created(replace(POSTED, delivered_at=DELIVERED))])
    waiting = works.tick(BREACHED + timedelta(days=1))
    works.reopen()

    works.feed("billing.account", [created(ACCOUNT)])

    assert waiting == []
    raised = works.queued("operations")
    assert [(event.type, event.occurred_at) for event in raised][2:] == [
        ("invoice.delivered_plus", REMINDED),
        ("invoice.overdue", BREACHED),
    ]


def test_an_account_with_an_unknown_zone_is_waited_for(works: Works) -> None:
    """The worker goes on; the first zone that exists counts."""
    broken = updated(ACCOUNT, 2, zone="Mars/Olympus_Mons")
    works.feed("billing.account", [broken])
    works.feed("billing.invoice", [created(POSTED)])
    silent = works.tick(BREACHED + timedelta(days=9))

    events = works.feed("billing.account", [updated(broken.current, 3, zone="America/Sao_Paulo")])

    assert silent == []
    assert types(events) == ["invoice.overdue"]


def test_an_account_that_moves_takes_its_invoices_along(works: Works) -> None:
    """To the east everything is earlier."""
    works.feed("billing.invoice", [created(replace(POSTED, delivered_at=DELIVERED))])

    works.feed("billing.account", [updated(ACCOUNT, 2, zone="Asia/Tokyo")])

    tokyo = [datetime(2018, 11, 4, 17, 30, tzinfo=UTC), datetime(2018, 11, 30, 15, tzinfo=UTC)]
    assert works.tick(REMINDED) == []  # in Tokyo it was delivered on the 4th
    assert [(event.type, event.occurred_at) for at in tokyo for event in works.tick(at)] == [
        ("invoice.delivered_plus", tokyo[0]),
        ("invoice.overdue", tokyo[1]),
    ]


def test_several_rules_and_one_for_the_unpaid(works: Works) -> None:
    """Each raises its own event; the second delivery moves nothing."""
    put_rules(works, RULE, EventRule(name="unpaid", days=1, at="02:30", only_while_unpaid=True),
              EventRule(name="asleep", days=0, at="00:00", active=False))  # fmt: skip
    works.tick(START + MS)
    sent = replace(POSTED, delivered_at=DELIVERED)
    again = change(sent, 2, DELIVERED + MS, delivered_at=DELIVERED + timedelta(days=1))
    paid = replace(sent, id="I2", balance=Decimal(0), state="Paid")
    works.feed("billing.invoice", [created(sent), again, created(paid)])

    events = works.tick(REMINDED)

    assert sorted((event.facts["rule"], event.subject_id) for event in events) == [
        ("reminder", "I1"), ("reminder", "I2"), ("unpaid", "I1"),
    ]  # fmt: skip
    assert events[0].facts == {
        "rule": "reminder", "days": 1, "at": "02:30", "delivered_at": DELIVERED, "due_at": REMINDED,
    }  # fmt: skip


def test_rules_that_change_move_what_is_pending_and_leave_what_was_raised(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a restart, some invoices at a time, over a restart in the middle."""
    monkeypatch.setattr(invoice_timers, "SLICE", 2)
    paid = replace(POSTED, balance=Decimal(0), state="Paid")
    early = [replace(paid, id=f"E{n}", delivered_at=DELIVERED) for n in range(3)]
    late = [replace(paid, id=f"L{n}", delivered_at=DELIVERED + timedelta(days=1)) for n in range(4)]
    works.feed("billing.invoice", [created(invoice) for invoice in (*early, *late)])
    first = works.tick(REMINDED)
    put_rules(works, replace(RULE, days=2))
    works.tick(REMINDED + timedelta(hours=1))
    works.reopen()

    nothing = works.tick(REMINDED + timedelta(days=1))
    moved = works.tick(REMINDED + timedelta(days=2))

    assert sorted(event.subject_id for event in first) == ["E0", "E1", "E2"]
    assert nothing == []
    assert sorted(event.subject_id for event in moved) == ["L0", "L1", "L2", "L3"]
    assert all(event.facts["days"] == 2 for event in moved)


def test_a_rule_that_is_taken_away_or_moved_into_the_past_raises_nothing_more(works: Works) -> None:
    """Only instants of the future move; a new name is a new rule, but not for the past."""
    works.feed("billing.invoice", [created(replace(POSTED, balance=Decimal(0), delivered_at=DELIVERED))])
    put_rules(works, replace(RULE, at="00:30"), EventRule(name="new", days=0, at="00:00"))

    assert works.tick(REMINDED - timedelta(minutes=1)) == []
    assert works.tick(REMINDED + timedelta(days=9)) == []


def test_a_rule_is_not_taken_over_before_what_was_due_under_the_old_one_is_raised(works: Works) -> None:
    """Its instant came first, and only the tick was late."""
    works.feed("billing.invoice", [created(replace(POSTED, balance=Decimal(0), delivered_at=DELIVERED))])
    put_rules(works, replace(RULE, days=9))

    assert types(works.tick(REMINDED)) == ["invoice.delivered_plus"]


def test_invoices_are_looked_at_again_when_time_zone_data_has_changed(works: Works) -> None:
    """Another government decision, another deadline: the rows know which data they were derived with."""
    works.feed("billing.invoice", [created(POSTED)])
    old = works.store.get(RULES_KEY)
    assert old is not None
    works.store.write([(RULES_KEY, old.replace(TZ_VERSION.encode(), b"1999a"))], None)
    works.reopen()
    held = works.memory["event rules"].row
    works.tick(START + MS)

    assert held.tz_version == "1999a"
    row = row_decoder(RulesRow)(works.store.get(RULES_KEY) or b"")
    assert (row.tz_version, row.cursor) == (TZ_VERSION, None)


@pytest.mark.parametrize("virtual", [True, False])
def test_a_worker_that_has_not_caught_up_does_not_judge_by_the_clock(works: Works, virtual: bool) -> None:
    """It finds the newest tick at once; what was paid while it was away it has still to read. A virtual clock waits."""
    works.events.timers._due._virtual = virtual
    works.feed("billing.invoice", [created(POSTED)])
    works.caught_up = False

    behind = works.tick(BREACHED + timedelta(days=1))
    works.feed("billing.invoice", [change(POSTED, 2, BREACHED - MS, balance=Decimal(0), state="Paid")])
    works.caught_up = True

    assert types(behind) == (["invoice.overdue"] if virtual else [])
    assert works.tick(BREACHED + timedelta(days=2)) == []


def test_a_million_of_one_midnight_do_not_stop_the_partition(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the wall's clock a batch raises a few slices; the next tick goes on."""
    monkeypatch.setattr(timers, "SLICE", 3)
    works.events.timers._due._virtual = False
    works.feed("billing.invoice", [created(replace(POSTED, id=f"I{n}")) for n in range(20)])

    raised = [len(works.tick(BREACHED + timedelta(seconds=n))) for n in range(3)]

    assert raised == [12, 8, 0]


def test_a_crash_repeats_the_ids_and_counts_once(works: Works) -> None:
    """Outputs are durable, rows are not; and counts are, but timers are not."""
    works.feed("billing.invoice", [created(POSTED)])
    first = works.tick(BREACHED, crash=True)
    before = dict(works.store.scan(b"timer/"))
    second = works.tick(BREACHED)
    works.store.write(list(before.items()), None)
    works.reopen()
    third = works.tick(BREACHED)

    assert len({event.event_id for event in (*first, *second, *third)}) == 1
    assert (len(first), len(second), len(third)) == (1, 1, 1)
    assert works.counts["raised invoice.overdue"] == 1
    assert works.tick(BREACHED + MS) == []


def test_an_invoice_whose_row_was_lost_in_a_crash_is_not_taken_for_one_that_is_late(works: Works) -> None:
    """The timer is durable before the invoice: the same change comes again and means the same."""
    works.feed("billing.invoice", [created(POSTED)])
    rows = dict(works.store.scan(b"invoice/"))
    past = change(POSTED, 2, BREACHED, due_date=POSTED.due_date - timedelta(days=20))
    works.feed("billing.invoice", [past])
    first = dict(works.store.scan(b"timer/"))
    works.store.write(list(rows.items()), None)
    works.reopen()

    works.feed("billing.invoice", [past])

    assert dict(works.store.scan(b"timer/")) == first


def test_an_invoice_is_so_small_that_all_that_waits_for_it_fits_into_one_row(works: Works) -> None:
    """Each task keeps it as it was; a row that is refused when time has come would stop the worker."""
    largest = replace(POSTED, number="y" * (MAX_INVOICE_BYTES - 200))
    pinned = {f"delivered_plus {number}": Pinned(revision=number, invoice=largest) for number in range(30)}

    works.feed(
        "billing.invoice", [created(largest), created(replace(largest, id="I2", number="y" * MAX_INVOICE_BYTES))]
    )

    assert works.row("billing.invoice", object_key("invoice", POSTED.id)).current == largest
    assert [dict(one.headers or ())["curfew-reason"] for one in works.dead()] == [b"too_large"]
    assert len(encode_row(pack(InvoiceWork(pinned=pinned)))) < MAX_ROW_BYTES


def test_an_event_that_is_too_large_is_put_aside_as_a_finding_that_can_be_redriven() -> None:
    """There is no record to put aside: time has raised it."""
    works = Works(
        Route(name="r", event_types=("invoice.overdue",), queues=("operations",), parameters=("account.email",))
    )
    works.tick(START)
    works.feed("billing.account", [created(replace(ACCOUNT, email="x" * 200_000))])
    works.feed("billing.invoice", [created(replace(POSTED, number="y" * 20_000))])
    enormous = updated(ACCOUNT, 2, email="x" * 1_040_000)
    row = works.row("billing.account", b"account/A1")
    works.store.write([(b"account/A1", encode_row(replace(row, current=enormous.current)))], None)

    assert works.tick(BREACHED) == []

    [dead] = works.dead()
    finding = works.codec.decode(dead.value, Finding)
    assert (finding.type, dead.key) == ("invoice.overdue", b"A1")
    assert "raised invoice.overdue" not in works.counts
    works.store.write([(b"account/A1", encode_row(row))], None)
    assert [event.event_id for event in works.feed("events.findings", [finding])] == [finding.event_id]
