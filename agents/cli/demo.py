"""``curfew demo``: a whole night of a billing system on a Kafka of its own."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from agents.cli.output import Exit, TableOrJson, TableOrJsonOption
from streams.settings import Settings

app = typer.Typer()

#: ``--quick``: enough for every zone and every fate of an order.
QUICK_ACCOUNTS = QUICK_CHANGES = 300


@app.command()
def demo(
    accounts: Annotated[
        int, typer.Option(min=1, help="Accounts of the fleet; one of them has 0.6 services each.")
    ] = 5_000,
    changes: Annotated[int, typer.Option(min=1, help="Rate plan changes that become effective at midnight.")] = 5_000,
    seed: Annotated[int, typer.Option(help="The same seed makes the same fleet and the same night.")] = 2018,
    quick: Annotated[bool, typer.Option("--quick", help="300 accounts and 300 changes.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave data and logs where they are.")] = False,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where data and logs are; default demo/ in the data directory.", file_okay=False)
    ] = None,
    kafka_version: Annotated[
        str | None, typer.Option(envvar="CURFEW_KAFKA_VERSION", help="Version of Apache Kafka.", show_default=False)
    ] = None,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """See one night: a fleet in 14 time zones, thousands of rate plan changes, events, webhooks, and the report.

    Everything is real and local: Kafka and registry are started with fresh data, the workers run as processes, billing
    changes and orders come from a process of their own. Exits with 0 only if every check of the report holds. Ctrl-C
    stops everything.

    Example: curfew demo --quick
    """
    from rich.console import Console
    from rich.markup import escape

    from agents.demo.fleet import generate
    from agents.demo.night import Night, Options
    from agents.demo.place import Place
    from agents.demo.report import Check
    from agents.demo.screen import Screen, print_report, wide
    from agents.embedded import DEFAULT_KAFKA_VERSION
    from agents.problems import explain
    from streams.telemetry import configure_logging

    for number in (signal.SIGTERM, signal.SIGINT):  # a shell starts background jobs with SIGINT ignored
        signal.signal(number, _interrupt)
    configure_logging(Settings(log_level="error"), app="demo")  # what matters is on the screen and in the logs
    if quick:
        accounts, changes = QUICK_ACCOUNTS, QUICK_CHANGES
    directory = data_dir or Settings().data_dir / "demo"
    console = Console(stderr=True, highlight=False)
    fleet = generate(accounts, seed)
    screen = Screen(console=console, deadlines=fleet.deadlines)
    place = Place(directory, kafka_version or DEFAULT_KAFKA_VERSION, screen.say)
    options = Options(accounts=accounts, changes=changes, seed=seed)
    night = Night(options, place, screen, fleet)
    failure: Exception | None = None
    try:
        report = night.run()
    except KeyboardInterrupt:
        console.print("stopping everything …")
        raise
    except Exception as error:
        failure = error
    finally:
        night.close()
        running = place.close()
    if failure is not None:
        console.print(f"[red]{escape(explain(failure))}[/]\nlogs and data: {directory}", soft_wrap=True)
        raise typer.Exit(Exit.FAILURE)
    report.checks.append(
        Check(name="nothing is left running", holds=not running, found=", ".join(running) or "all processes have ended")
    )
    if style is TableOrJson.JSON:
        typer.echo(report.as_json())
    else:
        print_report(wide(Console(highlight=False)), report, night.seen, fleet.deadlines)
    if not report.holds:
        failed = ", ".join(check.name for check in report.checks if not check.holds)
        console.print(f"[red]failed:[/] {failed}\nlogs and data: {directory}", soft_wrap=True)
        raise typer.Exit(Exit.FAILURE)
    if keep:
        console.print(f"logs and data: {directory}", soft_wrap=True)
    else:
        place.delete()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End as by Ctrl-C, so that everything is stopped on the way out.

    Told to the place too: an exception that is raised in a callback from C is printed and forgotten.
    """
    from agents.demo.place import INTERRUPTED

    INTERRUPTED.set()
    raise KeyboardInterrupt
