"""Midnights: pinned cases, brute force over every zone, and what must hold for any date."""

from __future__ import annotations

import json
import zoneinfo
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.midnight import (
    UnknownZoneError,
    first_instant,
    local_date,
    start_instant,
    zone,
    zone_names,
)

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "data" / "midnights.json").read_text())["cases"]
FIRST, LAST = date(2015, 1, 1), date(2035, 12, 31)

# No zone of 2015–2035 changes its clocks twice within this time, so a scan with this stride sees every change.
STRIDE = timedelta(days=2)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['zone']}-{case['date']}")
def test_pinned_midnight(case: dict[str, Any]) -> None:
    """Missing and repeated midnights, 2010 and later, as pinned from another implementation."""
    found = first_instant(case["zone"], date.fromisoformat(case["date"]))

    assert found == datetime.fromisoformat(case["first_instant"])
    assert found.astimezone(zone(case["zone"])).isoformat() == case["local"]


def test_brute_force_over_all_zones() -> None:
    """Every date of 2015–2035 in every zone has the first instant that a walk over UTC finds.

    The walk knows only the offset at an instant: it finds every change of offset by bisection, and between two changes
    a local midnight is one subtraction. Names that mean the same data are walked once.
    """
    by_data: dict[bytes, list[str]] = {}
    for name in zone_names():
        data = (resources.files("tzdata") / "zoneinfo").joinpath(*name.split("/")).read_bytes()
        by_data.setdefault(data, []).append(name)

    checked = 0
    for names in by_data.values():
        changes = _offset_changes(zone(names[0]))
        for day, expected in _interesting_midnights(changes):
            for name in names:
                assert first_instant(name, day) == expected, (name, day)
            checked += 1

    assert checked > 300 * 2 * len(by_data)


def _offset_changes(local: ZoneInfo) -> list[tuple[datetime, timedelta]]:
    """(instant, offset from then on), the first one before everything."""
    at = datetime(FIRST.year, 1, 1, tzinfo=UTC) - 2 * STRIDE
    end = datetime(LAST.year + 1, 1, 1, tzinfo=UTC) + 2 * STRIDE
    offset = _offset(local, at)
    changes = [(at, offset)]
    while at < end:
        following = at + STRIDE
        if _offset(local, following) != offset:
            low, high = at, following
            while high - low > timedelta(seconds=1):
                middle = low + (high - low) // 2
                middle = middle.replace(microsecond=0)
                low, high = (middle, high) if _offset(local, middle) == offset else (low, middle)
            offset = _offset(local, high)
            changes.append((high, offset))
            at = high
        else:
            at = following
    return changes


def _offset(local: ZoneInfo, at: datetime) -> timedelta:
    found = at.astimezone(local).utcoffset()
    assert found is not None
    return found


def _interesting_midnights(changes: list[tuple[datetime, timedelta]]) -> list[tuple[date, datetime]]:
    """All days within two days of a change, and every ninth day besides (between changes all days are alike)."""
    days = {FIRST + timedelta(days=number) for number in range(0, (LAST - FIRST).days, 9)}
    for at, _ in changes[1:]:
        days |= {at.date() + timedelta(days=number) for number in (-2, -1, 0, 1, 2)}
    ends = [at for at, _ in changes[1:]] + [datetime.max.replace(tzinfo=UTC)]
    found = []
    for day in sorted(days):
        if not FIRST <= day <= LAST:
            continue
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        for (begin, offset), end in zip(changes, ends, strict=True):
            candidate = max(midnight - offset, begin)  # a jump over midnight begins the day at the jump itself
            if candidate < end and (candidate + offset).date() >= day:
                found.append((day, candidate))
                break
    return found


@given(st.sampled_from(sorted(zone_names())), st.dates(date(1990, 1, 1), date(2100, 1, 1)))
def test_nothing_of_the_date_comes_before_it(name: str, day: date) -> None:
    """The instant shows that date (or a later one, where the date does not exist), the second before it does not."""
    found = first_instant(name, day)

    assert local_date(name, found) >= day
    assert local_date(name, found - timedelta(seconds=1)) < day


def test_a_date_that_does_not_exist_begins_with_the_next_one() -> None:
    """Apia skipped 2011-12-30: a deadline on that day must still be an instant."""
    assert first_instant("Pacific/Apia", date(2011, 12, 30)) == first_instant("Pacific/Apia", date(2011, 12, 31))


def test_lead_hours_are_elapsed_hours() -> None:
    """In the night when clocks go forward, six hours before 06:00 on the clock would be seven hours; ours are six."""
    deadline = first_instant("America/Sao_Paulo", date(2018, 11, 4))

    start = start_instant(deadline, 6)

    assert start == datetime(2018, 11, 3, 21, tzinfo=UTC)
    assert start.astimezone(zone("America/Sao_Paulo")).isoformat() == "2018-11-03T18:00:00-03:00"


def test_an_unknown_zone_is_named_with_the_remedy() -> None:
    """A typing error in an account's zone must be found by who made it."""
    with pytest.raises(UnknownZoneError, match=r"'Europe/Berln' is not a zone of tzdata .*use an IANA name"):
        first_instant("Europe/Berln", date(2018, 11, 4))


def test_zones_do_not_come_from_the_machine(tmp_path: Path) -> None:
    """A machine with other zone files derives the same instants."""
    wrong = (resources.files("tzdata.zoneinfo") / "Europe" / "Berlin").read_bytes()
    (tmp_path / "America").mkdir()
    (tmp_path / "America" / "Havana").write_bytes(wrong)
    zone.cache_clear()
    first_instant.cache_clear()
    zoneinfo.reset_tzpath([str(tmp_path)])
    try:
        assert ZoneInfo.no_cache("America/Havana").utcoffset(datetime(2018, 11, 4, tzinfo=UTC)) == timedelta(hours=1)
        assert first_instant("America/Havana", date(2018, 11, 4)) == datetime(2018, 11, 4, 4, tzinfo=UTC)
    finally:
        zoneinfo.reset_tzpath()
