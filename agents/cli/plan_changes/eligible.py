"""`eligible`: what a service could order now, and its open change."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show
from agents.cli.plan_changes.changes import change_row
from agents.cli.plan_changes.options import Account, utc, utc_or_none
from agents.cli.plan_changes.rows import read_change
from agents.cli.plan_changes.view import account_of, look
from agents.plan_changes.reasons import in_words
from agents.plan_changes.requests import new_request

if TYPE_CHECKING:
    from streams.core.plan_change.eligibility import Offer

_COLUMNS = (
    "element", "to_rate_plan_id", "date_rule", "effective_date", "start_at", "deadline_at", "fees", "accepted",
    "reasons",
)  # fmt: skip

app = typer.Typer()


@app.command()
def eligible(
    service: str,
    account: Account,
    channel: Annotated[str, typer.Option(help="Where the order would come from.")] = "curfew",
    effective_date: Annotated[
        datetime | None, typer.Option("--date", formats=["%Y-%m-%d"], help="For elements with the rule date_given.")
    ] = None,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Which changes the service may order now through a channel, with the dates that an order would get.

    An open change is shown too, and why an order would be refused. Exit code 1 if service or account are not known, or
    the service belongs to another account. Nothing is ordered, and no hook is asked.

    Example: curfew plan-changes eligible S1 --account A1 --channel crm
    """
    from streams.core.hooks import HookRegistry
    from streams.core.plan_change.eligibility import annotated, offers
    from streams.core.plan_change.machine import Rules
    from streams.core.plan_change.messages import RequestKind

    view = look()
    day = None if effective_date is None else effective_date.date()
    request = new_request(RequestKind.ORDER, service, account, channel=channel, effective_date=day)
    validated = annotated(request, view.known(service, account))
    current = read_change(service)
    rules = Rules(hooks=HookRegistry())  # ORDER hooks may still say no: `dry-run` asks them
    matrix = view.matrix()
    found = offers(validated, matrix.values(), current, view.now, rules)
    owner = account_of(service) if "service_unknown" in validated.reasons else None
    rows = [_row(one) for one in found]
    shown = current if current is not None and current.is_open else None
    if style is TableOrJson.JSON:
        answer = {
            "service_id": service,
            "account_id": account,
            "channel": channel,
            "now": utc(view.now),
            "reasons": list(validated.reasons),
            "service_of_account": owner,
            "rate_plan_id": validated.rate_plan_id,
            "product_id": validated.product_id,
            "open_change": None if shown is None else change_row(shown),
            "elements": rows,
        }
        typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        plan = f"rate plan {validated.rate_plan_id}, product {validated.product_id}"
        typer.echo(f"service {service}: {plan if validated.rate_plan_id else 'no rate plan known'}, {utc(view.now)}")
        if shown is not None:
            typer.echo(
                f"open change: {shown.element.key}, {shown.state.value}, revision {shown.revision}, "
                f"effective {shown.effective_date}, start {utc(shown.start_at)}, deadline {utc(shown.deadline_at)}"
            )
        show(rows, style, columns=_COLUMNS)
        if not rows and validated.rate_plan_id is not None:
            channels = sorted({one for each in matrix.values() for one in each.channels})
            unused = "" if channel in channels else f"; the matrix has the channels {', '.join(channels) or '(none)'}"
            typer.echo(f"no element of the change matrix starts there through channel {channel}{unused}")
        state = None if shown is None else shown.state.value
        for line in in_words([*validated.reasons, *(reason for one in found for reason in one.reasons)], state):
            typer.echo(line)
    if owner not in (None, account):
        note(f"service {service} belongs to account {owner}, not {account}: give --account {owner}")
    if not validated.valid:
        raise typer.Exit(Exit.FAILURE)


def _row(offer: Offer) -> dict[str, Any]:
    element, change = offer.element, offer.change
    return {
        "element": element.key,
        "to_rate_plan_id": element.to_rate_plan_id,
        "to_product_id": element.to_product_id,
        "date_rule": element.date_rule.value,
        "lead_hours": element.lead_hours,
        "effective_date": None if change is None else change.effective_date.isoformat(),
        "start_at": utc_or_none(None if change is None else change.start_at),
        "deadline_at": utc_or_none(None if change is None else change.deadline_at),
        "fees": [f"{fee.code} {fee.amount} {fee.currency}" for fee in element.fees],
        "options_added": list(element.options_added),
        "options_removed": list(element.options_removed),
        "accepted": not offer.reasons,
        "reasons": list(offer.reasons),
    }
