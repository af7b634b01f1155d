"""`deadline`: when a change for a date would start and has its deadline. Needs no Kafka."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Annotated, Any

import typer

from agents.cli.output import TableOrJson, TableOrJsonOption, show
from agents.cli.plan_changes.options import known_zone, utc
from streams.core.midnight import TZ_VERSION, first_instant, start_instant, zone

app = typer.Typer()


@app.command()
def deadline(
    zone_name: Annotated[str, typer.Argument(metavar="ZONE", help="IANA zone, or - to read zone,date lines.")],
    effective_date: Annotated[str | None, typer.Argument(metavar="DATE", help="Local date, 2018-11-04.")] = None,
    lead: Annotated[int, typer.Option(min=1, help="Elapsed hours between start and deadline.")] = 6,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """When a change for DATE starts and has its deadline: the first instant of DATE in ZONE. Needs no Kafka.

    Example: curfew plan-changes deadline America/Sao_Paulo 2018-11-04 --lead 6
    """
    if zone_name == "-":
        rows = list(_deadlines_of(sys.stdin, lead))
    elif effective_date is None:
        raise typer.BadParameter("give a local date such as 2018-11-04", param_hint="DATE")
    else:
        known_zone(zone_name, "ZONE")
        try:
            rows = [_deadline(zone_name, effective_date, lead)]
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="DATE") from error
    show(rows, style, columns=("zone", "date", "start", "deadline", "start_local", "deadline_local"))


def _deadlines_of(lines: Iterable[str], lead: int) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        zone_name, _, day = line.strip().partition(",")
        try:
            yield _deadline(zone_name.strip(), day.strip(), lead)
        except ValueError as error:
            raise typer.BadParameter(f"line {number}: {error}", param_hint="-") from error


def _deadline(zone_name: str, day: str, lead: int) -> dict[str, Any]:
    """Raises ValueError for an unknown zone or no date."""
    try:
        wanted = date.fromisoformat(day)
    except ValueError:
        raise ValueError(f"{day!r} is no date; write 2018-11-04") from None
    try:
        at = first_instant(zone_name, wanted)
    except OverflowError:
        raise ValueError(f"{day} is too near to the end of the calendar") from None
    start, local = start_instant(at, lead), zone(zone_name)
    return {
        "zone": zone_name,
        "date": wanted.isoformat(),
        "lead_hours": lead,
        "start": utc(start),
        "deadline": utc(at),
        "start_local": start.astimezone(local).isoformat(),
        "deadline_local": at.astimezone(local).isoformat(),
        "tz_version": TZ_VERSION,
    }
