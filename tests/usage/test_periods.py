"""Periods: no gap, no overlap, by the calendar of their zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.usage.objects import PeriodRule
from streams.core.usage.periods import nth_period, period_at

rules = st.builds(
    PeriodRule,
    zone=st.sampled_from(("UTC", "America/Sao_Paulo", "America/Havana", "Pacific/Apia", "Australia/Lord_Howe")),
    starts_on=st.dates(date(2010, 1, 1), date(2012, 12, 31)),
    ends_on=st.none() | st.dates(date(2013, 1, 1), date(2019, 12, 31)),
    months=st.sampled_from((1, 2, 3, 12)),
)


@settings(max_examples=100, deadline=None)
@given(rules)
def test_periods_follow_each_other_without_gap_or_overlap(rule: PeriodRule) -> None:
    """The end of one is the start of the next, and the last one ends with the rule."""
    numbers = range(120)
    periods = [period for number in numbers if (period := nth_period(rule, number)) is not None]

    assert periods[0].starts_on == rule.starts_on
    for one, other in pairwise(periods):
        assert (one.end, one.ends_on) == (other.start, other.starts_on)
    if rule.ends_on is not None:
        assert periods[-1].ends_on == rule.ends_on
        assert nth_period(rule, len(periods)) is None


@settings(max_examples=200, deadline=None)
@given(rules, st.integers(-400, 4000).map(lambda days: datetime(2010, 1, 1, 2, 30, tzinfo=UTC) + timedelta(days=days)))
def test_an_instant_is_in_the_one_period_around_it(rule: PeriodRule, at: datetime) -> None:
    """Against a walk through all periods."""
    walked = (nth_period(rule, number) for number in range(140))
    expected = next((period for period in walked if period is not None and period.start <= at < period.end), None)

    assert period_at(rule, at) == expected


def test_a_month_without_the_day_takes_its_last() -> None:
    """A contract from the 31st; and the day does not stay lost."""
    rule = PeriodRule(zone="UTC", starts_on=date(2026, 1, 31), months=1)

    starts = [period.starts_on for number in range(4) if (period := nth_period(rule, number)) is not None]

    assert starts == [date(2026, 1, 31), date(2026, 2, 28), date(2026, 3, 31), date(2026, 4, 30)]


def test_a_period_begins_with_the_first_instant_of_the_local_date() -> None:
    """São Paulo, 2018-11-04: there was no midnight."""
    period = period_at(
        PeriodRule(zone="America/Sao_Paulo", starts_on=date(2018, 11, 4), ends_on=date(2018, 11, 6)),
        datetime(2018, 11, 5, tzinfo=UTC),
    )

    assert period is not None
    assert period.start == datetime(2018, 11, 4, 3, tzinfo=UTC)
    assert period.end - period.start == timedelta(hours=47)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"zone": "Mars/Base"}, "not a zone"),
        ({}, "needs months"),
        ({"months": 0}, "months is 0"),
        ({"ends_on": date(2026, 1, 1)}, "not after starts_on"),
        ({"starts_on": date(1, 1, 1), "months": 1}, "years are 1970 to 2200"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_with_the_reason(fields: dict[str, object], problem: str) -> None:
    """Before it reaches a row."""
    with pytest.raises(ValueError, match=problem):
        PeriodRule(**{"zone": "UTC", "starts_on": date(2026, 1, 1), **fields})  # type: ignore[arg-type]
