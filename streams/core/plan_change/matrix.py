"""The change matrix: which rate plan may become which, from when, through which channel.

Elements are data (topic ``catalog.matrix-element``). An open change keeps the element as it was when it was ordered.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import assert_never

from streams.core.money import Fee


class DateRule(StrEnum):
    """How the effective date (a local date of the account) follows from the day of the order."""

    TOMORROW = "tomorrow"
    END_OF_MONTH = "end_of_month"  # the first of the next month
    NEXT_BILL_DAY = "next_bill_day"  # 31 means the last day of a month
    DATE_GIVEN = "date_given"


class LatePolicy(StrEnum):
    """What becomes of an order that arrives after its deadline."""

    REFUSE = "refuse"
    ROLL = "roll"
    RETROACTIVE = "retroactive"  # true from its date on all the same; what was rated since is to be rated again


class MissedPolicy(StrEnum):
    """What becomes of a change that was not persisted at its deadline."""

    FINISH_LATE = "finish_late"
    ROLL = "roll"
    HOLD = "hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixElement:
    """One allowed change. ``lead_hours`` are elapsed hours between the start instant and the deadline."""

    key: str
    from_product_id: str
    from_rate_plan_id: str
    to_product_id: str
    to_rate_plan_id: str
    date_rule: DateRule
    lead_hours: int = 6
    channels: tuple[str, ...]
    fees: tuple[Fee, ...]
    late_policy: LatePolicy
    missed_policy: MissedPolicy
    allow_without_cancel: bool = True
    options_added: tuple[str, ...]
    options_removed: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.lead_hours < 1:
            raise ValueError(
                f"matrix element {self.key}: lead_hours is {self.lead_hours}; give at least 1 hour to execute"
            )


def _in_month(year: int, month: int, day: int) -> date:
    """``day`` of the month, or its last day where the month is shorter."""
    return date(year, month, min(day, calendar.monthrange(year, month)[1]))


def _next_month(day: date) -> tuple[int, int]:
    return (day.year + 1, 1) if day.month == 12 else (day.year, day.month + 1)


def effective_date(rule: DateRule, today: date, billing_day: int | None, given: date | None) -> date | None:
    """The effective date of an order made on ``today`` (local), always after today except for a given date.

    None when the rule needs what is not there: a billing day, or a date in the request.
    """
    match rule:
        case DateRule.TOMORROW:
            return today + timedelta(days=1)
        case DateRule.END_OF_MONTH:
            return date(*_next_month(today), 1)
        case DateRule.NEXT_BILL_DAY:
            if billing_day is None:
                return None
            this_month = _in_month(today.year, today.month, billing_day)
            return this_month if this_month > today else _in_month(*_next_month(today), billing_day)
        case DateRule.DATE_GIVEN:
            return given
        case _:
            assert_never(rule)


def next_boundary(rule: DateRule, after: date, billing_day: int | None) -> date:
    """The next date on which a change that missed ``after`` may become effective; a given date rolls by one day."""
    if rule is DateRule.DATE_GIVEN:
        return after + timedelta(days=1)
    following = effective_date(rule, after, billing_day, None)
    return after + timedelta(days=1) if following is None else following


def eligible(
    elements: Iterable[MatrixElement], rate_plan_id: str, product_id: str, channel: str
) -> list[MatrixElement]:
    """The elements that a service on this plan and product may order through ``channel``, by key."""
    return sorted(
        (
            element
            for element in elements
            if element.from_rate_plan_id == rate_plan_id
            and element.from_product_id == product_id
            and channel in element.channels
        ),
        key=lambda element: element.key,
    )
