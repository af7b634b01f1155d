"""What pending plan changes hear of their accounts and services."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from streams.core.plan_change.messages import Context
from streams.topics import PLAN_CONTEXTS
from tests.core.billing import ACCOUNT, SERVICE, created, deleted, updated
from tests.events.works import Works, topic_of


def heard(works: Works, *changes: Any) -> list[tuple[int, str, Context]]:
    """(partition or -1, key, context) of everything that these changes tell the scheduler."""
    before = len(works.outputs)
    for change in changes:
        works.feed(topic_of(change), [change])
    sent = [out for out in works.outputs[before:] if out.topic == PLAN_CONTEXTS]
    return [(out.partition, str(out.key), works.codec.decode(out.value, Context)) for out in sent]


def test_an_account_that_moves_is_heard_of_in_every_partition() -> None:
    """Its services are anywhere."""
    works = Works()

    found = heard(works, created(ACCOUNT), updated(ACCOUNT, 2, zone="Europe/Lisbon"))

    assert [(partition, key) for partition, key, _ in found] == [(number, "A1") for number in range(4)]
    assert {context for _, _, context in found} == {
        Context(account_id="A1", service_id=None, revision=2, zone="Europe/Lisbon", cancelled=False)
    }


@pytest.mark.parametrize("how", ["status", "deleted"])
def test_a_cancelled_account_is_heard_of(how: str) -> None:
    """Also one that is deleted; its zone is what it was."""
    change = updated(ACCOUNT, 2, status="Cancelled") if how == "status" else deleted(ACCOUNT)

    found = heard(Works(), created(ACCOUNT), change)

    assert len(found) == 4
    assert {(context.cancelled, context.zone) for _, _, context in found} == {(True, ACCOUNT.zone)}


def test_a_cancelled_service_is_heard_of_where_its_changes_are() -> None:
    """Once: the next record about it says nothing new."""
    cancelled = updated(SERVICE, 2, state="Cancelled")

    found = heard(Works(), created(SERVICE), cancelled, updated(cancelled.current, 3, name="gone"))

    assert found == [
        (-1, "S1", Context(account_id="A1", service_id="S1", revision=2, zone=None, cancelled=True)),
    ]


def test_what_concerns_no_pending_change_is_not_told() -> None:
    """New objects have none yet, and a suspension or another name does not matter."""
    works = Works()

    assert heard(works, created(ACCOUNT), created(SERVICE)) == []
    assert heard(works, updated(ACCOUNT, 2, status="Suspended"), updated(SERVICE, 2, state="Suspended")) == []


def test_an_account_that_was_deleted_and_comes_back_is_heard_of() -> None:
    """Its changes that are held waited for that; where it is now may be elsewhere."""
    works = Works()
    heard(works, created(ACCOUNT), deleted(ACCOUNT))

    found = heard(works, created(replace(ACCOUNT, zone="Europe/Lisbon"), 3))

    assert [partition for partition, _, _ in found] == [*range(4)]
    assert {context for _, _, context in found} == {
        Context(account_id="A1", service_id=None, revision=3, zone="Europe/Lisbon", cancelled=False)
    }


def test_a_service_that_was_deleted_and_comes_back_is_heard_of() -> None:
    """Where its changes are."""
    found = heard(Works(), created(SERVICE), deleted(SERVICE), created(SERVICE, 3))

    assert [(key, context.revision, context.cancelled) for _, key, context in found] == [
        ("S1", 2, True),
        ("S1", 3, False),
    ]


def test_what_comes_back_cancelled_is_no_news_until_it_is_not() -> None:
    """An end follows an end; then the zone is told with the end of that, once. Deleted twice, it is gone as before."""
    works = Works()
    back = replace(ACCOUNT, status="Cancelled", zone="Europe/Lisbon")
    heard(works, created(ACCOUNT), deleted(ACCOUNT), deleted(ACCOUNT, 3))

    assert heard(works, created(back, 4)) == []
    found = heard(works, updated(back, 5, status="Active"))

    assert {(context.zone, context.cancelled) for _, _, context in found} == {("Europe/Lisbon", False)}
