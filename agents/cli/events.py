"""`curfew events`: the catalogue of event types and what each can carry."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from agents.calculations.declarations import own_types
from agents.cli import event_rules
from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show
from streams.core.catalogue import CATALOGUE, EventType, nearest_types
from streams.core.graph import GRAPH, Graph
from streams.core.objects import Op
from streams.core.parameters import available

app = typer.Typer(
    callback=own_types,
    no_args_is_help=True,
    help="The catalogue of events: what is raised, about what, with which values.",
)
app.add_typer(event_rules.app, name="rules")


@app.command("list")
def list_types(style: TableOrJsonOption = TableOrJson.TABLE) -> None:
    """List every event type.

    Example: curfew events list -f json
    """
    rows = [as_row(known) for known in CATALOGUE.values()]
    show(rows, style, columns=("type", "object", "audience", "raised", "about"))


@app.command("show")
def show_type(
    type: Annotated[str, typer.Argument(metavar="TYPE", help="e.g. service.state_transitioned")],
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Show one event type: its object, its facts, and every parameter that it can have.

    Example: curfew events show bill_run.completed
    """
    known, graph = event_type(type), _graph()
    if style is TableOrJson.JSON:
        typer.echo(json.dumps(as_row(known, graph), indent=2))
        return
    typer.echo(f"{known.type}: {known.about}")
    typer.echo(f"object {known.kind}, audience {known.audience}, raised: {_raised(known)}")
    for name, meaning in known.facts.items():
        typer.echo(f"fact {name}: {meaning}")
    reached = list(graph.reach(known.kind))
    if not reached:
        typer.echo(f"{known.kind} objects do not reach Curfew yet, so there are no parameters")
        return
    typer.echo(f"reaches {', '.join(reached)}")
    rows = [
        {"parameter": name, "type": type_name, "by_default": name in known.defaults}
        for name, type_name in available(known.kind, graph).items()
    ]
    show(rows, style, columns=("parameter", "type", "by_default"))


def _graph() -> Graph:
    """With the data sources in force, if a broker answers."""
    from agents.configuration.changes import live_graph
    from streams.codec import Codec, Registry
    from streams.settings import Settings

    settings = Settings()
    return live_graph(settings, Codec(Registry(settings.schema_registry_url)))


@app.command()
def register(
    object: Annotated[str, typer.Argument(metavar="OBJECT", help="e.g. service; `curfew events list` has them all.")],
    queue: Annotated[list[str], typer.Option("--queue", help="Where its changes go; repeatable.")],
    op: Annotated[list[Op] | None, typer.Option("--op", help="Only these; repeatable, default all three.")] = None,
    parameter: Annotated[list[str] | None, typer.Option(help="Wanted besides the defaults; repeatable.")] = None,
    filter: Annotated[str, typer.Option(help="Only changes for which this is true: docs/filters.md.")] = "",
    name: Annotated[str | None, typer.Option(help="Of the route; default registered-OBJECT.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="Who changes it; default CURFEW_BY, else user@host.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and compare, change nothing.")] = False,
) -> None:
    """Publish creates, updates and deletes of an object: makes or changes the route that asks for them.

    They are internal events. `curfew routes delete registered-OBJECT` ends it.

    Example: curfew events register service --op updated --queue operations
    """
    # imported here, since only this command needs a broker, and listing types should start quickly
    from agents.cli.routes import save_routes
    from streams.core.routing import Route, RouteAudience

    types = tuple(f"{object}.{one}" for one in op or list(Op))
    for type in types:
        if not event_type(type).raised:
            note(f"error: {type} is not raised: {object} objects do not reach Curfew yet")
            raise typer.Exit(Exit.USAGE)
    route = Route(
        name=name or f"registered-{object}",
        event_types=types,
        queues=tuple(dict.fromkeys(queue)),
        filter=filter,
        parameters=tuple(parameter or ()),
        audience=RouteAudience.INTERNAL,
    )
    save_routes([route], by=by, dry_run=dry_run)


@app.command()
def counts(style: TableOrJsonOption = TableOrJson.TABLE) -> None:
    """Count what became of everything found so far: raised, unrouted, withheld from customers, and missing revisions.

    Example: curfew events counts -f json
    """
    # imported here, since only this command needs a broker, and listing types should start quickly
    from agents.configuration.records import read_rows
    from agents.events.engine import totals
    from agents.events.feeds import CHANGELOG
    from streams.core.rows import count_key
    from streams.settings import Settings

    found = totals(read_rows(Settings(), CHANGELOG, count_key("")))
    rows = [dict(zip(("what", "of"), name.split(" ", 1), strict=True), count=found[name]) for name in sorted(found)]
    show(rows, style, columns=("what", "of", "count"))


def event_type(name: str) -> EventType:
    """The type of this name; leaves with exit code 2 and the nearest names when there is none."""
    known = CATALOGUE.get(name)
    if known is None:
        note(f"error: there is no event type {name!r}{nearest_types(name)}; see `curfew events list`")
        raise typer.Exit(Exit.USAGE)
    return known


def as_row(known: EventType, graph: Graph = GRAPH) -> dict[str, Any]:
    """Everything about a type, for programs."""
    return {
        "type": known.type,
        "object": str(known.kind),
        "audience": str(known.audience),
        "about": known.about,
        "raised": _raised(known),
        "facts": dict(known.facts),
        "reaches": [str(name) for name in graph.reach(known.kind)],
        "parameters": dict(available(known.kind, graph)),
        "default_parameters": list(known.defaults),
    }


def _raised(known: EventType) -> str:
    if not known.raised:
        return "not yet"
    return "when registered" if known.registered else "always"
