"""Options that several commands have, and how they write instants and durations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

# Long enough for a cold start of a worker that has its partitions already; a person gets impatient after that.
WAIT_S = 30.0

Account = Annotated[str, typer.Option(help="The account of the service.")]
Channel = Annotated[str, typer.Option(help="Where the request comes from; an element allows some channels only.")]
RequestId = Annotated[
    str | None,
    typer.Option(help="Same id and content, same answer. Default: a new id.", show_default=False),
]
ExpectedRevision = Annotated[int | None, typer.Option(help="Only if the change has this revision.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the reply; exit code 1 if the request is refused.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for the reply.")]


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
