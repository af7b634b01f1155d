"""`curfew watchdog`: an independent eye on the deadlines, which tells people directly."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show
from streams.settings import Settings
from streams.telemetry import configure_logging

_COLUMNS = ("deadline_at", "state", "open", "overdue", "stuck", "missed", "persisted", "late", "clears_at", "detail")

app = typer.Typer()


@app.command()
def watchdog(
    once: Annotated[bool, typer.Option("--once", help="Look once, print, and leave: for cron.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    health_port: Annotated[int | None, typer.Option(help="Serve GET /health on this loopback port.")] = None,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Watch every deadline of rate plan changes and tell people when one is at risk or missed.

    It shares nothing with the scheduler but the topics; run it on another machine. With --once the exit code is 3 when
    a deadline is at risk or missed, 1 when it cannot read the topics.

    Example: curfew watchdog --health-port 8099
    """
    from agents.watchdog.process import Watchdog
    from streams.core.watch_rules import Level

    settings = Settings()
    configure_logging(settings, app="watchdog")
    if not once:
        return asyncio.run(Watchdog(settings).run(every_s=every, health_port=health_port))
    process = Watchdog(settings)
    seen = asyncio.run(process.once())
    show([one.row() for one in seen], style, columns=_COLUMNS)
    bad = [one for one in seen if one.alarm.level is not Level.OK]
    if bad:
        note(f"{len(bad)} of {len(seen)} deadlines at risk or missed")
        raise typer.Exit(Exit.LIMIT)
    if process.problem is not None:
        note(f"error: this is what was known before; now nothing can be read: {process.problem}")
        raise typer.Exit(Exit.FAILURE)
    return None
