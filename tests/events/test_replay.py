"""Redelivery and interleaving, as a property: the same event ids and the same final rows, whatever the order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.event_rules import EventRule
from streams.core.objects import Credit, Payment, Refund, Service
from tests.core.billing import ACCOUNT, INVOICE, PACKAGE, created, deleted, updated
from tests.events.works import Works, topic_of

STATES = ("Preactive", "Active", "Suspended", "Cancelled")


def _history(service: str, states: list[str]) -> list[Any]:
    """Changes of one service through ``states``, revisions from 1."""
    current = Service(id=service, account_id="A1", name=service, state="Preactive")
    changes = [created(current)]
    for revision, state in enumerate(states, 2):
        changes.append(updated(current, revision, state=state))
        current = changes[-1].current
    return changes


histories = st.lists(st.lists(st.sampled_from(STATES), max_size=6), min_size=1, max_size=4).map(
    lambda all: [_history(f"S{number}", states) for number, states in enumerate(all)]
)


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[list[Any]], list[list[Any]]]:
    """(histories, chunks): every object's own order is kept, objects are interleaved, and the stream is rewound."""
    all_histories = draw(histories)
    pending = [list(history) for history in all_histories]
    stream: list[Any] = []
    while any(pending):
        number = draw(st.sampled_from([n for n, rest in enumerate(pending) if rest]))
        stream.append(pending[number].pop(0))
    for _ in range(draw(st.integers(0, 3))):  # a crash: from some offset on everything comes again
        start = draw(st.integers(0, len(stream) - 1))
        end = draw(st.integers(start + 1, len(stream)))
        stream[end:end] = stream[start:end]
    chunks: list[list[Any]] = []
    while stream:
        size = draw(st.integers(1, len(stream)))
        chunks.append(stream[:size])
        stream = stream[size:]
    return all_histories, chunks


def _run(chunks: list[list[Any]], crashes: frozenset[int] = frozenset()) -> Works:
    works = Works()
    works.feed("billing.account", [created(ACCOUNT)])
    for number, chunk in enumerate(chunks):
        if number in crashes:
            works.feed("billing.service", chunk, crash=True)
        works.feed("billing.service", chunk)
    return works


@settings(max_examples=80, deadline=None)
@given(deliveries(), st.frozensets(st.integers(0, 10)))
def test_interleaved_and_repeated_records_give_the_same_ids_and_rows(
    delivery: tuple[list[list[Any]], list[list[Any]]], crashes: frozenset[int]
) -> None:
    """One object after the other without a crash is the reference; a crash repeats ids but makes no new ones."""
    in_order, chunks = delivery
    reference, works = _run(in_order), _run(chunks, crashes)

    assert {e.event_id for e in works.queued("operations")} == {e.event_id for e in reference.queued("operations")}
    assert dict(works.store.scan(b"service/")) == dict(reference.store.scan(b"service/"))
    assert works.counts == reference.counts


@settings(max_examples=80, deadline=None)
@given(histories.flatmap(lambda all: st.permutations([change for history in all for change in history])))
def test_changes_out_of_order_end_in_the_highest_revision_and_every_lost_one_is_counted(shuffled: list[Any]) -> None:
    """No writer does this to one object. If it happens, an older revision changes nothing; the gaps say how many."""
    works = _run([shuffled])
    latest: dict[str, Any] = {}
    for change in shuffled:
        if change.revision >= latest.get(change.subject.id, change).revision:
            latest[change.subject.id] = change

    gaps = 0
    for service, change in latest.items():
        row = works.row("billing.service", b"service/" + service.encode())
        assert (row.revision, row.current) == (change.revision, change.current)
        gaps += row.gaps
    assert works.counts["gaps service"] == gaps
    ids = [event.event_id for event in works.queued("operations")]
    assert len(ids) == len(set(ids))


DAY = timedelta(days=1)
#: Invoices are due on the third day, in São Paulo, whose clocks go forward in the night to the fifth.
BEGIN = datetime(2018, 11, 1, 12, tzinfo=UTC)
#: A balance of 10, due on the third day after BEGIN.
OPEN = replace(INVOICE, state="Posted", balance=Decimal(10), due_date=(BEGIN + 2 * DAY).date())
RULES = (
    EventRule(name="night", days=1, at="00:30"),
    EventRule(name="unpaid", days=2, at="02:30", only_while_unpaid=True),
)

#: What may happen to an invoice, as functions of its state and the hour.
DEEDS: tuple[Callable[[Any, datetime], dict[str, Any]], ...] = (
    lambda invoice, now: {"balance": Decimal(0), "state": "Paid"},
    lambda invoice, now: {"balance": Decimal(10), "state": "Posted"},
    lambda invoice, now: {"due_date": invoice.due_date + DAY},
    lambda invoice, now: {"grace_days": 1 - invoice.grace_days},
    lambda invoice, now: {"delivered_at": now},
    lambda invoice, now: {"state": "Cancelled"},
)


def _records(steps: list[tuple[int, int, int]]) -> list[tuple[datetime, Any]]:
    """(instant, change) of three invoices and what else an account has, from (hours, invoice, deed)."""
    states: dict[int, Any] = {}
    revisions: dict[int, int] = {}
    made: list[tuple[datetime, Any]] = [(BEGIN, created(PACKAGE)), (BEGIN, updated(PACKAGE, product_id="mobile"))]
    now = BEGIN
    for number, (hours, invoice, deed) in enumerate(steps):
        now += timedelta(hours=hours)
        money: dict[str, Any] = {"account_id": "A1", "amount": Decimal(10), "currency": "BRL", "state": "Processed"}
        others = [
            created(Payment(id=f"M{number}", method="card", **{**money, "state": ("Failed", "Processed")[deed % 2]})),
            created(Refund(id=f"R{number}", **money)),
            created(Credit(id=f"C{number}", **money)),
        ]
        made.append((now, others[deed % 3]))
        revisions[invoice] = revisions.get(invoice, 0) + 1
        before = states.get(invoice)
        if before is None:
            states[invoice] = replace(OPEN, id=f"I{invoice}")
            change = created(states[invoice], revisions[invoice])
        elif deed == len(DEEDS):
            change, states[invoice] = deleted(before, revisions[invoice]), None
        else:
            change = updated(before, revisions[invoice], **DEEDS[deed](before, now))
            states[invoice] = change.current
        made.append((now, replace(change, occurred_at=now)))
    return made


def _worker() -> Works:
    works = Works()
    for rule in RULES:
        works.catalogue.put("event_rule", rule.name, rule)
    works.tick(BEGIN)
    works.feed("billing.account", [created(ACCOUNT)])
    return works


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2), st.integers(0, len(DEEDS))), max_size=14),
    lags=st.lists(st.integers(0, 80), min_size=30, max_size=30),
    crashes=st.frozensets(st.integers(0, 40), max_size=6),
)
def test_the_same_records_and_ticks_give_the_same_ids_whoever_comes_first_and_whatever_crashes(
    steps: list[tuple[int, int, int]], lags: list[int], crashes: frozenset[int]
) -> None:
    """A tick for each record is the reference. A worker that was away reads records in front of their ticks, in chunks,
    with crashes and restarts in between: what it raises depends on when things happened, not on when it reads them."""
    records = _records(steps)
    end = BEGIN + timedelta(days=40)
    reference = _worker()
    for now, change in records:
        reference.tick(now)
        reference.feed(topic_of(change), [change])
    reference.tick(end)

    works = _worker()
    ahead = iter(lags)
    pending = list(records)
    clock, number = BEGIN, 0
    while pending or clock < end:
        clock = min(end, clock + timedelta(hours=next(ahead, 1_000)))
        # Everything up to the tick has been read (a worker that has caught up), and what is behind it may be, too.
        size = max(sum(at <= clock for at, _ in pending), next(ahead, 0) % 4)
        for _, change in pending[:size]:
            if number in crashes:
                works.feed(topic_of(change), [change], crash=True)
            works.feed(topic_of(change), [change])
            number += 1
        del pending[:size]
        if number in crashes:
            works.tick(clock, crash=True)
            works.reopen()
        works.tick(clock)

    assert _ids(works) == _ids(reference)
    assert works.counts == reference.counts


def _ids(works: Works) -> set[tuple[str, str]]:
    return {(event.type, event.event_id) for event in works.queued("operations")}
