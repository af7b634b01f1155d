"""Reading the billing store: counts, decisions, and outcomes compared with the rows that they made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Table, bindparam, func, select, tuple_

from streams.core.outcome import Outcome
from streams.sinks.billing.port import Counts, Settled, StoredOutcome
from streams.sinks.billing.tables import (
    commit_mark,
    fee,
    membership,
    outcome,
    plan_revision,
    service_option,
    service_plan,
    settlement,
    task,
)

#: Decisions read at once: a report over a million changes must neither hold them all nor keep a transaction open for
#: minutes (on SQLite that would stop the write-ahead log from being cut, and it would fill the disk).
PAGE = 5_000

_DECISIONS = (
    select(
        settlement.c.change_id,
        settlement.c.account_id,
        settlement.c.service_id,
        settlement.c.deadline,
        settlement.c.decision,
        outcome.c.revision,
        outcome.c.hash,
        commit_mark.c.committed_at,
        plan_revision.c.revision.label("plan_revision"),
    )
    .join_from(
        settlement,
        outcome,
        (outcome.c.change_id == settlement.c.change_id) & (outcome.c.effective_from == settlement.c.deadline),
        isouter=True,
    )
    .join(commit_mark, commit_mark.c.id == outcome.c.mark_id, isouter=True)
    .join(plan_revision, plan_revision.c.change_id == outcome.c.change_id, isouter=True)
    .order_by(settlement.c.change_id, settlement.c.deadline)
)

_outcome_decoder = msgspec.json.Decoder(Outcome)


def page(connection: Connection, after: Settled | None) -> list[Settled]:
    """The next decisions, at most :data:`PAGE`, in the order of change id and deadline."""
    statement = _DECISIONS.limit(PAGE)
    if after is not None:
        key = tuple_(settlement.c.change_id, settlement.c.deadline)
        statement = statement.where(
            key > tuple_(after.change_id, bindparam("deadline", after.deadline, settlement.c.deadline.type))
        )
    return [
        Settled(
            change_id=row.change_id,
            account_id=row.account_id,
            service_id=row.service_id,
            deadline=row.deadline,
            missed=row.decision == "missed",
            revision=row.revision,
            hash=row.hash,
            committed_at=row.committed_at,
            plan_revision=row.plan_revision,
        )
        for row in connection.execute(statement)
    ]


def counts(connection: Connection) -> Counts:
    """How much there is, in one consistent view."""

    def count(table: Table, *where: Any) -> int:
        return int(connection.execute(select(func.count()).select_from(table).where(*where)).scalar_one())

    persisted = outcome.join(commit_mark, commit_mark.c.id == outcome.c.mark_id).join(
        settlement,
        (settlement.c.change_id == outcome.c.change_id) & (settlement.c.deadline == outcome.c.effective_from),
    )
    is_late = (settlement.c.decision == "missed") | (commit_mark.c.committed_at >= outcome.c.effective_from)
    late = select(func.count()).select_from(persisted).where(is_late)
    unconfirmed = select(func.count()).select_from(persisted).where(commit_mark.c.committed_at.is_(None))
    return Counts(
        services=count(service_plan),
        memberships=count(membership),
        options=count(service_option),
        persisted=count(outcome),
        missed=count(settlement, settlement.c.decision == "missed"),
        late=int(connection.execute(late).scalar_one()),
        released=count(plan_revision, plan_revision.c.mark_id.is_not(None)),
        unconfirmed=int(connection.execute(unconfirmed).scalar_one()),
        fees=count(fee),
        tasks=count(task),
    )


def outcomes(connection: Connection, change_ids: Sequence[str]) -> dict[str, StoredOutcome]:
    """These outcomes, each compared with its rows."""
    made = {table: _by_change(connection, table, change_ids) for table in (membership, service_option, fee, task)}
    statement = select(outcome.c.change_id, outcome.c.hash, outcome.c.body).where(outcome.c.change_id.in_(change_ids))
    found: dict[str, StoredOutcome] = {}
    for row in connection.execute(statement):
        body = _outcome_decoder.decode(row.body)
        rows = {table.name: by_change[row.change_id] for table, by_change in made.items()}
        found[row.change_id] = StoredOutcome(outcome=body, hash=row.hash, rows_match=_match(body, rows))
    return found


def _by_change(connection: Connection, table: Table, change_ids: Sequence[str]) -> dict[str, list[Row[Any]]]:
    found: dict[str, list[Row[Any]]] = defaultdict(list)
    order = table.c.position if "position" in table.c else table.c.valid_from
    for row in connection.execute(select(table).where(table.c.change_id.in_(change_ids)).order_by(order)):
        found[row.change_id].append(row)
    return found


def _match(body: Outcome, rows: dict[str, list[Row[Any]]]) -> bool:
    # A later change may have ended what this one began, so only the starts are compared.
    memberships = [(row.rate_plan_id, row.product_id, row.valid_from) for row in rows["membership"]]
    options = sorted((row.option_id, row.valid_from) for row in rows["service_option"])
    fees = [(row.code, Decimal(row.amount), row.currency) for row in rows["fee"]]
    tasks = [(row.kind, row.name, row.release, msgspec.json.decode(row.details)) for row in rows["task"]]
    return (
        memberships
        == sorted(
            ((new.rate_plan_id, body.to_product_id, new.valid_from) for new in body.memberships), key=lambda new: new[2]
        )
        and options == sorted((new.option_id, new.valid_from) for new in body.options_created)
        and fees == [(charged.code, charged.amount, charged.currency) for charged in body.fees]
        and tasks == [(asked.kind, asked.name, asked.release, asked.details) for asked in body.tasks]
    )
