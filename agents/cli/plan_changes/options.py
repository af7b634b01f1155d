"""Options that several commands have, and how they write instants and durations."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

import typer

from agents.cli import choices

# Long enough for a cold start of a worker that has its partitions already; a person gets impatient after that.
WAIT_S = 30.0
# Of the nights that there are, and of the zones of one, that are told to a person who has asked for another.
_NIGHTS = 3
_ZONES = 4

Account = Annotated[str, typer.Option(help="The account of the service.")]
Channel = Annotated[str, typer.Option(help="Where the request comes from; an element allows some channels only.")]
RequestId = Annotated[
    str | None,
    typer.Option(help="Same id and content, same answer. Default: a new id.", show_default=False),
]
ExpectedRevision = Annotated[int | None, typer.Option(help="Only if the change has this revision.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the reply; exit code 1 if the request is refused.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for the reply.")]


def known_zone(name: str | None, option: str = "--zone") -> str | None:
    """``name``, if it is an IANA zone or None; otherwise wrong usage, with the nearest names."""
    from streams.core.midnight import zone_names

    return None if name is None else choices.one_of(name, zone_names(), what="IANA zone", option=option)


def without(day: date | None, zone: str | None, there: Iterable[tuple[date, str]]) -> str:
    """What to say when there is no plan change for ``day`` in ``zone``; ``there`` are those that have some."""
    asked = " ".join(filter(None, ("" if day is None else f"for {day}", "" if zone is None else f"in {zone}")))
    nights: dict[date, set[str]] = {}
    for night, its_zone in there:
        nights.setdefault(night, set()).add(its_zone)
    if not nights:
        return f"no plan change {asked}, nor any other"
    # the dates nearest to the one asked for: a misspelt one is most often near
    dates = sorted(nights, key=lambda night: abs((night - (day or max(nights))).days))[:_NIGHTS]
    shown = [f"{night} ({_some(sorted(nights[night]))})" for night in sorted(dates)]
    return f"no plan change {asked}; there are some for {', '.join(shown)}"


def _some(names: list[str]) -> str:
    more = len(names) - _ZONES
    return ", ".join(names[:_ZONES]) + (f" and {more} more" if more > 0 else "")


def utc(at: datetime) -> str:
    """``2018-11-04T03:00:00Z``, with a fraction only where there is one."""
    return at.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def utc_or_none(at: datetime | None) -> str | None:
    """As :func:`utc`; None stays None."""
    return None if at is None else utc(at)


def span(found: timedelta) -> str:
    """``3:45`` for three hours and three quarters, with a minus for what is past or too late."""
    minutes = int(abs(found.total_seconds()) // 60)
    return f"{'-' if found < timedelta(0) else ''}{minutes // 60}:{minutes % 60:02}"


def now() -> datetime:
    """The machine's time with the milliseconds that survive an Avro timestamp."""
    found = datetime.now(UTC)
    return found.replace(microsecond=found.microsecond // 1000 * 1000)
