"""Derived identities."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core import ids


def test_ids_are_the_same_for_ever() -> None:
    """Pinned: they are unique keys in the billing store and in the world's inboxes."""
    assert ids.event_id("invoice.posted", "invoice", "I1", 3) == "77a20b27-0673-52d1-8f68-3f5eaf5ab035"
    assert ids.change_id("S1", "R1") == "ac9d5baa-bdbc-5cbc-a693-57540bedfa8d"
    assert ids.command_id("C1", 1, "execute") == "ee907b43-3d2c-505e-ba44-1bf8f14d7b07"
    assert ids.unit_id("E1", "crm") == "d42de18f-8389-5377-b222-3acc8a832572"


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_ids_are_version_5_uuids(parts: list[str]) -> None:
    """Anybody may derive them with a standard library."""
    assert ids.derive(*parts) == str(uuid5(ids.NAMESPACE, "\x1f".join(parts)))


def test_parts_do_not_run_into_each_other() -> None:
    """("a", "bc") is another cause than ("ab", "c")."""
    assert ids.derive("a", "bc") != ids.derive("ab", "c")


def test_one_instant_is_one_cause() -> None:
    """However its zone is written, and without what the wire cuts off."""
    utc = datetime(2018, 11, 4, 3, 0, 0, 123_456, tzinfo=UTC)
    elsewhere = utc.replace(microsecond=123_000).astimezone(timezone(timedelta(hours=-3)))

    assert ids.event_id("t", "k", "i", utc) == ids.event_id("t", "k", "i", elsewhere)
    assert ids.instant_text(utc) == "2018-11-04T03:00:00.123Z"


def test_an_instant_without_a_zone_is_refused() -> None:
    """It would be another one on another machine."""
    with pytest.raises(ValueError, match="has no time zone"):
        ids.instant_text(datetime(2018, 11, 4))  # noqa: DTZ001
