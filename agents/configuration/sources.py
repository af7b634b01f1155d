"""A file of data sources, ``[[source]]`` tables in TOML, and files of their rows, CSV or JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from agents.configuration.tables import no_strangers, read_tables, refuse
from agents.field_problems import field_problem
from streams.core.errors import Misconfigured
from streams.core.sources import DataSource, SourceRow, SourceTopic, Unusable, problems, row_of, succeed

_FIELDS: Final = tuple(field.name for field in fields(DataSource) if field.name != "version")
_TOPIC_FIELDS: Final = tuple(field.name for field in fields(SourceTopic))
#: Bad rows that are named; a wrong file has the same mistake in all of them.
SHOWN_PROBLEMS: Final = 10


def read_sources(path: Path, existing: Mapping[str, DataSource]) -> dict[str, DataSource]:
    """The sources of a file by name, each as the next version of the existing one; raises Misconfigured with every
    problem of the file."""
    found: list[str] = []
    wanted: dict[str, DataSource] = {}
    for number, table in enumerate(read_tables(path, "source", "data sources"), 1):
        name = table.get("name", f"number {number}")
        try:
            source = _source(table)
        except Misconfigured as error:
            found.append(f"source {name}: {error}")
            continue
        if source.name in wanted:
            found.append(f"source {name}: the name is used twice; the last one would silently win")
        found.extend(f"source {name}: {problem}" for problem in problems(source))
        wanted[source.name] = succeed(existing.get(source.name), source)
    refuse(path, found)
    return wanted


def _source(table: dict[str, Any]) -> DataSource:
    no_strangers(table, _FIELDS, str)
    if isinstance(table.get("topic"), dict):
        no_strangers(table["topic"], _TOPIC_FIELDS, "topic.{}".format)
    try:
        return msgspec.convert(table, DataSource)
    except msgspec.ValidationError as error:
        raise Misconfigured(field_problem(error, DataSource)) from error


def read_rows_file(path: Path, source: DataSource) -> list[SourceRow]:
    """The rows of a ``.csv`` file (with a header; an empty cell is null) or of JSON lines; all of them, or
    Misconfigured with the lines that are wrong."""
    if path.suffix not in (".csv", ".jsonl"):
        raise Misconfigured(f"{path}: rows are read from .csv or .jsonl files")
    rows: list[SourceRow] = []
    wrong: list[str] = []
    try:
        for number, columns in _csv(path, source) if path.suffix == ".csv" else _json_lines(path):
            try:
                rows.append(row_of(source, columns))
            except Unusable as error:
                wrong.append(f"line {number}: {error}")
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise Misconfigured(f"{path} cannot be read: {error}") from error
    if wrong:
        more = f"\n  … and {len(wrong) - SHOWN_PROBLEMS} more" if len(wrong) > SHOWN_PROBLEMS else ""
        listed = "\n".join(f"  {problem}" for problem in wrong[:SHOWN_PROBLEMS])
        raise Misconfigured(f"{path}: nothing was loaded.\n{listed}{more}")
    return rows


def _csv(path: Path, source: DataSource) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.DictReader(text, restkey="")
        needed = {source.key_column, *source.fields} | ({source.account} if source.account else set())
        if absent := sorted(needed - set(reader.fieldnames or ())):
            raise Misconfigured(
                f"{path}: the header has no {', '.join(absent)}; it has {', '.join(reader.fieldnames or ())}"
            )
        for cells in reader:
            if "" in cells:
                raise Misconfigured(f"{path}: line {reader.line_num} has more cells than the header")
            if None in cells.values():  # of which one, nobody knows
                raise Misconfigured(
                    f"{path}: line {reader.line_num} has fewer cells than the header; null is an empty one"
                )
            yield reader.line_num, {name: cell or None for name, cell in cells.items()}


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as text:
        for number, line in enumerate(text, 1):
            if not line.strip():
                continue
            try:
                columns = json.loads(line, parse_float=Decimal)
            except ValueError as error:
                raise Misconfigured(f"{path}: line {number} is not JSON: {error}") from None
            if not isinstance(columns, dict):
                raise Misconfigured(f'{path}: line {number} is no object, as in {{"account_id": "A1", …}}')
            yield number, columns
