"""How `board` looks: a Rich table with words, or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from agents.cli.output import TableOrJson, show
from agents.cli.plan_changes.options import span, utc, utc_or_none

if TYPE_CHECKING:
    from rich.console import Group, JustifyMethod

    from streams.core.plan_change.board import Line

_STAGES = ("pending", "started", "executed", "persisted", "completed", "effective", "failed", "held")
_COLUMNS = ("date", "zone", "deadline", "in", *_STAGES, "missed", "per_minute", "eta", "margin", "word")
# Below this width, columns in which nothing is are left out: a zone or a word cut short tells nobody anything.
_WIDE = 175
_ALWAYS = ("date", "zone", "word")
_STYLES = {"OK": "green", "AT RISK": "bold yellow", "LATE": "bold red"}
# A clock that has been silent for longer is worth saying; it ticks once per second.
_SILENT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The board at one moment; ``ticked``: ``now`` is business time, otherwise the machine's for want of a clock.

    ``nothing`` says why there are no lines, where a date or zone was asked for.
    """

    now: datetime
    ticked: bool
    clock_silent_s: float
    lines: Sequence[Line]
    nothing: str = ""

    @property
    def next_deadline(self) -> datetime | None:
        """The nearest one that is still to come."""
        return min((line.deadline_at for line in self.lines if line.deadline_at > self.now), default=None)


def print_once(picture: Picture, style: TableOrJson) -> None:
    """The board on stdout."""
    if style is TableOrJson.JSON:
        typer.echo(as_json(picture, indent=2))
        return
    typer.echo(_headline(picture))
    if picture.nothing:
        typer.echo(picture.nothing)
        return
    show([_row(line, picture.now) for line in picture.lines], style, columns=_COLUMNS)
    for text in _remarks(picture):
        typer.echo(text)


def renderable(picture: Picture, width: int) -> Group:
    """The board for a terminal of ``width`` columns."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    rows = [_row(line, picture.now) for line in picture.lines]
    columns = [one for one in _COLUMNS if width >= _WIDE or one in _ALWAYS or any(row[one] for row in rows)]
    for column in columns:
        justify: JustifyMethod = "left" if column in _ALWAYS else "right"
        table.add_column(column.replace("_", " "), justify=justify, no_wrap=column in _ALWAYS)
    for line, row in zip(picture.lines, rows, strict=True):
        cells = [Text("·" if row[name] in (0, None) else str(row[name])) for name in columns]
        cells[-1].stylize(_STYLES[line.word.value])
        past = line.deadline_at <= picture.now and not line.is_alarming
        table.add_row(*cells, style="dim" if past else "")
    remarks = [Text(text) for text in _remarks(picture)]
    return Group(Text(_headline(picture), style="bold"), Text(picture.nothing), table, Text(""), *remarks)


def as_json(picture: Picture, *, indent: int | None) -> str:
    """The board for programs: one object."""
    following = picture.next_deadline
    return json.dumps(
        {
            "now": utc(picture.now),
            "clock_has_ticked": picture.ticked,
            "clock_silent_seconds": round(picture.clock_silent_s, 3),
            "next_deadline": utc_or_none(following),
            "lines": [_line_json(line) for line in picture.lines],
        },
        indent=indent,
        ensure_ascii=False,
    )


def _headline(picture: Picture) -> str:
    following = picture.next_deadline
    parts = [f"{utc(picture.now.replace(microsecond=0))}{'' if picture.ticked else ' (machine time: no tick yet)'}"]
    if picture.ticked and picture.clock_silent_s > _SILENT_S:
        parts.append(f"no tick for {picture.clock_silent_s:,.0f} s")
    parts.append(
        "no deadline ahead"
        if following is None
        else f"next deadline {utc(following)}, in {span(following - picture.now)}"
    )
    return "  ".join(parts)


def _remarks(picture: Picture) -> list[str]:
    """Why a line is not OK, and what a person can do."""
    found = [
        f"{line.word.value}: {line.effective_date} {line.zone}: {line.detail}" for line in picture.lines if line.detail
    ]
    if any(line.rolled for line in picture.lines):
        found.append(f"{sum(line.rolled for line in picture.lines):,} rolled from a date that they missed")
    failed, held = (sum(line.count(name) for line in picture.lines) for name in _STAGES[-2:])
    if failed:
        found.append("failed: curfew plan-changes list --state failed, then retry or resolve each")
    if held:
        found.append("held: curfew plan-changes list --state held, then resolve each")
    return found


def _row(line: Line, now: datetime) -> dict[str, Any]:
    return {
        "date": line.effective_date.isoformat(),
        "zone": line.zone,
        "deadline": f"{line.deadline_at:%d %H:%M}Z",
        "in": span(line.deadline_at - now),
        **{name: line.count(name) for name in _STAGES},
        "missed": line.missed,
        "per_minute": f"{line.per_minute:,.0f}" if line.per_minute else None,
        "eta": None if line.eta is None else f"{line.eta:%d %H:%M}Z",
        "margin": None if line.margin is None else span(line.margin),
        "word": line.word.value,
    }


def _line_json(line: Line) -> dict[str, Any]:
    return {
        "effective_date": line.effective_date.isoformat(),
        "zone": line.zone,
        "deadline_at": utc(line.deadline_at),
        **{name: line.count(name) for name in _STAGES},
        "missed": line.missed,
        "rolled": line.rolled,
        "per_minute": line.per_minute,
        "eta": utc_or_none(line.eta),
        "margin_seconds": None if line.margin is None else round(line.margin.total_seconds(), 3),
        "word": line.word.value,
        "reason": line.reason or None,
        "detail": line.detail or None,
    }
