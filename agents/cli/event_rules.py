"""`curfew events rules`: when events are raised that depend on time, changed while the workers run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show
from agents.configuration.changes import ByOption
from streams.topics import EVENT_RULES

if TYPE_CHECKING:
    from streams.core.event_rules import EventRule


app = typer.Typer(no_args_is_help=True, help="When events are raised that depend on time, e.g. days after a delivery.")


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(help="TOML with [\\[rule]] tables, as docs/examples/event-rules.toml.")],
    prune: Annotated[bool, typer.Option("--prune", help="Delete the rules that are not in the file.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and compare, change nothing.")] = False,
    by: ByOption = None,
) -> None:
    """Check a file of rules and save them; running workers follow, and move what is pending. Exits with 2 if one is
    wrong.

    Example: curfew events rules apply docs/examples/event-rules.toml
    """
    from agents.configuration.changes import save
    from agents.configuration.event_rules import read_rules
    from agents.configuration.records import read_records
    from streams.codec import Codec, Registry
    from streams.core.errors import Misconfigured
    from streams.core.event_rules import EventRule
    from streams.settings import Settings

    try:
        wanted = {rule.name: rule for rule in read_rules(file)}
    except Misconfigured as error:
        note(f"error: {error}")
        raise typer.Exit(Exit.USAGE) from None
    settings = Settings()
    codec = Codec(Registry(settings.schema_registry_url))
    existing = read_records(settings, codec, EVENT_RULES, EventRule)
    changes: dict[str, EventRule | None] = {name: rule for name, rule in wanted.items() if existing.get(name) != rule}
    if prune:
        changes |= dict.fromkeys(existing.keys() - wanted.keys())
    if not dry_run:
        save(settings, codec, EVENT_RULES, "rule", existing, changes, by)
    for name in sorted(wanted.keys() | existing.keys()):
        what = "unchanged" if name in wanted else "kept, though not in the file"
        if name in changes:
            what = "deleted" if changes[name] is None else "changed" if name in existing else "new"
        note(f"{name}: {what}{' (dry run)' if dry_run and name in changes else ''}")


@app.command("list")
def list_rules(style: TableOrJsonOption = TableOrJson.TABLE) -> None:
    """List the rules that are saved.

    Example: curfew events rules list -f json
    """
    import msgspec

    rows = [msgspec.to_builtins(rule) for _, rule in sorted(_live().items())]
    show(rows, style, columns=("name", "type", "days", "at", "only_while_unpaid", "active"))


@app.command("show")
def show_rule(
    name: Annotated[str, typer.Argument(help="Of the rule.")],
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Show one rule in words. Exits with 2 if there is none of this name.

    Example: curfew events rules show reminder
    """
    import msgspec

    from streams.core.event_rules import DORMANT

    rules = _live()
    rule = rules.get(name)
    if rule is None:
        there = ", ".join(sorted(rules)) or "none yet (`curfew events rules apply`)"
        note(f"error: there is no rule {name!r}; there are: {there}")
        raise typer.Exit(Exit.USAGE)
    if style is TableOrJson.JSON:
        typer.echo(json.dumps(msgspec.to_builtins(rule), indent=2))
        return
    if rule.type == DORMANT:
        sims = "all SIMs whose product has no rule" if rule.product_id is None else f"SIMs of product {rule.product_id}"
        typer.echo(f"{rule.name}: {rule.type}, after {rule.days} days without usage, for {sims}")
        if not rule.active:
            typer.echo("it is not active, so they are never called dormant")
        return
    days = f"{rule.days} day{'' if rule.days == 1 else 's'} after" if rule.days else "on the day of"
    unpaid = " if a balance is left then" if rule.only_while_unpaid else ""
    typer.echo(f"{rule.name}: {rule.type}, {days} the first delivery, at {rule.at} in the account's zone{unpaid}")
    if not rule.active:
        typer.echo("it is not active, so it raises nothing")


@app.command("history")
def show_history(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]")] = None,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Show who changed which rule, when, from what to what.

    Example: curfew events rules history reminder
    """
    from agents.configuration.changes import as_row, history
    from streams.codec import Codec, Registry
    from streams.settings import Settings

    settings = Settings()
    entries = history(settings, Codec(Registry(settings.schema_registry_url)), "rule", name)
    show([as_row(entry) for entry in entries], style, columns=("at", "by", "name", "action", "changes"))


def _live() -> dict[str, EventRule]:
    from agents.configuration.records import read_records
    from streams.codec import Codec, Registry
    from streams.core.event_rules import EventRule
    from streams.settings import Settings

    settings = Settings()
    return read_records(settings, Codec(Registry(settings.schema_registry_url)), EVENT_RULES, EventRule)
