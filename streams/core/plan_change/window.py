"""When a change starts, is released and has its deadline: all derived from zone, local date and lead hours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from uuid import UUID

from streams.core.midnight import TZ_VERSION, first_instant, start_instant
from streams.core.plan_change.machine import Change, State
from streams.core.plan_change.matrix import MatrixElement, next_boundary

# The longest date a rolled order may look ahead, in boundaries: an order a year late is a mistake, not a late order.
_MOST_ROLLS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """An effective date and its derived instants: start (point of no return) ≤ release (of the command) < deadline."""

    effective_date: date
    start_at: datetime
    release_at: datetime
    deadline_at: datetime


def window(zone: str, day: date, lead_hours: int, change_id: str) -> Window:
    """Derive the instants of a change. The spread is at most half of the lead, and by the id: always the same.

    Raises UnknownZoneError.
    """
    deadline = first_instant(zone, day)
    start = start_instant(deadline, lead_hours)
    spread_seconds = lead_hours * 3600 // 2
    release = start + timedelta(seconds=UUID(change_id).int % spread_seconds)
    return Window(effective_date=day, start_at=start, release_at=release, deadline_at=deadline)


def derived(change: Change) -> Change:
    """``change`` with its instants derived again if the tz database has been upgraded; only before the start."""
    if change.tz_version == TZ_VERSION or change.state is not State.PENDING or change.awaiting is not None:
        return change
    try:
        found = window(change.zone, change.effective_date, change.element.lead_hours, change.change_id)
    except (OverflowError, ValueError):
        return change  # a zone that is gone: what was derived with the older data is better than a partition that stops
    return replace(
        change,
        tz_version=TZ_VERSION,
        start_at=found.start_at,
        release_at=found.release_at,
        deadline_at=found.deadline_at,
    )


def roll(
    element: MatrixElement, zone: str, billing_day: int | None, day: date, change_id: str, now: datetime
) -> Window | None:
    """The window of the next boundary after ``day`` whose deadline is still to come; None if it cannot be reached."""
    for _ in range(_MOST_ROLLS):
        try:
            day = next_boundary(element.date_rule, day, billing_day)
            found = window(zone, day, element.lead_hours, change_id)
        except (OverflowError, ValueError):  # the end of the calendar, billing day 0, a zone that is gone
            return None
        if now < found.deadline_at:
            return found
    return None
