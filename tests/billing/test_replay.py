"""However the records come (in chunks, twice, from the start again), the billing store ends the same."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.core.errors import Poison
from streams.core.messages import ExecutionResult, Settlement
from streams.sinks.billing import Counts, Settled, SqlBillingStore
from tests.billing.makers import EVENING, LONG_AGO, MIDNIGHT, NEXT_MIDNIGHT, at, closing, plan, releasing, sealed

SERVICES = 3
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


def send(store: SqlBillingStore, chunk: Sequence[Message]) -> list[object]:
    """One chunk of one kind; a refusal is compared by its reason."""
    answers: Sequence[object]
    if isinstance(chunk[0], ExecutionResult):
        answers = store.persist([one for one in chunk if isinstance(one, ExecutionResult)], now=at(EVENING))
    else:
        asked = [one for one in chunk if isinstance(one, Settlement)]
        answers = (store.close if asked[0].kind == "close" else store.release)(asked, now=at(EVENING))
    return [answer.reason if isinstance(answer, Poison) else answer for answer in answers]


def kind(message: Message) -> str:
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
