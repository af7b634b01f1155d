"""`curfew events`: the catalogue of event types and what each can carry."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from agents.cli import event_rules
from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show
from streams.core.catalogue import CATALOGUE, EventType, nearest_types
from streams.core.graph import reach
from streams.core.parameters import available

app = typer.Typer(no_args_is_help=True, help="The catalogue of events: what is raised, about what, with which values.")
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
    known = event_type(type)
    if style is TableOrJson.JSON:
        typer.echo(json.dumps(as_row(known), indent=2))
        return
    typer.echo(f"{known.type}: {known.about}")
    typer.echo(f"object {known.kind}, audience {known.audience}, raised: {_raised(known)}")
    for name, meaning in known.facts.items():
        typer.echo(f"fact {name}: {meaning}")
    reached = list(reach(known.kind))
    if not reached:
        typer.echo(f"{known.kind} objects do not reach Curfew yet, so there are no parameters")
        return
    typer.echo(f"reaches {', '.join(reached)}")
    rows = [
        {"parameter": name, "type": type_name, "by_default": name in known.defaults}
        for name, type_name in available(known.kind).items()
    ]
    show(rows, style, columns=("parameter", "type", "by_default"))


@app.command()
def counts(style: TableOrJsonOption = TableOrJson.TABLE) -> None:
    """Count what became of everything found so far: raised, unrouted, withheld from customers, and missing revisions.

    Example: curfew events counts -f json
    """
    # imported here, since only this command needs a broker, and listing types should start quickly
    from agents.config_records import read_rows
    from agents.events import CHANGELOG, totals
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


def as_row(known: EventType) -> dict[str, Any]:
    """Everything about a type, for programs."""
    return {
        "type": known.type,
        "object": str(known.kind),
        "audience": str(known.audience),
        "about": known.about,
        "raised": _raised(known),
        "facts": dict(known.facts),
        "reaches": [str(name) for name in reach(known.kind)],
        "parameters": dict(available(known.kind)),
        "default_parameters": list(known.defaults),
    }


def _raised(known: EventType) -> str:
    if not known.raised:
        return "not yet"
    return "when registered" if known.registered else "always"
