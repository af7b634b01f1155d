"""How `dry-run` prints: one JSON object, or tables of changes, hooks and deadlines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import typer

from agents.cli.output import TableOrJson, note, show
from agents.cli.plan_changes.options import span, utc
from agents.plan_changes.reasons import in_words

if TYPE_CHECKING:
    from agents.plan_changes.dry_run import DryRun
    from agents.plan_changes.dry_run_summary import HookTimes, Summary
    from streams.core.outcome import Outcome
    from streams.core.plan_change.machine import Change
    from streams.core.plan_change.projection import Projection

# Failing changes in a table; a screen full of them says no more than their reasons, which are counted.
_ROWS = 50


@dataclass(slots=True, kw_only=True)
class Report:
    """``changes`` were asked for, of which ``summary`` has run some; ``others`` are all that the scheduler has.

    ``each``: time between two changes that the projection counts with. ``store``: why nothing could be persisted now,
    empty if it could.
    """

    now: datetime
    summary: Summary
    found: int
    refused: Mapping[str, tuple[str, ...]]
    each: timedelta
    changes: Sequence[Change]
    others: Sequence[Change]
    store: str = ""
    projected: list[tuple[Projection, list[str], int]] = field(init=False)

    def __post_init__(self) -> None:
        from agents.plan_changes.dry_run import waiting
        from streams.core.plan_change.projection import project

        of_services = {one.service_id: one for one in (*self.others, *self.changes)}
        work = [found for one in of_services.values() if (found := waiting(one, self.now)) is not None]
        everything = project(work, self.now, self.each)
        wanted = Counter(one.deadline_at for one in self.changes)
        zones: dict[datetime, set[str]] = {at: set() for at in wanted}
        for one in self.changes:
            zones[one.deadline_at].add(one.zone)
        self.projected = [(everything[at], sorted(zones[at]), wanted[at]) for at in sorted(wanted) if at in everything]

    @property
    def over_limit(self) -> bool:
        """Whether a change would fail, come too late or wait for a person, or could not be persisted."""
        late = any(projection.slack < timedelta(0) for projection, _, _ in self.projected)
        return bool(self.summary.failing or self.summary.waiting or self.refused or self.store or late)


def print_report(report: Report, style: TableOrJson) -> None:
    """The result on stdout, remarks about it on stderr."""
    if style is TableOrJson.JSON:
        typer.echo(json.dumps(_as_json(report), indent=2, ensure_ascii=False, default=str))
        return
    summary = report.summary
    if len(summary.runs) == 1 and report.found == 1:
        _print_one(summary.runs[0])
    elif summary.runs:
        columns = ("service_id", "account_id", "element", "zone", "deadline_at", "would", "reasons")
        show([_change_json(run) for run in summary.runs[:_ROWS]], style, columns=columns)
        if len(summary.runs) > _ROWS:
            note(f"{len(summary.runs) - _ROWS} more would fail or wait; -f json has them all")
    for service, reasons in report.refused.items():
        typer.echo(f"service {service}: an order would be refused: {', '.join(reasons)}")
    if summary.hooks:
        show([_hook_json(one) for one in summary.hooks.values()], style, columns=(
            "hook", "point", "calls", "proceed", "adjust", "abort", "failed", "timeout", "mean_ms", "longest_ms",
            "budget_ms",
        ))  # fmt: skip
    rows = [_projection_json(*one) for one in report.projected]
    show(rows, style, columns=("deadline_at", "zones", "asked_for", "remaining", "finish_at", "slack"))
    waiting = f", {summary.waiting} wait for a person" if summary.waiting else ""
    typer.echo(
        f"{summary.count} of {report.found} changes run, {summary.failing} would fail{waiting}; projected with "
        f"{1 / report.each.total_seconds():,.0f} changes/s from {utc(report.now)} on"
    )
    for change in [run.change for run in summary.runs if run.waits_for is not None][:_ROWS]:
        typer.echo(_wait(change))
    if report.store:
        typer.echo(f"nothing could be persisted now: {report.store}")
    for line in in_words([*summary.reasons, *(reason for all in report.refused.values() for reason in all)]):
        typer.echo(line)


def _print_one(run: DryRun) -> None:
    row = _change_json(run)
    fields = {name: row[name] for name in (
        "service_id", "account_id", "element", "state", "effective_date", "zone", "start_at", "deadline_at", "would",
        "reasons", "violations",
    )}  # fmt: skip
    if run.outcome is not None:
        fields |= {name: value for name, value in row["outcome"].items() if name != "tasks"}
        fields["tasks"] = [f"{one['name']} ({one['kind']}, {one['release']})" for one in row["outcome"]["tasks"]]
        fields["memberships"] = [
            f"{one['rate_plan_id']} from {one['valid_from']}" + (f" to {one['valid_to']}" if one["valid_to"] else "")
            for one in row["outcome"]["memberships"]
        ]
    table = TableOrJson.TABLE
    show([{"field": name, "value": value} for name, value in fields.items()], table, columns=("field", "value"))
    show(row["steps"], table, columns=("step", "verdict", "reason", "retryable"))
    if row["hooks"]:
        show(row["hooks"], table, columns=("hook", "point", "verdict", "detail", "ms", "budget_ms", "on_failure"))


def _wait(change: Change) -> str:
    command = f"curfew plan-changes {{}} {change.service_id} --account {change.account_id}"
    resolve = f"{command.format('resolve')} --finish-late, --roll or --abandon"
    if change.state == "held":
        return f"service {change.service_id} is held, nothing happens before: {resolve}"
    return f"service {change.service_id} has failed, nothing happens before: {command.format('retry')}, or {resolve}"


def _as_json(report: Report) -> dict[str, Any]:
    summary = report.summary
    return {
        "now": utc(report.now),
        "found": report.found,
        "run": summary.count,
        "would_fail": summary.failing,
        "wait_for_a_person": summary.waiting,
        "billing_store_problem": report.store or None,
        "reasons": dict(summary.reasons),
        "refused": {service: list(reasons) for service, reasons in report.refused.items()},
        "changes_per_second": round(1 / report.each.total_seconds(), 3),
        "deadlines": [_projection_json(*one) for one in report.projected],
        "hooks": [_hook_json(one) for one in summary.hooks.values()],
        "changes": [_change_json(run) for run in summary.runs],
    }


def _change_json(run: DryRun) -> dict[str, Any]:
    change = run.change
    return {
        "service_id": change.service_id,
        "account_id": change.account_id,
        "change_id": change.change_id,
        "revision": change.revision,
        "element": change.element.key,
        "state": change.state.value,
        "effective_date": change.effective_date.isoformat(),
        "zone": change.zone,
        "start_at": utc(change.start_at),
        "deadline_at": utc(change.deadline_at),
        "would": "fail" if run.reasons else "succeed" if run.waits_for is None else f"wait for {run.waits_for}",
        "waits_for": run.waits_for,
        "reasons": list(run.reasons),
        "violations": list(run.violations),
        "steps": [
            {"step": end.step.value, "verdict": end.verdict.value, "reason": end.reason, "retryable": end.retryable}
            for end in run.steps
        ],
        "hooks": [
            {
                "hook": call.hook.name,
                "point": call.point.value,
                "verdict": call.end.value,
                "detail": call.detail,
                "ms": round(call.seconds * 1000, 1),
                "budget_ms": round(call.hook.budget_seconds * 1000),
                "on_failure": call.hook.on_failure.value,
            }
            for call in run.calls
        ],
        "outcome": None if run.outcome is None else _outcome_json(run.outcome),
    }


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "to_rate_plan_id": outcome.to_rate_plan_id,
        "to_product_id": outcome.to_product_id,
        "memberships": [
            {
                "rate_plan_id": one.rate_plan_id,
                "valid_from": utc(one.valid_from),
                "valid_to": None if one.valid_to is None else utc(one.valid_to),
            }
            for one in outcome.memberships
        ],
        "options_created": [one.option_id for one in outcome.options_created],
        "options_ended": list(outcome.options_ended),
        "fees": [f"{fee.code} {fee.amount} {fee.currency}" for fee in outcome.fees],
        "tasks": [
            {"kind": str(one.kind), "name": one.name, "release": str(one.release), "details": one.details}
            for one in outcome.tasks
        ],
    }


def _hook_json(times: HookTimes) -> dict[str, Any]:
    from agents.plan_changes.steps import HookEnd

    return {
        "hook": times.hook,
        "point": times.point,
        "calls": times.calls,
        **{end.value: times.ends[end] for end in HookEnd},
        "mean_ms": round(times.seconds / times.calls * 1000, 1),
        "longest_ms": round(times.longest * 1000, 1),
        "budget_ms": round(times.budget_seconds * 1000),
    }


def _projection_json(projection: Projection, zones: list[str], asked_for: int) -> dict[str, Any]:
    return {
        "deadline_at": utc(projection.deadline_at),
        "zones": zones,
        "asked_for": asked_for,
        "remaining": projection.remaining,
        "finish_at": utc(projection.finish_at),
        "slack": span(projection.slack),
        "slack_seconds": round(projection.slack.total_seconds(), 3),
    }
