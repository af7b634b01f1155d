"""The comparison of the persister with bare loops compares the same work."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from agents.bench import persist
from streams.sinks.billing import SqlBillingStore


@pytest.fixture
def new_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """A small run; gives URLs of new SQLite files."""
    monkeypatch.setattr(persist, "CHANGES", 60)
    monkeypatch.setattr(persist, "PER_TRANSACTION", 20)
    monkeypatch.setattr(persist, "ROUNDS", 3)
    numbers, thresholds = count(), gc.get_threshold()
    yield lambda: f"sqlite:///{tmp_path / f'{next(numbers)}.sqlite'}"
    gc.set_threshold(*thresholds)
    gc.unfreeze()


@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_bare_loop_writes_what_the_persister_writes(new_database: Callable[[], str], one_by_one: bool) -> None:
    """Transaction by transaction, into a database of its own."""
    with persist._prepared(new_database()) as ours:
        log = persist._recorded(ours)
        wanted = ours.counts().persisted
    url = new_database()
    persisted = []
    with persist._replaying(url, log, one_by_one=one_by_one) as transactions:
        store = SqlBillingStore(url)
        for seconds in transactions:
            assert seconds > 0
            persisted.append(store.counts().persisted)
        store.dispose()

    assert wanted == 60
    assert persisted == [20, 40, 60]


def test_the_report_has_a_rate_per_side_and_both_ratios(new_database: Callable[[], str]) -> None:
    """From all rounds but the first, whoever began them."""
    found = persist.measure(new_database)

    assert set(found["persist_changes_per_second"]) == {"persister", "bare_loop", "bare_loop_one_by_one"}
    assert found["persister_ratio_to_bare_loop"] > 0
    assert found["persister_ratio_to_bare_loop_one_by_one"] > 0
