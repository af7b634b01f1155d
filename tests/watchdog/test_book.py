"""The book: tallies that agree with the rows, one process at a time, and one cluster."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agents.watchdog.book import KEEP, Book
from streams.core.errors import Misconfigured
from streams.core.watch import Standing, Tracked
from streams.core.watch_rules import Limits

AT = datetime(2018, 11, 4, 3, tzinfo=UTC)
HOUR = timedelta(hours=1)


def ordered(number: int, **fields: object) -> Tracked:
    given: dict[str, object] = {
        "service_id": f"S{number}", "account_id": "A1", "change_id": f"C{number}", "revision": 1, "sequence": 0,
        "standing": Standing.OPEN, "start_at": AT - 6 * HOUR, "deadline_at": AT, "due_at": AT - 5 * HOUR,
    }  # fmt: skip
    return Tracked(**{**given, **fields})  # type: ignore[arg-type]


def settled(number: int, standing: Standing = Standing.PERSISTED) -> Tracked:
    none = dict.fromkeys(("start_at", "deadline_at", "due_at"))
    return ordered(number, sequence=-1, standing=standing, settled_at=AT - 4 * HOUR, **none)


def test_the_tallies_say_what_the_rows_say(tmp_path: Path) -> None:
    """They are kept in step change by change, whatever comes in which order; here they are counted anew."""
    rng = random.Random(7)
    facts = [ordered(number, revision=rng.randint(1, 2)) for number in range(200)]
    facts += [settled(number, rng.choice(list(Standing)[2:])) for number in range(150)]
    facts += [ordered(number, sequence=2, standing=Standing.STUCK) for number in range(100, 200)]
    rng.shuffle(facts)
    book = Book.open(tmp_path)
    for at in range(0, len(facts), 37):
        with book.page():
            book.add(facts[at : at + 37], AT)
    [found] = book.deadlines(AT, Limits())
    rows = [row for standing in Standing for row in book.unsettled(AT, 1_000, (standing,))]
    book.close()

    standings = [row.standing for row in rows]
    assert len(rows) == 200
    assert found.open == standings.count(Standing.OPEN) + standings.count(Standing.STUCK)
    assert [found.stuck, found.missed, found.ended, found.persisted, found.late] == [
        standings.count(one)
        for one in (Standing.STUCK, Standing.MISSED, Standing.ENDED, Standing.PERSISTED, Standing.LATE)
    ]
    assert found.overdue == found.open == found.ahead


def test_what_is_settled_is_forgotten_and_does_not_come_back(tmp_path: Path) -> None:
    """A reply that is sent again a month later is no news; what was never settled stays in sight."""
    book = Book.open(tmp_path)
    later = AT + KEEP + HOUR
    with book.page():
        book.add([ordered(1), settled(1), ordered(2)], AT)
        book.forget(later)
        book.add([ordered(1)], later)
    [found] = book.deadlines(later, Limits())
    book.close()

    assert (found.open, found.persisted) == (1, 0)


def test_a_page_that_is_not_finished_is_no_page(tmp_path: Path) -> None:
    """Offsets and rows change together or not at all."""
    book = Book.open(tmp_path)

    def half_a_page() -> None:
        with book.page():
            book.add([ordered(1)], AT)
            book.reached("t", {0: 5})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_a_page()

    assert (book.deadlines(AT, Limits()), book.positions("t")) == ([], {})
    book.close()


def test_two_watchdogs_do_not_share_a_book(tmp_path: Path) -> None:
    """They would read half of the records each."""
    book = Book.open(tmp_path)
    with pytest.raises(Misconfigured, match="a watchdog is running"):
        Book.open(tmp_path)
    book.close()
    Book.open(tmp_path).close()


def test_another_cluster_begins_another_book(tmp_path: Path) -> None:
    """Offsets of a cluster that was made anew would skip its records."""
    book = Book.open(tmp_path)
    book.belongs_to("one")
    with book.page():
        book.add([ordered(1)], AT)
        book.reached("t", {0: 5})
    book.belongs_to("one")
    kept = book.positions("t")
    book.belongs_to("two")

    assert (kept, book.positions("t"), book.deadlines(AT, Limits())) == ({0: 5}, {}, [])
    book.close()
