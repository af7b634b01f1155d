"""`dry-run`: what would become of changes, without recording, sending or storing anything."""

from __future__ import annotations

import sys
import time
from contextlib import redirect_stdout
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.cli import choices
from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note
from agents.cli.plan_changes.dry_run_view import Report, print_report
from agents.cli.plan_changes.options import known_zone, without
from agents.cli.plan_changes.progress import progress
from agents.cli.plan_changes.rows import read_changes
from agents.cli.plan_changes.view import View, look
from agents.plan_changes.requests import new_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agents.plan_changes.dry_run import DryRuns
    from agents.plan_changes.dry_run_summary import Summary
    from streams.core.plan_change.machine import Change
    from streams.core.plan_change.messages import Request

# Changes per second that scheduler, Kafka and billing store are trusted with where nobody says more. A projection at
# the speed of hooks alone would promise nights that no billing store can write.
DEFAULT_RATE = 200.0

app = typer.Typer()


@app.command("dry-run")
def dry_run(
    services: Annotated[
        list[str] | None, typer.Argument(metavar="[SERVICE]...", help="Services of one account.")
    ] = None,
    account: Annotated[str | None, typer.Option(help="The account of the services.")] = None,
    element: Annotated[
        str | None, typer.Option(help="Key of a matrix element: a change that is not ordered yet.")
    ] = None,
    effective_date: Annotated[
        datetime | None, typer.Option("--date", formats=["%Y-%m-%d"], help="With --element: its effective date.")
    ] = None,
    silent: Annotated[bool, typer.Option("--silent", help="With --element: tell the customer nothing.")] = False,
    fees: Annotated[bool, typer.Option("--fees/--no-fees", help="With --element: charge its fees.")] = True,
    option: Annotated[list[str] | None, typer.Option(help="With --element: an option chosen; again for more.")] = None,
    channel: Annotated[str, typer.Option(help="With --element: where the order would come from.")] = "curfew",
    night: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="All pending changes of this effective date.")
    ] = None,
    zone: Annotated[str | None, typer.Option(help="With --night: only changes of this IANA zone.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="With --night: run only so many, those with the nearest deadline.")
    ] = None,
    rate: Annotated[
        float, typer.Option(min=0.001, help="Changes per second that the rest of the chain is good for.")
    ] = DEFAULT_RATE,
    workers: Annotated[int, typer.Option(min=1, help="Execution workers that will share the work.")] = 1,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """What would become of a pending change, of one not ordered yet, or of a whole night. Changes nothing.

    The hooks of this machine's settings are called, with dry_run=True in their context. Exit code 3 if a change would
    fail, waits for a person (held, failed), a projected finish is after its deadline, or the billing store does not
    answer while there is something to persist. Exit code 2 for a zone that is no IANA zone.

    Example: curfew plan-changes dry-run S1 --account A1

    Example: curfew plan-changes dry-run --element basic-to-plus S1 --account A1 --channel crm

    Example: curfew plan-changes dry-run --night 2018-11-04 --limit 1000
    """
    from agents.plan_changes.dry_run import needs_store
    from streams.core.plan_change.machine import State
    from streams.core.plan_change.window import derived

    chosen = list(services or ())
    if (night is None) == (not chosen):
        raise typer.BadParameter("give services, or --night DATE for all changes of a date", param_hint="SERVICE")
    if chosen and account is None:
        raise typer.BadParameter("give the account of the services", param_hint="--account")
    if night is not None and element is not None:
        raise typer.BadParameter("is for services that have no change yet; leave out --night", param_hint="--element")
    for given, name in ((zone, "--zone"), (limit, "--limit")):
        if given is not None and night is None:
            raise typer.BadParameter("only has a meaning with --night", param_hint=name)
    if effective_date is not None and element is None:
        raise typer.BadParameter("only has a meaning with --element; for a night give --night", param_hint="--date")
    known_zone(zone)
    view = look()
    everybody = [derived(one) for one in read_changes()]
    refused: dict[str, tuple[str, ...]] = {}
    if night is not None:
        changes = _of_night(everybody, night.date(), zone)
        if not changes:
            open_ones = [one for one in everybody if one.state in (State.PENDING, State.STARTED)]
            note(without(night.date(), zone, ((one.effective_date, one.zone) for one in open_ones)))
    elif element is None:
        assert account is not None
        changes = _pending(everybody, chosen, account)
    else:
        assert account is not None
        day = None if effective_date is None else effective_date.date()
        about: dict[str, Any] = {"effective_date": day, "silent": silent, "apply_fees": fees, "channel": channel}
        about["options"] = tuple(option or ())
        changes, refused = _ordered(view, everybody, chosen, account, element, **about)
    selected = changes[:limit]
    summary, elapsed = _run(
        view, selected, order=element is not None, keep_all=style is TableOrJson.JSON or night is None
    )
    report = Report(
        now=view.now,
        summary=summary,
        found=len(changes),
        refused=refused,
        each=summary.time_each(elapsed, workers, rate),
        changes=changes,
        others=everybody,
        store=_store_problem(view) if any(map(needs_store, selected)) else "",
    )
    print_report(report, style)
    if report.over_limit:
        raise typer.Exit(Exit.LIMIT)


def _of_night(everybody: Sequence[Change], day: date, zone: str | None) -> list[Change]:
    """Changes of this date whose execution is still to come, the nearest deadline first."""
    from streams.core.plan_change.machine import State

    found = [
        one
        for one in everybody
        if one.effective_date == day and one.state in (State.PENDING, State.STARTED) and zone in (None, one.zone)
    ]
    return sorted(found, key=lambda one: (one.deadline_at, one.release_at, one.service_id))


def _pending(everybody: Sequence[Change], services: Sequence[str], account: str) -> list[Change]:
    """The open changes of these services; leaves with exit code 1 where there is none."""
    from agents.plan_changes.dry_run import steps_ahead

    found = {one.service_id: one for one in everybody if one.service_id in services and one.is_open}
    for service in services:
        change = found.get(service)
        if change is None:
            note(f"service {service} has no open change; give --element KEY for one that is not ordered yet")
        elif change.account_id != account:
            note(f"the open change of service {service} is of account {change.account_id}, not {account}")
        elif not steps_ahead(change):
            note(f"the change of service {service} is {change.state.value}: nothing is left to be run")
        else:
            continue
        raise typer.Exit(Exit.FAILURE)
    return [found[service] for service in dict.fromkeys(services)]


def _ordered(
    view: View, everybody: Sequence[Change], services: Sequence[str], account: str, element: str, **about: Any
) -> tuple[list[Change], dict[str, tuple[str, ...]]]:
    """The changes that orders now would make, and service → reasons of those that would be refused."""
    from streams.core.hooks import HookRegistry
    from streams.core.plan_change.eligibility import annotated, offer
    from streams.core.plan_change.machine import Rules
    from streams.core.plan_change.messages import RequestKind

    latest = {one.service_id: one for one in everybody if one.service_id in services}
    matrix = view.matrix()
    found = matrix.get(element)
    if found is None:
        note(choices.unknown("matrix element", element, matrix.keys()))
    changes: list[Change] = []
    refused: dict[str, tuple[str, ...]] = {}
    for service in dict.fromkeys(services):
        request: Request = new_request(RequestKind.ORDER, service, account, element_key=element, **about)
        if found is None:
            refused[service] = ("unknown_element",)
            continue
        validated = annotated(request, view.known(service, account))
        made = offer(validated, found, latest.get(service), view.now, Rules(hooks=HookRegistry()))
        if made.reasons:
            refused[service] = made.reasons
        if made.change is not None:
            changes.append(made.change)
    return changes, refused


def _store_problem(view: View) -> str:
    """Why the billing store could not take an outcome now, empty if it could; nothing is made where none is yet."""
    from agents.preflight import revision
    from streams.core.errors import CurfewError

    try:
        if revision(view.settings) is None:
            note("the billing store has no tables yet: `curfew up` or `curfew billing migrate` makes them")
    except CurfewError as error:
        return str(error)
    return ""


def _run(view: View, changes: Sequence[Change], *, order: bool, keep_all: bool) -> tuple[Summary, float]:
    """Run them; returns what came of it, and the seconds that it took."""
    import asyncio

    from agents.plan_changes import hooks
    from agents.plan_changes.dry_run import DryRuns
    from agents.plan_changes.dry_run_summary import Summary

    summary = Summary(keep_all=keep_all)
    runs = DryRuns(hooks.load(view.settings.hooks))
    began = time.monotonic()
    # What a hook prints is not the result of this command.
    with progress("dry run", len(changes)) as advance, redirect_stdout(sys.stderr):

        async def all_of_them(runs: DryRuns) -> None:
            async for run in runs.run_all(changes, view.now, order=order):
                summary.add(run)
                advance()

        asyncio.run(all_of_them(runs))
    return summary, time.monotonic() - began
