"""`list` and `show`: the changes that there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.cli import choices
from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show
from agents.cli.plan_changes.options import utc, utc_or_none
from agents.cli.plan_changes.rows import read_changes, read_letters
from agents.cli.plan_changes.view import account_exists
from agents.plan_changes.reasons import MAY_LIE_THERE, why

if TYPE_CHECKING:
    from agents.reconcile.letters import Letter
    from streams.core.plan_change.machine import Change

_COLUMNS = (
    "service_id", "account_id", "element", "state", "revision", "effective_date", "zone", "start_at", "deadline_at",
    "persisted_at", "effective_at", "missed",
)  # fmt: skip

app = typer.Typer()


@app.command(name="list")
def list_changes(
    state: Annotated[
        list[str] | None, typer.Option(help="Only changes in this state, e.g. pending, held, failed; again for more.")
    ] = None,
    account: Annotated[str | None, typer.Option(help="Only changes of this account.")] = None,
    history: Annotated[bool, typer.Option("--history", help="Also changes that a later one replaced.")] = False,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """List plan changes, the nearest deadline first, as the scheduler's changelog has them now.

    Exit code 2 for a state or an account that there is not; an account without changes is an empty list.

    Example: curfew plan-changes list --state pending -f json
    """
    from streams.core.plan_change.machine import State

    for name in state or ():
        choices.one_of(name, [one.value for one in State], what="state", option="--state")
    changes = read_changes(history=history)
    if account is not None and not any(one.account_id == account for one in changes):
        if not account_exists(account):
            near = choices.meant(choices.nearest(account, {one.account_id for one in changes}))
            choices.refuse(f"there is no account {account!r}{near}: no change is of it, and no worker has seen it")
        note(f"account {account} has no plan change")
    if state and State.SUPERSEDED in state and not history:
        note("a superseded change was replaced by a later one: add --history to see it")
    rows = [
        change_row(change)
        for change in sorted(changes, key=lambda one: (one.deadline_at, one.service_id, one.revision))
        if (not state or change.state in state) and (account is None or change.account_id == account)
    ]
    reasons = ("reason",) if any(row["reason"] for row in rows) else ()
    show(rows, style, columns=(*_COLUMNS, *reasons))


@app.command(name="show")
def show_change(service: str, style: TableOrJsonOption = TableOrJson.TABLE) -> None:
    """Show the latest change of a service and those before it, with the reason where one failed, is held or was put
    aside on its way to the billing store. Exit code 1 if there is none.

    Example: curfew plan-changes show S1 -f json
    """
    everybody = read_changes(history=True)
    found = sorted((one for one in everybody if one.service_id == service), key=lambda one: -one.revision)
    if not found:
        near = choices.meant(choices.nearest(service, {one.service_id for one in everybody}))
        note(f"service {service} has no plan change{near}")
        raise typer.Exit(Exit.FAILURE)
    stuck = {one.change_id for one in found if one.persisted_at is None and one.state in MAY_LIE_THERE}
    rows, words = explained(found, read_letters(stuck) if stuck else {})
    if style is TableOrJson.JSON:
        show(rows, style, columns=_COLUMNS)
        return
    names = [f"revision {change.revision}" for change in found]
    fields = [
        {"field": field, **dict(zip(names, (row[field] for row in rows), strict=True))}
        for field in rows[0]
        if field != "reason_in_words"
    ]
    show(fields, style, columns=("field", *names))
    for line in words:
        typer.echo(line)


def explained(
    changes: Sequence[Change], letters: Mapping[tuple[str, int], Letter]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows with ``reason`` and ``reason_in_words``, and a line for every reason, each line once."""
    rows = []
    for change in changes:
        reason, words = why(change, letters.get((change.change_id, change.revision)))
        rows.append(change_row(change) | {"reason": reason, "reason_in_words": words})
    return rows, _lines(rows)


def _lines(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    told = (f"{row['reason']}: {row['reason_in_words']}" for row in rows if row["reason_in_words"] is not None)
    return list(dict.fromkeys(told))


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
        "reason": why(change, None)[0],
        "request_id": change.request_id,
    }
