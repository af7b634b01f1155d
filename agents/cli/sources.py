"""`curfew sources`: tables of others that extend the parameters of events, changed while the workers run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import msgspec
import typer
from confluent_kafka import KafkaException

from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show
from agents.configuration.changes import ByOption, as_row, history, live_sources, save
from agents.configuration.dependents import dependents
from agents.configuration.records import read_records, read_rows, write_keyed
from agents.configuration.sources import read_rows_file, read_sources
from agents.events.feeds import CHANGELOG
from agents.sources.finder import kept
from agents.sources.rows import ROWS
from streams.codec import Codec, Registry
from streams.core.errors import Misconfigured, Transient
from streams.core.rows import source_key
from streams.core.sources import DataSource, SourceRow
from streams.kafka.admin import admin_client, answering, partition_counts
from streams.settings import Settings
from streams.topics import SHARED, SOURCES

app = typer.Typer(no_args_is_help=True, help="Tables of others that extend the parameters of events.")

T = TypeVar("T")


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(help="TOML with [\\[source]] tables, as docs/examples/sources.toml.")],
    by: ByOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and compare, change nothing.")] = False,
) -> None:
    """Check a file of data sources and save them; their parameters exist at once. Exits with 2 if one is wrong.

    Example: curfew sources apply docs/examples/sources.toml
    """
    _or_usage(lambda: read_sources(file, {}))  # what is wrong in itself is said without a broker
    settings, codec = _place()
    existing = live_sources(settings, codec)
    wanted = _or_usage(lambda: read_sources(file, existing))
    topics = partition_counts(admin_client(answering(settings.kafka())))
    for source in wanted.values():
        if source.topic is not None and source.topic.name not in topics:
            _refuse(f"source {source.name}: there is no topic {source.topic.name!r}; create it, or correct the name")
    changes = {name: source for name, source in wanted.items() if existing.get(name) != source}
    _check_dependents(settings, codec, existing, existing | changes)
    if not dry_run:
        save(settings, codec, SOURCES, "source", existing, changes, by)
    for name in sorted(wanted.keys() | existing.keys()):
        what = "unchanged" if name in wanted else "kept, though not in the file"
        if name in changes:
            new_version = name in existing and changes[name].version != existing[name].version
            what = "new" if name not in existing else "changed"
            what += "; its rows have to come again" if new_version else ""
        note(f"{name}: {what}{' (dry run)' if dry_run and name in changes else ''}")


@app.command("list")
def list_sources(style: TableOrJsonOption = TableOrJson.TABLE) -> None:
    """List the data sources that are in force.

    Example: curfew sources list -f json
    """
    rows = [_row(source) for _, source in sorted(live_sources(*_place()).items())]
    show(rows, style, columns=("name", "object", "key", "parameters", "personal", "rows_are", "fed_by"))


@app.command("show")
def show_one(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Show all of one data source as JSON.

    Example: curfew sources show crm_segment
    """
    typer.echo(json.dumps(_row(_one(*_place(), name)), indent=2, ensure_ascii=False))


@app.command("history")
def show_history(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]")] = None,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Show who changed which data source, when, from what to what.

    Example: curfew sources history crm_segment
    """
    rows = [as_row(entry) for entry in history(*_place(), "source", name)]
    show(rows, style, columns=("at", "by", "name", "action", "changes"))


@app.command()
def delete(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    by: ByOption = None,
) -> None:
    """Delete a data source, its parameters and all its rows. Exits with 2 while a route or subscription asks for it.

    Where Kafka fails in between, the same command again removes the rows that are left.

    Example: curfew sources delete crm_segment
    """
    settings, codec = _place()
    existing = live_sources(settings, codec)
    if name in existing:
        _check_dependents(settings, codec, existing, {other: one for other, one in existing.items() if other != name})
        save(settings, codec, SOURCES, "source", existing, {name: None}, by)  # first: nothing feeds it any more
    try:
        local, shared = _removals(settings, codec, name)
        if name not in existing and not (local or shared):
            _one(settings, codec, name)  # never heard of
        write_keyed(settings, codec, ROWS, local)
        write_keyed(settings, codec, SHARED, shared)
    except (Transient, KafkaException) as error:
        again = f"curfew sources delete {name}"
        raise Transient(f"{error}; rows of {name} may be left: run `{again}` again until it says how many") from error
    note(f"{name}: deleted, with {len(local) + len(shared)} rows")


@app.command()
def load(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    file: Annotated[Path, typer.Argument(help=".csv with a header, or .jsonl")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every row, write none.")] = False,
) -> None:
    """Write rows of a data source that has no topic of its own. Nothing is written if one is wrong; exits with 2 then.

    A row replaces the one of its key; rows that are not in the file stay.

    Example: curfew sources load crm_segment docs/examples/segments.csv
    """
    settings, codec = _place()
    source = _one(settings, codec, name)
    if source.topic is not None:
        _refuse(f"{name} is fed by the topic {source.topic.name!r}; write there, one writer for each row")
    rows = _or_usage(lambda: read_rows_file(file, source))
    if dry_run:
        note(f"{len(rows)} rows are good; nothing was written (--dry-run)")
        return
    write_keyed(settings, codec, ROWS if source.local else SHARED, [(row_key(row), row) for row in rows])
    note(f"{name}: {len(rows)} rows written")


def row_key(row: SourceRow) -> str:
    """The record key of a row, in whichever of the two topics it goes to."""
    return row.account_id if row.account_id is not None else f"{row.source}/{row.key}"


def _removals(
    settings: Settings, codec: Codec, name: str
) -> tuple[list[tuple[str, SourceRow]], list[tuple[str, None]]]:
    """What removes every row, of accounts and of all workers: personal data must not outlive its source. Both, for what
    the source was is not known any more when a deletion is finished by a second command."""
    rows = read_records(settings, codec, SHARED, SourceRow)
    shared = [(key, None) for key in rows if key.startswith(f"{name}/")]
    decode = codec.decoder(SourceRow)
    found = (kept(decode, stored) for _, stored in read_rows(settings, CHANGELOG, source_key(name, "")))
    local = [(row_key(row), replace(row, fields=None)) for row in found if row is not None and row.fields is not None]
    return local, shared


def _check_dependents(
    settings: Settings, codec: Codec, before: dict[str, DataSource], after: dict[str, DataSource]
) -> None:
    broken, stale = dependents(settings, codec, before, after)
    for problem in stale:
        note(f"warning: already before this change: {problem}")
    if broken:
        _refuse("it is still asked for; nothing was saved:\n" + "\n".join(f"  {problem}" for problem in broken))


def _row(source: DataSource) -> dict[str, object]:
    return {
        **msgspec.to_builtins(source),
        "parameters": [f"{source.name}.{field}" for field in source.fields],
        "key": f"{source.object}.{source.key}",
        "rows_are": "with their account" if source.local else "read whole by every worker",
        "fed_by": source.topic.name if source.topic is not None else "curfew sources load",
    }


def _place() -> tuple[Settings, Codec]:
    settings = Settings()
    return settings, Codec(Registry(settings.schema_registry_url))


def _one(settings: Settings, codec: Codec, name: str) -> DataSource:
    live = live_sources(settings, codec)
    if name not in live:
        _refuse(f"there is no data source {name!r}; there are: {', '.join(sorted(live)) or 'none'}")
    return live[name]


def _or_usage(read: Callable[[], T]) -> T:
    try:
        return read()
    except Misconfigured as error:
        _refuse(str(error))


def _refuse(problem: str) -> NoReturn:
    note(f"error: {problem}")
    raise typer.Exit(Exit.USAGE)
