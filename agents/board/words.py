"""How the page writes numbers, instants and durations; the same data is in the JSON as it is."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

#: What every panel puts beside its name: a word, never a colour alone.
OK, AT_RISK, LATE = "OK", "AT RISK", "LATE"
ATTENTION, UNKNOWN = "LOOK HERE", "NOT KNOWN"
_RANK = (OK, UNKNOWN, ATTENTION, AT_RISK, LATE)


def worst(*words: str) -> str:
    """The one to be told first."""
    return max(words, key=_RANK.index, default=OK)


def number(value: float | None) -> str:
    """``1,234``; a dot for nothing, so that what is there stands out."""
    return "·" if value in (None, 0) else f"{value:,.0f}"


def instant(text: str | None) -> str:
    """``4 Nov 03:00 UTC``."""
    return "–" if text is None else f"{_at(text):%-d %b %H:%M} UTC"


def seconds_of(text: str | None) -> str:
    """``4 Nov 03:00:17 UTC``."""
    return "–" if text is None else f"{_at(text):%-d %b %H:%M:%S} UTC"


def local(at: datetime, zone: str) -> str:
    """``Sun 4 Nov 00:00`` where the account is; that is not 00:00 where midnight is missing."""
    return f"{at.astimezone(ZoneInfo(zone)):%a %-d %b %H:%M}"


def duration(seconds: float | None) -> str:
    """``45 s``, ``12 min``, ``3:45 h``, ``2 d 4 h``; with a minus for what is past."""
    if seconds is None:
        return "–"
    sign, left = ("−" if seconds < 0 else ""), abs(seconds)
    if left < 90:
        return f"{sign}{left:.0f} s"
    minutes = int(left // 60)
    if minutes < 60:
        return f"{sign}{minutes} min"
    hours = minutes // 60
    return f"{sign}{hours}:{minutes % 60:02} h" if hours < 48 else f"{sign}{hours // 24} d {hours % 24} h"


def utc(at: datetime | None) -> str | None:
    """For JSON: ``2018-11-04T03:00:00Z``."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def in_seconds(span: timedelta | None) -> float | None:
    return None if span is None else round(span.total_seconds(), 1)


def css(word: str) -> str:
    """The class of a word: colour and weight are added to it, never put in its place."""
    return {
        OK: "ok", AT_RISK: "risk", LATE: "late", ATTENTION: "risk", UNKNOWN: "dim",
        "WARN": "risk", "STOP": "late", "STALL": "late", "REWIND": "late", "NOTFOUND": "dim",
    }.get(word, "dim")  # fmt: skip


def pretty(value: Any) -> str:
    """JSON that a person can read."""
    return json.dumps(value, indent=2, ensure_ascii=False)


FILTERS: dict[str, Any] = {
    "number": number, "instant": instant, "seconds": seconds_of, "duration": duration, "css": css, "pretty": pretty
}  # fmt: skip


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
