"""What a person sees of the demo: a live table on a terminal, otherwise a plain line every few seconds."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agents.demo.report import Report
from agents.demo.watch import STAGES, Seen
from streams.core.midnight import zone

PLAIN_EVERY_S = 3.0
PIPE_WIDTH = 180
DRAW_EVERY_S = 0.5
#: Webhooks are printed one in so many seconds: thousands come, and each says the same.
WEBHOOK_EVERY_S = 4.0


@dataclass(slots=True)
class Screen:
    """``phase`` around each step, ``draw`` as often as you like, ``report`` at the end."""

    console: Console
    deadlines: Mapping[str, datetime]
    phases: dict[str, float] = field(default_factory=dict)
    _live: Live | None = None
    _drawn: float = 0.0
    _webhooks: TextIO | None = None
    _webhook_at: float = 0.0

    @contextmanager
    def phase(self, name: str, about: str) -> Iterator[None]:
        """Tell what is being done, and how long it took."""
        began = time.monotonic()
        self.say(f"{name}: {about} …")
        yield
        self.phases[name] = time.monotonic() - began
        self.say(f"{name}: {self.phases[name]:.1f} s")

    def say(self, line: str) -> None:
        self.console.print(Text(line), soft_wrap=True)

    def waits(self, what: str, for_what: str) -> None:
        """Tell now and then what something waits for."""
        if time.monotonic() - self._drawn >= PLAIN_EVERY_S:
            self._drawn = time.monotonic()
            self.say(f"{what}: still at work: {for_what}")

    @contextmanager
    def night(self) -> Iterator[None]:
        """Between these two the table is on the screen."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, refresh_per_second=4, transient=True) as self._live:
            yield
        self._live = None

    def draw(self, seen: Seen, now: datetime | None, ticks: int, waits_for: str) -> None:
        """Show where the night is; does nothing when it was shown a moment ago."""
        every = PLAIN_EVERY_S if self._live is None else DRAW_EVERY_S
        if now is None or time.monotonic() - self._drawn < every:
            return
        self._drawn = time.monotonic()
        clock = f"{now:%Y-%m-%d %H:%M}Z  tick {ticks}"
        if self._live is not None:
            title = Text(f"{clock}  at work: {waits_for}", style="bold")
            self._live.update(Group(title, zone_table(seen, self.deadlines, now)))
            return
        rows = [seen.row(name) for name in self.deadlines]
        totals = "  ".join(f"{stage} {sum(row[stage] for row in rows)}" for stage in STAGES)
        self.say(
            f"{clock}  {totals}  least slack {span(min(seen.slack.values(), default=None))}  waits for {waits_for}"
        )

    def webhook(self, log: Path) -> None:
        """Print one of the webhooks that have come since the last time."""
        if time.monotonic() - self._webhook_at < WEBHOOK_EVERY_S:
            return
        if self._webhooks is None:
            if not log.exists():
                return
            self._webhooks = log.open()
        lines = self._webhooks.read().splitlines()
        # the receiver may be just writing: a line can come in two parts, neither of which is shown
        if lines and lines[-1].startswith("{") and lines[-1].endswith("}"):
            self._webhook_at = time.monotonic()
            one = json.loads(lines[-1])
            signature = "signature verified" if one["verified"] else "SIGNATURE WRONG"
            self.say(f"webhook  {one['type']}  {one['key']}  {one['webhook_id']}  {one['status']}  {signature}")


def zone_table(seen: Seen, deadlines: Mapping[str, datetime], now: datetime | None = None) -> Table:
    """One row per zone: its midnight, and how many changes are where."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("zone")
    for column in ("local time" if now else "midnight (UTC)", *STAGES, "least slack"):
        table.add_column(column, justify="right")
    for name, deadline in deadlines.items():
        row = seen.row(name)
        when = f"{now.astimezone(zone(name)):%d %H:%M}" if now else f"{deadline:%d %H:%M}"
        style = "dim" if now is not None and now > deadline and row["effective"] else ""
        counts = (str(row[stage]) for stage in STAGES)
        table.add_row(name, when, *counts, span(seen.slack.get(name)), style=style)
    return table


def span(found: timedelta | None) -> str:
    """``3:45`` for three hours and three quarters, ``-`` for nothing."""
    if found is None:
        return "-"
    minutes = round(found.total_seconds() / 60)
    return f"{'-' if minutes < 0 else ''}{abs(minutes) // 60}:{abs(minutes) % 60:02}"


def wide(console: Console) -> Console:
    """A file or a pipe takes lines as long as they need to be."""
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def print_report(console: Console, report: Report, seen: Seen, deadlines: Mapping[str, datetime]) -> None:
    """The whole report for a person."""
    console.rule("The night of 2018-11-04")
    console.print(zone_table(seen, deadlines))
    console.print()
    console.print(_pairs("final state", report.changes))
    console.print(_pairs("refused because", report.rejections))
    console.print(_pairs("events raised", report.events))
    console.print(_rows(report.deliveries))
    got = report.webhooks
    console.print(f"webhooks: {got.requests} requests, {got.delivered} distinct, {got.unverified} with a bad signature")
    slack = None if report.slack_min is None else timedelta(seconds=report.slack_min)
    console.print(f"missed: {report.missed}; least slack: {span(slack)} h")
    console.print(f"Kafka: {report.records:,} records in the night, {report.records_per_s:,}/s; {report.ticks} ticks")
    console.print("  ".join(f"{name} {seconds:.1f} s" for name, seconds in report.phases.items()))
    console.print()
    for check in report.checks:
        mark = Text("ok    ", style="green") if check.holds else Text("FAIL  ", style="red bold")
        console.print(mark + Text(f"{check.name}: {check.found}", style=""))


def _pairs(title: str, counts: Mapping[str, int]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(title)
    table.add_column("", justify="right")
    for name, count in counts.items():
        table.add_row(name, f"{count:,}")
    table.add_row("", "")
    return table


def _rows(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in rows[0] if rows else ():
        table.add_column(column, justify="left" if column in ("subscription", "queue") else "right")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()))
    return table
