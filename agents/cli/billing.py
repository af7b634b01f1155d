"""`curfew billing`: the tables of the billing store, what is in them, and whether the topics agree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show

if TYPE_CHECKING:
    from agents.reconcile.comparison import Difference, Report
    from streams.settings import Settings
    from streams.sinks.billing import SqlBillingStore

app = typer.Typer(no_args_is_help=True, help="The billing store: tables, imports, counts; do the topics agree?")

#: A difference in the thousands has one cause; these are enough to find it.
SHOWN = 20


@app.command()
def migrate(style: TableOrJsonOption = TableOrJson.TABLE) -> None:
    """Create or update the tables of the billing store; does nothing when they are new enough.

    Workers do the same at their start. Run it before the first start where only an operator may alter tables.

    Example: CURFEW_DATABASE_URL=postgresql://curfew@db/billing curfew billing migrate
    """
    with _opened() as (_, store):
        before = store.schema_revision()
        store.migrate()
        after = store.schema_revision()
    row = {"store": str(store), "before": before, "after": after, "changed": before != after}
    show([row], style, columns=("store", "before", "after", "changed"))


@app.command(name="import")
def import_command(
    file: Annotated[
        typer.FileText, typer.Argument(help="JSON lines, one service plan each; - reads standard input.", lazy=True)
    ],
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Bring services with their present plans into the billing store, and publish them to billing.service-plan.

    A service needs this once, before its first rate plan change; one that is there already keeps the plan that it has.

    Example line: {"service_id": "svc-5001", "account_id": "acct-1001", "rate_plan_id": "basic", "product_id": "mobile",
    "memberships": [{"rate_plan_id": "basic", "valid_from": "2026-01-01T00:00:00Z"}]}

    Example: curfew billing import docs/examples/plans.jsonl
    """
    from datetime import UTC, datetime

    from agents.plan_changes.plan_import import import_plans, read_plans
    from streams.codec import Codec, Registry
    from streams.kafka.admin import admin_client, answering, require_topics
    from streams.topics import SERVICE_PLANS

    with _opened() as (settings, store):
        config = answering(settings.kafka())
        require_topics(admin_client(config), [SERVICE_PLANS])  # before the store has what nobody would hear of
        codec = Codec(Registry(settings.schema_registry_url))
        plans = read_plans(file, file.name)
        now = datetime.now(UTC)
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)  # what an Avro timestamp keeps
        imported = import_plans(store, codec, config, plans, occurred_at=now)
    show([{"imported": imported}], style, columns=("imported",))


@app.command()
def counts(style: TableOrJsonOption = TableOrJson.TABLE) -> None:
    """Count services, rows and decisions.

    Example: curfew billing counts -f json
    """
    from dataclasses import asdict

    with _opened() as (_, store):
        found = asdict(store.counts())
    if style is TableOrJson.JSON:
        show([found], style, columns=tuple(found))
    else:
        rows = [{"what": name, "count": number} for name, number in found.items()]
        show(rows, style, columns=("what", "count"))


@app.command()
def reconcile(
    limit: Annotated[int, typer.Option(min=0, help="Show so many differences; all are counted.")] = SHOWN,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Compare plan-change.outcomes and .acknowledgements with the billing store; exit code 3 if they differ.

    An outcome in dead-letters.persistence that was neither persisted nor given up since is a difference too, even
    before its deadline: nothing writes it by itself.

    May run at any time, beside the workers; it changes nothing and joins no consumer group.

    Example: curfew billing reconcile --limit 100 -f json
    """
    from agents.reconcile import comparison
    from streams.codec import Codec, Registry
    from streams.kafka.admin import answering
    from streams.settings import ClockMode

    with _opened() as (settings, store):
        config, codec, topics = (
            answering(settings.kafka()),
            Codec(Registry(settings.schema_registry_url)),
            comparison.Topics(),
        )
        wall = settings.clock is ClockMode.WALL
        now = comparison.wall_time() if wall else comparison.business_time(config, codec, topics)
        report = comparison.reconcile(config, codec, store, now=now, limit=limit, topics=topics, progress=note)
    show(
        [_row(one) for one in report.differences],
        style,
        columns=("kind", "change_id", "service_id", "revision", "deadline", "detail"),
    )
    _tell(report)
    if report.found:
        raise typer.Exit(Exit.LIMIT)


def _tell(report: Report) -> None:
    note(
        f"{report.outcomes:,} changes with outcomes in the topic ({report.waiting:,} of them before their deadline); "
        f"{report.persisted:,} persisted, {report.missed:,} missed deadlines in the billing store"
    )
    if report.retired:
        note(f"{report.retired:,} persisted changes are older than the topic: its retention has removed their outcomes")
    if report.unreadable:
        note(f"{report.unreadable:,} records cannot be read; their workers have put them into dead-letters.*")
    kinds = ", ".join(f"{number:,} {kind.value}" for kind, number in sorted(report.found.items()))
    hidden = report.found.total() - len(report.differences)
    more = f"; {hidden:,} more than shown, see --limit" if hidden else ""
    note(f"differences: {kinds}{more}" if kinds else "no difference")


def _row(one: Difference) -> dict[str, Any]:
    return {
        "kind": one.kind.value,
        "change_id": one.change_id,
        "service_id": one.service_id,
        "revision": one.revision,
        "deadline": None if one.deadline is None else one.deadline.isoformat(),
        "detail": one.detail,
    }


@contextmanager
def _opened() -> Iterator[tuple[Settings, SqlBillingStore]]:
    from streams.settings import Settings
    from streams.sinks.billing import SqlBillingStore

    settings = Settings()
    store = SqlBillingStore(settings.billing_store_url)
    try:
        yield settings, store
    finally:
        store.dispose()
