"""`order`, `cancel`, `retry` and `resolve`: one request each, and its reply."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.cli.output import TableOrJson, TableOrJsonOption
from agents.cli.plan_changes.options import (
    WAIT_S,
    Account,
    Channel,
    ExpectedRevision,
    RequestId,
    Timeout,
    Wait,
)
from agents.cli.plan_changes.sending import send
from agents.plan_changes.requests import new_request

if TYPE_CHECKING:
    pass

app = typer.Typer()


@app.command()
def order(
    service: str,
    element: Annotated[str, typer.Argument(help="Key of the matrix element.")],
    account: Account,
    effective_date: Annotated[
        datetime | None, typer.Option("--date", formats=["%Y-%m-%d"], help="For elements with the rule date_given.")
    ] = None,
    silent: Annotated[bool, typer.Option("--silent", help="Tell the customer nothing.")] = False,
    fees: Annotated[bool, typer.Option("--fees/--no-fees", help="Charge the element's fees.")] = True,
    option: Annotated[list[str] | None, typer.Option(help="An option that the customer chose; again for more.")] = None,
    channel: Channel = "curfew",
    expected_revision: Annotated[
        int | None, typer.Option(help="Revision of the open change that this order supersedes.")
    ] = None,
    request_id: RequestId = None,
    wait: Wait = False,
    timeout: Timeout = WAIT_S,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Order a rate plan change.

    Example: curfew plan-changes order S1 basic-to-plus --account A1 --channel crm --wait
    """
    from streams.core.plan_change.messages import RequestKind

    request = new_request(
        RequestKind.ORDER,
        service,
        account,
        request_id=request_id,
        channel=channel,
        expected_revision=expected_revision,
        element_key=element,
        effective_date=None if effective_date is None else effective_date.date(),
        silent=silent,
        apply_fees=fees,
        options=tuple(option or ()),
    )
    send(request, wait, timeout, style)


@app.command()
def cancel(
    service: str,
    account: Account,
    channel: Channel = "curfew",
    expected_revision: ExpectedRevision = None,
    request_id: RequestId = None,
    wait: Wait = False,
    timeout: Timeout = WAIT_S,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Cancel the open change of a service; possible until its start instant.

    Example: curfew plan-changes cancel S1 --account A1 --wait
    """
    from streams.core.plan_change.messages import RequestKind

    about: dict[str, Any] = {"request_id": request_id, "channel": channel, "expected_revision": expected_revision}
    send(new_request(RequestKind.CANCEL, service, account, **about), wait, timeout, style)


@app.command()
def retry(
    service: str,
    account: Account,
    channel: Channel = "curfew",
    expected_revision: ExpectedRevision = None,
    request_id: RequestId = None,
    wait: Wait = False,
    timeout: Timeout = WAIT_S,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Try the failed step of a change again; its hooks are called once more.

    Example: curfew plan-changes retry S1 --account A1 --wait
    """
    from streams.core.plan_change.messages import RequestKind

    about: dict[str, Any] = {"request_id": request_id, "channel": channel, "expected_revision": expected_revision}
    send(new_request(RequestKind.RETRY, service, account, **about), wait, timeout, style)


@app.command()
def resolve(
    service: str,
    account: Account,
    finish_late: Annotated[
        bool, typer.Option("--finish-late", help="Execute it although the deadline has passed; usage is re-rated.")
    ] = False,
    roll: Annotated[bool, typer.Option("--roll", help="Make it a change for the next effective date.")] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Give it up: the service keeps its plan.")] = False,
    channel: Channel = "curfew",
    expected_revision: ExpectedRevision = None,
    request_id: RequestId = None,
    wait: Wait = False,
    timeout: Timeout = WAIT_S,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Decide about a change that has failed or is held: finish it late, roll it to the next date, or abandon it.

    Example: curfew plan-changes resolve S1 --account A1 --roll --wait
    """
    from streams.core.plan_change.messages import RequestKind, Resolution

    wanted = {Resolution.FINISH_LATE: finish_late, Resolution.ROLL: roll, Resolution.ABANDON: abandon}
    chosen = [resolution for resolution, is_wanted in wanted.items() if is_wanted]
    if len(chosen) != 1:
        raise typer.BadParameter("give exactly one of --finish-late, --roll, --abandon", param_hint="resolution")
    request = new_request(
        RequestKind.RESOLVE,
        service,
        account,
        request_id=request_id,
        channel=channel,
        expected_revision=expected_revision,
        resolution=chosen[0],
    )
    send(request, wait, timeout, style)
