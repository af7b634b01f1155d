"""Midnight belongs to a zone: the first existing instant of a local date.

00:00 may be missing (clocks go forward over it) or come twice (they go back over it), and a whole date may be missing
(Pacific/Apia had no 2011-12-30). Zones come from the ``tzdata`` package and never from the machine, so that all workers
derive the same deadline whatever their operating systems have installed.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from importlib import resources
from io import BytesIO
from zoneinfo import ZoneInfo

import tzdata

# Stored beside every derived instant: a row derived with another version has to be derived again.
TZ_VERSION: str = tzdata.IANA_VERSION

# How far before a missing midnight the clocks may have jumped over it. The widest jump on record is the whole day that
# Apia skipped; a shorter bound would return an instant after the jump and so a deadline that is too late.
_WIDEST_JUMP = timedelta(hours=25)

# A fleet has a few hundred zones and a night a few dates; without a cache each order would search again.
_CACHED_MIDNIGHTS = 16_384


class UnknownZoneError(ValueError):
    """Not a zone of the tzdata package: correct the account's zone, or upgrade tzdata on every worker."""


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """All names that :func:`zone` accepts."""
    return frozenset((resources.files("tzdata") / "zones").read_text(encoding="utf-8").split())


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo:
    """The zone ``name``, e.g. ``America/Sao_Paulo``, from the tzdata package. Raises :class:`UnknownZoneError`."""
    if name not in zone_names():
        raise UnknownZoneError(f"{name!r} is not a zone of tzdata {TZ_VERSION}; use an IANA name such as Europe/Berlin")
    data = (resources.files("tzdata") / "zoneinfo").joinpath(*name.split("/")).read_bytes()
    return ZoneInfo.from_file(BytesIO(data), key=name)


@lru_cache(maxsize=_CACHED_MIDNIGHTS)
def first_instant(zone_name: str, day: date) -> datetime:
    """The first instant (UTC) whose local date in ``zone_name`` is ``day``; where no such instant exists, the next one.

    Raises :class:`UnknownZoneError`.
    """
    return _first(zone(zone_name), datetime.combine(day, time.min))


@lru_cache(maxsize=_CACHED_MIDNIGHTS)
def local_instant(zone_name: str, day: date, at: time) -> datetime:
    """The first instant (UTC) at which clocks in ``zone_name`` show ``day`` and ``at``; where none ever does, the first
    one after the gap.

    Raises :class:`UnknownZoneError`, and OverflowError where no calendar has the instant (years 1 and 9999).
    """
    return _first(zone(zone_name), datetime.combine(day, at))


def _first(local_zone: ZoneInfo, wanted: datetime) -> datetime:
    # fold=0 is the earlier of two.
    candidate = wanted.replace(tzinfo=local_zone).astimezone(UTC)
    if candidate.astimezone(local_zone).replace(tzinfo=None, fold=0) == wanted:
        return candidate
    return _end_of_jump(local_zone, wanted, candidate)


def _end_of_jump(local_zone: ZoneInfo, wanted: datetime, after: datetime) -> datetime:
    """The instant at which local clocks jumped over ``wanted``: by bisection over whole seconds up to ``after``."""
    low, high = int((after - _WIDEST_JUMP).timestamp()), int(after.timestamp())
    while high - low > 1:
        middle = (low + high) // 2
        local = datetime.fromtimestamp(middle, UTC).astimezone(local_zone).replace(tzinfo=None)
        low, high = (low, middle) if local >= wanted else (middle, high)
    return datetime.fromtimestamp(high, UTC)


def start_instant(deadline: datetime, lead_hours: int) -> datetime:
    """The point of no return: ``lead_hours`` of elapsed time before ``deadline``, whatever wall clocks show between."""
    return deadline - timedelta(hours=lead_hours)


def local_date(zone_name: str, at: datetime) -> date:
    """The date that a calendar in ``zone_name`` shows at the instant ``at``. Raises :class:`UnknownZoneError`."""
    return at.astimezone(zone(zone_name)).date()
