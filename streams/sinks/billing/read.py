"""Reading the billing store: counts, decisions, and outcomes compared with the rows that they made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import Column, Connection, Row, Table, bindparam, func, select, tuple_

from streams.core.outcome import Outcome
from streams.sinks.billing.port import Counts, Settled, StoredOutcome
from streams.sinks.billing.tables import (
    commit_mark,
    fee,
    membership,
    outcome,
    plan_revision,
    second_part,
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
        waiting=count(second_part, second_part.c.state == "waiting"),
    )


def outcomes(connection: Connection, change_ids: Sequence[str]) -> dict[str, StoredOutcome]:
    """These outcomes, each compared with its rows."""
    statement = select(outcome.c.change_id, outcome.c.hash, outcome.c.body).where(outcome.c.change_id.in_(change_ids))
    found = [(row.hash, _outcome_decoder.decode(row.body)) for row in connection.execute(statement)]
    services = sorted({body.service_id for _, body in found})
    # By service: its id begins the primary keys, while a search by change id would read the whole table.
    memberships = _grouped(connection, membership, membership.c.service_id, services)
    options = _grouped(connection, service_option, service_option.c.service_id, services)
    fees = _grouped(connection, fee, fee.c.change_id, change_ids)
    tasks = _grouped(connection, task, task.c.change_id, change_ids)
    return {
        body.change_id: StoredOutcome(
            outcome=body,
            hash=seal,
            differing=_differing(
                body,
                memberships[body.service_id],
                options[body.service_id],
                fees[body.change_id],
                tasks[body.change_id],
            ),
        )
        for seal, body in found
    }


def _grouped(connection: Connection, table: Table, by: Column[Any], ids: Sequence[str]) -> dict[str, list[Row[Any]]]:
    found: dict[str, list[Row[Any]]] = defaultdict(list)
    order = table.c.position if "position" in table.c else table.c.valid_from
    for row in connection.execute(select(table).where(by.in_(ids)).order_by(order)):
        found[getattr(row, by.name)].append(row)
    return found


def _differing(
    body: Outcome,
    memberships: Sequence[Row[Any]],
    options: Sequence[Row[Any]],
    fees: Sequence[Row[Any]],
    tasks: Sequence[Row[Any]],
) -> tuple[str, ...]:
    charged = [(row.code, Decimal(row.amount), row.currency) for row in fees]
    asked = [(row.kind, row.name, row.release, msgspec.json.decode(row.details)) for row in tasks]
    equal = {
        "membership": _memberships_match(body, memberships),
        "service_option": _options_match(body, options),
        "fee": charged == [(one.code, one.amount, one.currency) for one in body.fees],
        "task": asked == [(one.kind, one.name, one.release, one.details) for one in body.tasks],
    }
    return tuple(table for table, same in equal.items() if not same)


def _memberships_match(body: Outcome, rows: Sequence[Row[Any]]) -> bool:
    # A later change may have ended what this one began, so only the starts are compared.
    new = [(row.rate_plan_id, row.product_id, row.valid_from) for row in rows if row.change_id == body.change_id]
    wanted = [(one.rate_plan_id, body.to_product_id, one.valid_from) for one in body.memberships]
    ended = any(row.rate_plan_id == body.from_rate_plan_id and row.valid_to == body.effective_from for row in rows)
    return ended and new == sorted(wanted, key=lambda one: one[2])


def _options_match(body: Outcome, rows: Sequence[Row[Any]]) -> bool:
    at = body.effective_from
    new = sorted((row.option_id, row.valid_from) for row in rows if row.change_id == body.change_id)
    ended = all(row.valid_to == at for row in rows if row.ended_by == body.change_id)
    still_there = any(
        row.option_id in body.options_ended and row.valid_from < at and (row.valid_to is None or row.valid_to > at)
        for row in rows
    )
    return ended and not still_there and new == sorted((one.option_id, one.valid_from) for one in body.options_created)
