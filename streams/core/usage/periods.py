"""Periods: time cut by local dates, each from the first instant of its first date to that of the next one's."""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache

from streams.core.midnight import first_instant, local_date
from streams.core.usage.objects import PeriodRule

# A fleet has a few hundred rules (zones and bill days), each with a few periods that are asked for.
_CACHED_PERIODS = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """[start, end) as instants, [starts_on, ends_on) as local dates."""

    start: datetime
    end: datetime
    starts_on: date
    ends_on: date


def period_at(rule: PeriodRule, at: datetime) -> Period | None:
    """The period that ``at`` is in; None before the first and after the last."""
    number = _number(rule, local_date(rule.zone, at))
    # The first instant of a local date can be an hour inside the calendar's idea of it, where clocks go back over it.
    for candidate in (number, number - 1, number + 1):
        period = nth_period(rule, candidate)
        if period is not None and period.start <= at < period.end:
            return period
    return None


@lru_cache(maxsize=_CACHED_PERIODS)
def nth_period(rule: PeriodRule, number: int) -> Period | None:
    """The ``number``-th period of ``rule``, from 0; None where it has no such period."""
    if number < 0 or (rule.months is None and number > 0):
        return None
    starts_on, ends_on = _start(rule, number), rule.ends_on
    if rule.months is not None:
        next_on = _start(rule, number + 1)
        ends_on = next_on if ends_on is None else min(next_on, ends_on)
    assert ends_on is not None  # the rule saw to it
    if starts_on >= ends_on:
        return None
    return Period(
        start=first_instant(rule.zone, starts_on),
        end=first_instant(rule.zone, ends_on),
        starts_on=starts_on,
        ends_on=ends_on,
    )


def _number(rule: PeriodRule, day: date) -> int:
    if rule.months is None:
        return 0
    months = (day.year - rule.starts_on.year) * 12 + day.month - rule.starts_on.month
    number = months // rule.months
    return number - 1 if day < _start(rule, number) else number


def _start(rule: PeriodRule, number: int) -> date:
    if number == 0 or rule.months is None:
        return rule.starts_on
    year, month = divmod(rule.starts_on.year * 12 + rule.starts_on.month - 1 + number * rule.months, 12)
    return date(year, month + 1, min(rule.starts_on.day, monthrange(year, month + 1)[1]))
