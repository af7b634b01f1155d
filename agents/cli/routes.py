"""`curfew routes`: which events go to which queues, changed while the workers run."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from agents.calculations.declarations import own_types
from agents.cli.events import event_type
from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show
from agents.configuration.changes import ByOption, as_row, history, live_graph, save
from agents.configuration.records import read_records
from agents.configuration.routes import read_routes
from agents.events.sample import like
from streams.codec import Codec, Registry
from streams.core.errors import Misconfigured
from streams.core.events import Audience
from streams.core.graph import Graph
from streams.core.routing import Route, Router, mismatch, problems
from streams.filters import CelLanguage
from streams.kafka.admin import admin_client, answering, partition_counts
from streams.kafka.manifest import QUEUE_PREFIX
from streams.settings import Settings
from streams.topics import ROUTES

app = typer.Typer(callback=own_types, no_args_is_help=True, help="Which events go to which queues.")


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(help="TOML with [\\[route]] tables, as docs/examples/routes.toml.")],
    prune: Annotated[bool, typer.Option("--prune", help="Delete the routes that are not in the file.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and compare, change nothing.")] = False,
    by: ByOption = None,
) -> None:
    """Check a file of routes and save them; running workers follow at once. Exits with 2 if one is wrong.

    Example: curfew routes apply docs/examples/routes.toml
    """
    settings = Settings()
    codec = Codec(Registry(settings.schema_registry_url))
    graph = live_graph(settings, codec)
    _read(file, graph)  # what is wrong in itself is said without a broker
    wanted = {route.name: route for route in _read(file, graph, queues=_queues(settings))}
    existing = read_records(settings, codec, ROUTES, Route)
    changes: dict[str, Route | None] = {name: route for name, route in wanted.items() if existing.get(name) != route}
    if prune:
        changes |= dict.fromkeys(existing.keys() - wanted.keys())
    if not dry_run:
        save(settings, codec, ROUTES, "route", existing, changes, by)
    for name in sorted(wanted.keys() | existing.keys()):
        what = "unchanged" if name in wanted else "kept, though not in the file"
        if name in changes:
            what = "deleted" if changes[name] is None else "changed" if name in existing else "new"
        note(f"{name}: {what}{' (dry run)' if dry_run and name in changes else ''}")


def save_routes(routes: Iterable[Route], *, by: str | None, dry_run: bool) -> None:
    """Check and save some routes, the others stay; leaves with exit code 2 when one is wrong."""
    settings = Settings()
    codec = Codec(Registry(settings.schema_registry_url))
    graph, queues = live_graph(settings, codec), _queues(settings)
    wanted = {route.name: route for route in routes}
    language = CelLanguage()
    found = [problem for route in wanted.values() for problem in problems(route, queues, language, graph)]
    if found:
        note("error: nothing was saved.\n" + "\n".join(f"  {problem}" for problem in found))
        raise typer.Exit(Exit.USAGE)
    existing = read_records(settings, codec, ROUTES, Route)
    changes: dict[str, Route | None] = {name: route for name, route in wanted.items() if existing.get(name) != route}
    if not dry_run:
        save(settings, codec, ROUTES, "route", existing, changes, by)
    for name in wanted:
        what = "unchanged" if name not in changes else "changed" if name in existing else "new"
        note(f"{name}: {what}{' (dry run)' if dry_run and name in changes else ''}")


@app.command("list")
def list_routes(style: TableOrJsonOption = TableOrJson.TABLE) -> None:
    """List the routes that are in force.

    Example: curfew routes list -f json
    """
    rows = [msgspec.to_builtins(route) for route in _live()]
    show(rows, style, columns=("name", "event_types", "queues", "audience", "filter", "parameters", "active"))


@app.command()
def delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
    by: ByOption = None,
) -> None:
    """Delete routes; running workers follow at once. Events that no other route takes are counted as unrouted.

    Example: curfew routes delete suspensions
    """
    settings = Settings()
    codec = Codec(Registry(settings.schema_registry_url))
    existing = read_records(settings, codec, ROUTES, Route)
    if unknown := [name for name in names if name not in existing]:
        note(f"error: there is no route {unknown[0]!r}; there are: {', '.join(sorted(existing)) or 'none'}")
        raise typer.Exit(Exit.USAGE)
    save(settings, codec, ROUTES, "route", existing, dict.fromkeys(names), by)
    for name in names:
        note(f"{name}: deleted")


@app.command("history")
def show_history(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]")] = None,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Show who changed which route, when, from what to what.

    Example: curfew routes history suspensions
    """
    settings = Settings()
    entries = history(settings, Codec(Registry(settings.schema_registry_url)), "route", name)
    show([as_row(entry) for entry in entries], style, columns=("at", "by", "name", "action", "changes"))


@app.command("test")
def try_event(
    type: Annotated[str, typer.Argument(metavar="TYPE", help="e.g. service.state_transitioned")],
    field: Annotated[
        list[str] | None, typer.Option("--field", "-F", help="A field of the event, as facts.to=Active; repeatable.")
    ] = None,
    audience: Annotated[Audience | None, typer.Option(help="Of the event; default is the type's own.")] = None,
    file: Annotated[Path | None, typer.Option(help="Try this file instead of the routes in force.")] = None,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Say which routes would take an event, and why the others would not. Exits with 1 if none would.

    Example: curfew routes test service.state_transitioned -F facts.to=Suspended
    """
    known = event_type(type)
    language = CelLanguage()
    settings = Settings()
    graph = live_graph(settings, Codec(Registry(settings.schema_registry_url)))
    given = dict(_pair(pair) for pair in field or ())
    try:
        finding, parameters = like(known, audience or known.audience, given, graph)
    except Misconfigured as error:
        note(f"error: {error}")
        raise typer.Exit(Exit.USAGE) from None
    routes = _read(file, graph) if file is not None else _live()
    taking = Router(routes, language=language).matches(type)
    rows = []
    for route in routes:
        against = f"does not name {type}" if route.active else "is not active"
        why = mismatch(route, finding, parameters, language) if route in taking else against
        rows.append({"route": route.name, "takes": why is None, "queues": list(route.queues), "why_not": why})
    show(rows, style, columns=("route", "takes", "queues", "why_not"))
    if not any(row["takes"] for row in rows):
        raise typer.Exit(Exit.FAILURE)


def _pair(pair: str) -> tuple[str, str]:
    name, separator, value = pair.partition("=")
    if not separator:
        raise typer.BadParameter(f"{pair!r}: write it as facts.to=Active", param_hint="--field")
    return name, value


def _read(file: Path, graph: Graph, queues: Collection[str] | None = None) -> list[Route]:
    try:
        return read_routes(file, queues, graph)
    except Misconfigured as error:
        note(f"error: {error}")
        raise typer.Exit(Exit.USAGE) from None


def _queues(settings: Settings) -> list[str]:
    topics = partition_counts(admin_client(answering(settings.kafka())))
    return [name.removeprefix(QUEUE_PREFIX) for name in topics if name.startswith(QUEUE_PREFIX)]


def _live() -> list[Route]:
    settings = Settings()
    found = read_records(settings, Codec(Registry(settings.schema_registry_url)), ROUTES, Route)
    return [found[name] for name in sorted(found)]
