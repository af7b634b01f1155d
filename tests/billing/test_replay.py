"""However the records come (in chunks, twice, from the start again), the billing store ends the same."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.core.errors import Poison
from streams.core.plan_change.messages import Acknowledgement, ExecutionResult, Settlement
from streams.sinks.billing import Counts, Settled, Split, SqlBillingStore
from tests.billing.makers import EVENING, LONG_AGO, MIDNIGHT, NEXT_MIDNIGHT, at, closing, plan, releasing, sealed

SERVICES = 3
BEFORE = timedelta(hours=2)
Message: TypeAlias = ExecutionResult | Settlement

numbers = st.integers(0, SERVICES - 1)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(sealed, numbers),
    st.builds(sealed, numbers, revision=st.just(2), effective_from=st.just(NEXT_MIDNIGHT)),
    st.builds(sealed, numbers, silent=st.just(True)),
    st.builds(closing, numbers, accept_late=st.booleans()),
    st.builds(closing, numbers, revision=st.just(2), deadline_at=st.sampled_from([MIDNIGHT, NEXT_MIDNIGHT])),
    st.builds(releasing, numbers),
)


#: Beside the messages: a tick, at which the second parts of outcomes are finished that are due.
ticks: st.SearchStrategy[datetime] = st.sampled_from([MIDNIGHT - BEFORE, MIDNIGHT, NEXT_MIDNIGHT - BEFORE])


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file with the services in it, to be copied for each example."""
    file = tmp_path_factory.mktemp("replay") / "billing.sqlite"
    store = SqlBillingStore(f"sqlite:///{file}")
    store.migrate()
    store.load_plans([plan(number) for number in range(SERVICES)], occurred_at=LONG_AGO)
    store.dispose()  # the last connection moves the write-ahead log into the file
    return file


@contextmanager
def copy_of(file: Path) -> Iterator[SqlBillingStore]:
    with tempfile.TemporaryDirectory() as directory:
        store = SqlBillingStore(f"sqlite:///{shutil.copy(file, directory)}")
        yield store
        store.dispose()


def send(store: SqlBillingStore, chunk: Sequence[Message | datetime], split: Split | None = None) -> list[object]:
    """One chunk of one kind; a refusal is compared by its reason. To ticks there is no answer of their own."""
    answers: Sequence[object]
    if isinstance(chunk[0], datetime):
        for now in chunk:
            assert isinstance(now, datetime)
            store.forget([one.result.change_id for one in store.finish(0, at=now, limit=2, now=at(EVENING))])
        answers = [None] * len(chunk)
    elif isinstance(chunk[0], ExecutionResult):
        results = [one for one in chunk if isinstance(one, ExecutionResult)]
        answers = store.persist(results, now=at(EVENING), split=split)
    else:
        asked = [one for one in chunk if isinstance(one, Settlement)]
        answers = (store.close if asked[0].kind == "close" else store.release)(asked, now=at(EVENING))
    return [answer.reason if isinstance(answer, Poison) else answer for answer in answers]


def kind(message: Message | datetime) -> str:
    if isinstance(message, datetime):
        return "tick"
    return message.kind if isinstance(message, Settlement) else "outcome"


def state(store: SqlBillingStore) -> tuple[list[Settled], list[object], Counts]:
    return list(store.changes()), [store.plan(f"s{number}") for number in range(SERVICES)], store.counts()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.lists(messages, max_size=14))
def test_chunks_and_repetitions_change_nothing(empty_store: Path, sent: list[Message]) -> None:
    """One by one, or in chunks each of which comes twice: the same answers and the same store; and what must hold."""
    with copy_of(empty_store) as single, copy_of(empty_store) as chunked:
        alone = [answer for message in sent for answer in send(single, [message])]
        together: list[object] = []
        for _, group in groupby(sent, key=kind):
            chunk = list(group)
            first = send(chunked, chunk)
            acknowledged = [index for index, answer in enumerate(first) if not isinstance(answer, str)]
            again = send(chunked, chunk)
            assert [again[index] for index in acknowledged] == [first[index] for index in acknowledged]
            together += first

        assert together == alone
        assert state(chunked) == state(single)
        found = list(single.changes())
        persisted = [one.change_id for one in found if one.persisted]
        assert len(persisted) == len(set(persisted))
        assert all(one.persisted or one.missed for one in found)
        assert all(stored.rows_match for stored in single.outcomes(persisted).values())


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.lists(st.one_of(messages, ticks), max_size=16))
def test_chunks_and_repetitions_of_outcomes_in_two_parts_change_nothing(
    empty_store: Path, sent: list[Message | datetime]
) -> None:
    """The same with second parts that wait for ticks; and memberships belong to changes that are whole or wait."""
    split = Split(before=BEFORE, at=EVENING, partition=0)
    with copy_of(empty_store) as single, copy_of(empty_store) as chunked:
        for message in sent:
            send(single, [message], split)
        for _, group in groupby(sent, key=kind):
            # A slice of two second parts per tick: a repeated tick is another one.
            chunk = list(group)
            first = send(chunked, chunk, split)
            again = first if isinstance(chunk[0], datetime) else send(chunked, chunk, split)
            acknowledged = [index for index, answer in enumerate(first) if isinstance(answer, Acknowledgement)]
            assert [again[index] for index in acknowledged] == [first[index] for index in acknowledged]

        assert state(chunked) == state(single)
        counts = single.counts()
        assert counts.memberships == counts.services + counts.persisted + counts.waiting
        persisted = [one.change_id for one in single.changes() if one.persisted]
        assert all(stored.rows_match for stored in single.outcomes(persisted).values())
