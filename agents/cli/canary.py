"""`curfew canary`: a real plan change every hour, from its order to its midnight, measured."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show
from streams.settings import Settings
from streams.telemetry import configure_logging

_COLUMNS = ("service_id", "state", "midnight", "ordered_at", "accepted_s", "persisted_s", "effective_s", "margin_s")

app = typer.Typer(no_args_is_help=True, help="A real plan change every hour, measured end to end.")


@app.command()
def setup() -> None:
    """Make the 24 canaries: accounts, services, two plans, the way there and back. Again, it changes nothing.

    It writes into the billing store and the billing topics, under names that begin with canary-.

    Example: curfew canary setup
    """
    from agents.canary.process import setup as make

    settings = Settings()
    configure_logging(settings, app="canary")
    made = make(settings)
    note(f"24 canaries; {made} of them have just got their first plan" if made else "24 canaries, all there already")


@app.command()
def run(
    once: Annotated[
        bool, typer.Option("--once", help="Look once, print, and leave: for cron, every ten minutes.")
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 5.0,
    health_port: Annotated[int | None, typer.Option(help="Serve GET /health on this loopback port.")] = None,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Order a change of the next canary every hour, follow it, and tell people when it is late.

    With --once the exit code is 3 when a canary is late. Run `curfew canary setup` once before.

    Example: curfew canary run --health-port 8098
    """
    from agents.canary.process import Canary

    settings = Settings()
    configure_logging(settings, app="canary")
    canary = Canary(settings)
    if not once:
        return asyncio.run(canary.run(every_s=every, health_port=health_port))
    report = asyncio.run(canary.once())
    if style is TableOrJson.JSON:
        typer.echo(json.dumps(report, indent=2))
    else:
        show(report["probes"], style, columns=_COLUMNS)
    if canary.failing:
        note(f"canary: {report['state']}")
        raise typer.Exit(Exit.LIMIT)
    return None
