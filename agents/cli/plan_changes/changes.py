"""`list` and `show`: the changes that there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show
from agents.cli.plan_changes.options import utc, utc_or_none
from agents.cli.plan_changes.reasons import in_words
from agents.cli.plan_changes.rows import read_changes

if TYPE_CHECKING:
    from streams.core.change import Change

_COLUMNS = (
    "service_id", "account_id", "element", "state", "revision", "effective_date", "zone", "start_at", "deadline_at",
    "persisted_at", "effective_at", "missed",
)  # fmt: skip

app = typer.Typer()


@app.command(name="list")
def list_changes(
    state: Annotated[list[str] | None, typer.Option(help="Only changes in this state; again for more.")] = None,
    account: Annotated[str | None, typer.Option(help="Only changes of this account.")] = None,
    history: Annotated[bool, typer.Option("--history", help="Also changes that a later one replaced.")] = False,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """List plan changes, the nearest deadline first, as the scheduler's changelog has them now.

    Example: curfew plan-changes list --state pending -f json
    """
    rows = [
        change_row(change)
        for change in sorted(
            read_changes(history=history), key=lambda one: (one.deadline_at, one.service_id, one.revision)
        )
        if (not state or change.state in state) and (account is None or change.account_id == account)
    ]
    show(rows, style, columns=_COLUMNS)


@app.command(name="show")
def show_change(service: str, style: TableOrJsonOption = TableOrJson.TABLE) -> None:
    """Show the latest change of a service and those before it; exit code 1 if there is none.

    Example: curfew plan-changes show S1 -f json
    """
    changes = [one for one in read_changes(history=True) if one.service_id == service]
    found = sorted(changes, key=lambda one: -one.revision)
    if not found:
        note(f"service {service} has no plan change")
        raise typer.Exit(Exit.FAILURE)
    rows = [change_row(change) for change in found]
    if style is TableOrJson.JSON:
        show(rows, style, columns=_COLUMNS)
        return
    names = [f"revision {change.revision}" for change in found]
    fields = [{"field": field, **dict(zip(names, (row[field] for row in rows), strict=True))} for field in rows[0]]
    show(fields, style, columns=("field", *names))
    for line in in_words(change.reason for change in found):
        typer.echo(line)


def change_row(change: Change) -> dict[str, Any]:
    """A change as commands print it; instants in UTC."""
    return {
        "service_id": change.service_id,
        "account_id": change.account_id,
        "change_id": change.change_id,
        "revision": change.revision,
        "state": change.state.value,
        "element": change.element.key,
        "from_rate_plan_id": change.element.from_rate_plan_id,
        "to_rate_plan_id": change.to_rate_plan_id,
        "effective_date": change.effective_date.isoformat(),
        "zone": change.zone,
        "start_at": utc(change.start_at),
        "release_at": utc(change.release_at),
        "deadline_at": utc(change.deadline_at),
        "persisted_at": utc_or_none(change.persisted_at),
        "effective_at": utc_or_none(change.effective_at),
        "missed": change.missed,
        "silent": change.silent,
        "reason": change.reason,
        "request_id": change.request_id,
    }
