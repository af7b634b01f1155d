"""`board`: how the next midnights are doing, live or once."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note
from agents.cli.plan_changes import rows
from agents.cli.plan_changes.board_view import Picture, as_json, print_once, renderable
from agents.cli.plan_changes.options import known_zone, without
from agents.cli.plan_changes.progress import progress

if TYPE_CHECKING:
    from agents.plan_changes.change_feed import ChangeFeed

# The topic keeps ticks for a day: without one, no clock has run for so long at least.
_NEVER_S = 24 * 3600.0
# Counting half a million changes takes about half a second: a pause so many times as long leaves time to read on.
_REST = 4

app = typer.Typer()


@app.command()
def board(
    watch: Annotated[
        bool | None, typer.Option("--watch/--once", help="Follow, or look once. Default: follow on a terminal.")
    ] = None,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two pictures with --watch.")] = 1.0,
    night: Annotated[
        datetime | None, typer.Option("--date", formats=["%Y-%m-%d"], help="Only this effective date.")
    ] = None,
    zone: Annotated[str | None, typer.Option(help="Only this IANA zone.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also nights that ended more than a day ago.")] = False,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """How many changes are where, per effective date and zone, and whether they will be in time.

    Reads the scheduler's changelog, nothing else. With --once, exit code 3 if anything is at risk, late, held or
    failed. With --watch -f json, one line per picture. Exit code 2 for a zone that is no IANA zone; a date or a zone
    without changes is an empty board, which says where there are some.

    Example: curfew plan-changes board

    Example: curfew plan-changes board --once -f json --date 2018-11-04
    """
    from agents.plan_changes.change_feed import ChangeFeed
    from streams.codec import Codec, Registry
    from streams.kafka.admin import answering
    from streams.settings import Settings

    known_zone(zone)
    settings = Settings()
    day = None if night is None else night.date()
    live = watch if watch is not None else sys.stdout.isatty() and style is TableOrJson.TABLE
    codec = Codec(Registry(settings.schema_registry_url))
    feed = ChangeFeed(answering(settings.kafka()), codec, rows.CHANGES)
    try:
        _read(feed)
        if live:
            _follow(feed, lambda: picture(feed, day, zone, everything), every, style)
            return
        now = picture(feed, day, zone, everything)
    except KeyboardInterrupt:
        return
    finally:
        feed.close()
    print_once(now, style)
    if now.nothing and style is TableOrJson.JSON:
        note(now.nothing)
    if any(line.is_alarming for line in now.lines):
        raise typer.Exit(Exit.LIMIT)


def picture(feed: ChangeFeed, day: date | None, zone: str | None, everything: bool) -> Picture:
    """What there is to see now; business time is the machine's where no clock has ticked."""
    from streams.core.plan_change.board import SHOWN_FOR, lines

    machine = datetime.now(UTC)
    tick = feed.time
    silent = _NEVER_S if tick is None else max(0.0, (machine - tick.written_at).total_seconds())
    now = machine if tick is None else tick.now
    found = lines(feed.entries.values(), now, clock_silent_s=silent, shown_for=None if everything or day else SHOWN_FOR)
    asked_for = [one for one in found if day in (None, one.effective_date) and zone in (None, one.zone)]
    nothing = ""
    if not asked_for and (day is not None or zone is not None):
        nothing = without(day, zone, ((one.effective_date, one.zone) for one in feed.entries.values()))
    return Picture(now=now, ticked=tick is not None, clock_silent_s=silent, lines=asked_for, nothing=nothing)


def _read(feed: ChangeFeed) -> None:
    told = 0
    with progress(f"reading {rows.CHANGES}", 0) as advance:

        def on_read(done: int, total: int) -> None:
            nonlocal told
            advance(done - told, total=total)
            told = done

        feed.start(on_read)


def _follow(feed: ChangeFeed, look: Callable[[], Picture], every: float, style: TableOrJson) -> None:
    """Until Ctrl-C."""
    if style is TableOrJson.JSON:
        while True:
            typer.echo(as_json(look(), indent=None))
            _take_for(feed, every)
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            began = time.monotonic()
            live.update(renderable(look(), console.width), refresh=True)
            _take_for(feed, max(every, _REST * (time.monotonic() - began)))


def _take_for(feed: ChangeFeed, seconds: float) -> None:
    """Take what comes until the next picture."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        feed.poll(min(left, 0.5))
