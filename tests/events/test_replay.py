"""Redelivery and interleaving, as a property: the same event ids and the same final rows, whatever the order."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.objects import Service
from tests.core.billing import ACCOUNT, created, updated
from tests.events.works import Works

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
