"""The statements that write: always for many changes at once, in an order that every constraint accepts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from sqlalchemy import Connection, Table, bindparam, insert, update
from sqlalchemy.exc import DataError, IntegrityError

from streams.core.errors import Poison
from streams.core.outcome import Outcome
from streams.core.plan_change.messages import Settlement
from streams.sinks.billing import statements
from streams.sinks.billing.decide import Write
from streams.sinks.billing.statements import Row, run_many
from streams.sinks.billing.tables import (
    commit_mark,
    fee,
    membership,
    outcome,
    service_option,
    service_plan,
    settlement,
    task,
)

Item = TypeVar("Item")


class RacedError(Exception):
    """Another transaction has decided the same thing in between: read again and decide again."""


INSERT_MEMBERSHIP = insert(membership)
INSERT_OPTION = insert(service_option)
_INSERT_FEE = insert(fee)
_INSERT_TASK = insert(task)
_END_MEMBERSHIP = (
    update(membership)
    .where(membership.c.service_id == bindparam("b_service"), membership.c.valid_from == bindparam("b_start"))
    .values(valid_to=bindparam("b_at"), ended_by=bindparam("b_change"))
)
_END_OPTION = (
    update(service_option)
    .where(
        service_option.c.service_id == bindparam("b_service"),
        service_option.c.option_id == bindparam("b_option"),
        service_option.c.valid_from < bindparam("b_at"),
        service_option.c.valid_to.is_(None) | (service_option.c.valid_to > bindparam("b_at")),
    )
    .values(valid_to=bindparam("b_at"), ended_by=bindparam("b_change"))
)
_UPDATE_MISSED = (
    update(settlement)
    .where(
        settlement.c.change_id == bindparam("b_change"),
        settlement.c.deadline == bindparam("b_deadline"),
        settlement.c.revision < bindparam("b_revision"),
    )
    .values(revision=bindparam("b_revision"), accept_late=bindparam("b_accept_late"))
)
MOVE_PLAN = (
    update(service_plan)
    .where(service_plan.c.service_id == bindparam("b_service"), service_plan.c.revision == bindparam("b_previous"))
    .values(
        revision=bindparam("b_revision"),
        rate_plan_id=bindparam("b_rate_plan"),
        product_id=bindparam("b_product"),
        change_id=bindparam("b_change"),
    )
)


def insert_new(connection: Connection, table: Table, rows: Sequence[Row]) -> int:
    """Insert what is not there yet (by any unique key); returns how many rows are new."""
    return run_many(connection, statements.insert_new(table, connection.dialect.name), rows)


def new_mark(connection: Connection) -> int:
    """A mark for this transaction, to be stamped with the time after COMMIT."""
    return int(
        connection.execute(insert(commit_mark).values(committed_at=None).returning(commit_mark.c.id)).scalar_one()
    )


def write_outcomes(connection: Connection, writes: Sequence[Write], mark: int, *, memberships: bool = True) -> None:
    """All rows of these outcomes, or all but memberships; at most one outcome per service. Raises RacedError."""
    # 1: the decision, on its unique key. Whoever comes second sees it here, not at the end.
    decisions = [_settlement_row(write.opened.outcome, mark) for write in writes if not write.after_missed]
    if decisions and insert_new(connection, settlement, decisions) < len(decisions):
        raise RacedError
    if insert_new(connection, outcome, [_outcome_row(write, mark) for write in writes]) < len(writes):
        raise RacedError
    if memberships:
        write_memberships(connection, writes)
    # 2: options, and what hangs on the outcome.
    run_many(connection, _END_OPTION, [row for write in writes for row in _ended_options(write.opened.outcome)])
    run_many(connection, INSERT_OPTION, [row for write in writes for row in _options(write.opened.outcome)])
    run_many(connection, _INSERT_FEE, [row for write in writes for row in _fees(write.opened.outcome)])
    run_many(connection, _INSERT_TASK, [row for write in writes for row in _tasks(write.opened.outcome)])


def write_memberships(connection: Connection, writes: Sequence[Write]) -> None:
    """The memberships of these outcomes."""
    # What ends goes before what begins, or they would overlap for a moment.
    run_many(connection, _END_MEMBERSHIP, [row for write in writes for row in _ended_membership(write)])
    run_many(connection, INSERT_MEMBERSHIP, [row for write in writes for row in _memberships(write.opened.outcome)])


def write_missed(connection: Connection, settlements: Sequence[Settlement], mark: int) -> None:
    """Record these deadlines as missed. Raises :class:`RacedError`."""
    rows = [
        {
            "change_id": closed.change_id,
            "deadline": closed.deadline_at,
            "decision": "missed",
            "revision": closed.revision,
            "account_id": closed.account_id,
            "service_id": closed.service_id,
            "accept_late": closed.accept_late,
            "mark_id": mark,
        }
        for closed in settlements
    ]
    if insert_new(connection, settlement, rows) < len(rows):
        raise RacedError


def update_missed(connection: Connection, settlements: Sequence[Settlement]) -> None:
    """Take over whether late writing is accepted, from newer revisions only."""
    rows = [
        {
            "b_change": closed.change_id,
            "b_deadline": closed.deadline_at,
            "b_revision": closed.revision,
            "b_accept_late": closed.accept_late,
        }
        for closed in settlements
    ]
    run_many(connection, _UPDATE_MISSED, rows)


def bisect(
    connection: Connection, items: Sequence[Item], write: Callable[[Sequence[Item]], None]
) -> list[tuple[Item, Poison]]:
    """Write all items but those that a constraint refuses, and return these with the reason.

    One bad item costs about 2 log2(n) savepoints; without one, there is a single savepoint.
    """
    if not items:
        return []
    connection.exec_driver_sql("SAVEPOINT bisect")
    try:
        write(items)
    except (IntegrityError, DataError) as error:
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT bisect")
        connection.exec_driver_sql("RELEASE SAVEPOINT bisect")
        if len(items) == 1:
            text = " ".join(str(error.orig).split())
            return [(items[0], Poison("constraint_violated", f"the billing store refuses it: {text}"))]
        half = len(items) // 2
        return [*bisect(connection, items[:half], write), *bisect(connection, items[half:], write)]
    connection.exec_driver_sql("RELEASE SAVEPOINT bisect")
    return []


def _settlement_row(written: Outcome, mark: int) -> Row:
    return {
        "change_id": written.change_id,
        "deadline": written.effective_from,
        "decision": "persisted",
        "revision": written.revision,
        "account_id": written.account_id,
        "service_id": written.service_id,
        "accept_late": False,
        "mark_id": mark,
    }


def _outcome_row(write: Write, mark: int) -> Row:
    written = write.opened.outcome
    return {
        "change_id": written.change_id,
        "revision": written.revision,
        "hash": write.opened.hash,
        "account_id": written.account_id,
        "service_id": written.service_id,
        "from_rate_plan_id": written.from_rate_plan_id,
        "to_rate_plan_id": written.to_rate_plan_id,
        "effective_from": written.effective_from,
        "silent": written.silent,
        "mark_id": mark,
        "body": write.opened.body,
    }


def _ended_membership(write: Write) -> list[Row]:
    if write.ends is None:
        return []
    written = write.opened.outcome
    return [
        {
            "b_service": written.service_id,
            "b_start": write.ends,
            "b_at": written.effective_from,
            "b_change": written.change_id,
        }
    ]


def _memberships(written: Outcome) -> list[Row]:
    return [
        {
            "service_id": written.service_id,
            "valid_from": new.valid_from,
            "valid_to": new.valid_to,
            "rate_plan_id": new.rate_plan_id,
            "product_id": written.to_product_id,
            "change_id": written.change_id,
        }
        for new in written.memberships
    ]


def _ended_options(written: Outcome) -> list[Row]:
    return [
        {
            "b_service": written.service_id,
            "b_option": option,
            "b_at": written.effective_from,
            "b_change": written.change_id,
        }
        for option in written.options_ended
    ]


def _options(written: Outcome) -> list[Row]:
    return [
        {
            "service_id": written.service_id,
            "option_id": new.option_id,
            "valid_from": new.valid_from,
            "valid_to": new.valid_to,
            "change_id": written.change_id,
        }
        for new in written.options_created
    ]


def _fees(written: Outcome) -> list[Row]:
    return [
        {
            "change_id": written.change_id,
            "position": position,
            "service_id": written.service_id,
            "account_id": written.account_id,
            "code": charged.code,
            "amount": charged.amount,
            "currency": charged.currency,
            "charged_at": written.effective_from,
        }
        for position, charged in enumerate(written.fees)
    ]


def _tasks(written: Outcome) -> list[Row]:
    return [
        {
            "change_id": written.change_id,
            "position": position,
            "kind": asked.kind.value,
            "name": asked.name,
            "release": asked.release.value,
            "details": msgspec.json.encode(asked.details).decode(),
        }
        for position, asked in enumerate(written.tasks)
    ]
