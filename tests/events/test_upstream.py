"""The ledger upstream of the queues, against what the real handlers of the events worker leave behind."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from agents.cli.ledger import lasts
from agents.events.feeds import FEEDS
from streams.codec.rows import object_row_decoder, row_decoder
from streams.core.events import Event
from streams.core.rows import CountRow, count_key
from streams.core.upstream import Fold, Raised
from tests.core.billing import ACCOUNT, INVOICE, SERVICE, created, updated
from tests.events.works import Works, topic_of

BACK = {"state": "Active"}


class Checked:
    """A worker that has handled some records, and the checker's fold of the same records."""

    def __init__(self) -> None:
        self.works = Works()
        self.folds = {topic: Fold(topic, FEEDS[topic][0]) for topic in FEEDS}
        self.in_queues: set[str] = set()
        self.offset = 0

    def feed(self, *values: Any) -> list[Event]:
        found = []
        for value in values:
            topic = "billing.service" if isinstance(value, bytes) else topic_of(value)
            dead = len(self.dead())
            found += self.works.feed(topic, [value])
            fold = self.folds[topic]
            if len(self.dead()) > dead:
                fold.put_aside()
            else:
                fold.changed(0, f"{topic}/0/{self.offset}", value)
            self.offset += 1
        self.in_queues |= {one.event_id for one in found}
        return found

    def dead(self) -> list[Any]:
        return [one for one in self.works.outputs if one.topic.startswith("dead-letters.")]

    def revision(self, key: tuple[int, bytes]) -> int:
        raw = self.works.store.get(key[1])
        kinds = {str(kind): cls for kind, _, cls in FEEDS.values()}
        return 0 if raw is None else object_row_decoder(kinds[key[1].split(b"/")[0].decode()])(raw).revision

    def events(self, topic: str) -> dict[str, Raised]:
        raw = self.works.store.get(count_key(topic))
        counts: Counter[str] = Counter()
        for name, number in (row_decoder(CountRow)(raw).counts if raw is not None else {}).items():
            what, _, type = name.partition(" ")
            counts[type] += number if what in ("unrouted", "withheld") else 0
        return {one.type: one for one in self.folds[topic].events(self.in_queues, counts)}


@pytest.fixture
def checked() -> Checked:
    """Three transitions of a service, the second of them twice, one of an old revision, one dead letter."""
    checked = Checked()
    first = updated(SERVICE, 2, state="Suspended")
    second = updated(first.current, 3, **BACK)
    third = updated(second.current, 4, state="Suspended")
    checked.feed(created(ACCOUNT), created(SERVICE), first, second, second, third, first, b"no Avro")
    return checked


def test_every_record_is_applied_stale_duplicate_or_dead(checked: Checked) -> None:
    service = checked.folds["billing.service"].input(checked.revision)

    assert (service.input, service.applied, service.stale, service.duplicate, service.dead) == (7, 4, 1, 1, 1)
    assert (service.difference, checked.folds["billing.account"].input(checked.revision).difference) == (0, 0)


def test_every_event_that_the_records_mean_is_in_a_queue_or_unrouted(checked: Checked) -> None:
    """Nobody wants invoices' drafts; the worker has counted them."""
    checked.works.catalogue.objects["route"].clear()
    checked.works.catalogue.put("route", "none", None)
    del checked.works.catalogue.objects["route"]["none"]
    checked.feed(created(INVOICE), updated(INVOICE, state="Posted"))

    transitions = checked.events("billing.service")["service.state_transitioned"]
    posted = checked.events("billing.invoice")["invoice.posted"]

    assert (transitions.raised, transitions.routed, transitions.unrouted, transitions.difference) == (3, 3, 0, 0)
    assert (posted.raised, posted.routed, posted.unrouted, posted.difference) == (1, 0, 1, 0)


def test_an_event_that_is_removed_or_swapped_in_its_queue_is_a_difference_of_one(checked: Checked) -> None:
    lost = sorted(checked.in_queues)[0]
    checked.in_queues.remove(lost)

    removed = checked.events("billing.service")["service.state_transitioned"]
    checked.in_queues.add("00000000-0000-5000-8000-000000000000")
    swapped = checked.events("billing.service")["service.state_transitioned"]

    assert (removed.difference, removed.missing) == (1, (lost,))
    assert (swapped.difference, swapped.missing) == (1, (lost,))


def test_a_record_whose_object_was_not_brought_to_its_revision_is_a_difference_of_one(checked: Checked) -> None:
    """A row that was lost, and a record that nobody can read and that lies in no dead letter."""
    fold = checked.folds["billing.service"]

    behind = fold.input(lambda key: checked.revision(key) - 1)
    fold.unread("billing.service/0/99")
    unread = fold.input(checked.revision)

    assert (behind.difference, behind.missing) == (1, ("billing.service/0/5",))
    assert (unread.difference, unread.missing, unread.input) == (1, ("billing.service/0/99",), 8)


def test_what_is_only_on_its_way_is_no_difference_that_lasts() -> None:
    """A look again finds it; one that stays is told, and so is one that is there at the only look."""
    looks = iter([frozenset("ab"), frozenset("a"), frozenset("c")])

    passing, lasting = lasts(lambda: next(looks), lambda one: one, 60.0)
    stays = lasts(lambda: frozenset("a"), lambda one: one, 0.01)
    at_once = lasts(lambda: frozenset("a"), lambda one: one, 0.0)

    assert (passing, lasting) == (frozenset("c"), False)
    assert (stays, at_once) == ((frozenset("a"), True), (frozenset("a"), True))
