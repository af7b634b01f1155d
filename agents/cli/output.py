"""How commands print: results on stdout in the format that was asked for, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum, StrEnum
from typing import Annotated, Any

import typer

WIDTH_OF_A_PIPE = 1000  # characters; rich would take 80, and fold names


class Exit(IntEnum):
    """What a script learns from a command. LIMIT: it worked, and what it found is over a limit or has drifted."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    LIMIT = 3


class Format(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    JSON = "json"
    RAW = "raw"


class TableOrJson(StrEnum):
    """How a result is printed, where raw bytes make no sense."""

    TABLE = "table"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", "-f", help="How to print: table, json or raw.")]
TableOrJsonOption = Annotated[TableOrJson, typer.Option("--format", "-f", help="How to print: table or json.")]


def show(rows: Iterable[Mapping[str, Any]], style: Format | TableOrJson, *, columns: Sequence[str]) -> None:
    """Print rows: a table with ``columns`` as headings, one JSON array with all keys, or tab-separated lines."""
    rows = list(rows)
    if style == "json":
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False, default=str))
    elif style == "raw":
        for row in rows:
            typer.echo("\t".join(cell(row.get(column)) for column in columns))
    else:
        _table(rows, columns)


def cell(value: Any) -> str:
    """One value as a person reads it: nothing for null, names joined with commas."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return str(value)


def note(message: str) -> None:
    """Tell the person something that is not the result."""
    typer.echo(message, err=True)


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        numbers = all(isinstance(row.get(column), int | None) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        # Text: a name with square brackets is a name, not markup
        table.add_row(*(Text(cell(row.get(column))) for column in columns))
    # into a pipe or a file a table is as wide as it needs to be: grep should find whole names
    Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_PIPE).print(table)
