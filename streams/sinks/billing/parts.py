"""Outcomes in two parts: memberships at once, options, product, fees and tasks when they are due.

A row of ``second_part`` stands between the two. Until the second part is written there is neither a settlement nor an
outcome, so the change is not persisted for anybody; what turns the row from ``waiting`` into something else, or deletes
it, decides, and whoever finds it changed meanwhile has lost a race.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, delete, func, literal_column, null, or_, select, update
from sqlalchemy import Row as SqlRow

from streams.core.errors import Poison
from streams.core.outcome import Outcome, SealedOutcome, verify
from streams.core.plan_change.messages import CommandStep, ExecutionResult, ExecutionVerdict
from streams.sinks.billing import gather, write
from streams.sinks.billing.decide import Facts, Opened, Persisted, WaitingFact, Write
from streams.sinks.billing.port import Split
from streams.sinks.billing.statements import run_many
from streams.sinks.billing.tables import membership, outcome, second_part

_WAITING, _PERSISTED, _REFUSED = "waiting", "persisted", "refused"

_ANY = select(second_part.c.change_id).limit(1)
_KNOWN = select(
    second_part.c.change_id,
    second_part.c.service_id,
    second_part.c.revision,
    second_part.c.hash,
    second_part.c.effective_from,
).where(
    second_part.c.state == _WAITING,
    or_(
        second_part.c.change_id.in_(bindparam("changes", expanding=True)),
        second_part.c.service_id.in_(bindparam("services", expanding=True)),
    ),
)
_HELD = select(second_part.c.change_id, second_part.c.service_id, second_part.c.held_from, second_part.c.held_to).where(
    second_part.c.change_id.in_(bindparam("changes", expanding=True))
)
_DUE = (
    select(second_part, outcome.c.mark_id)
    .join_from(second_part, outcome, outcome.c.change_id == second_part.c.change_id, isouter=True)
    .where(second_part.c.partition == bindparam("in_partition"), second_part.c.due_at <= bindparam("now"))
    .order_by(second_part.c.due_at, second_part.c.change_id)  # the index's order, and that of the deadlines
    .limit(bindparam("most"))
)
_NEXT_DUE = select(func.min(second_part.c.due_at, type_=second_part.c.due_at.type)).where(
    second_part.c.partition == bindparam("in_partition")
)
_WAITS = second_part.c.state == literal_column(f"'{_WAITING}'")
_NAMED = second_part.c.change_id.in_(bindparam("changes", expanding=True))
_FORGET = delete(second_part).where(_NAMED, ~_WAITS)
_DELETE_WAITING = delete(second_part).where(_NAMED, _WAITS)
_ANSWER = (
    update(second_part)
    .where(second_part.c.change_id == bindparam("b_change"), _WAITS)
    .values(state=bindparam("b_state"), reason=bindparam("b_reason"))
)
_DELETE_MEMBERSHIPS = delete(membership).where(
    membership.c.service_id == bindparam("b_service"), membership.c.change_id == bindparam("b_change")
)
_REOPEN_MEMBERSHIP = (
    update(membership)
    .where(
        membership.c.service_id == bindparam("b_service"),
        membership.c.valid_from == bindparam("b_start"),
        membership.c.ended_by == bindparam("b_change"),
    )
    .values(valid_to=bindparam("b_end"), ended_by=null())
)
_SET_PRODUCT = (
    update(membership)
    .where(membership.c.service_id == bindparam("b_service"), membership.c.change_id == bindparam("b_change"))
    .values(product_id=bindparam("b_product"))
)
_decoder = msgspec.json.Decoder(Outcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A finished second part: the result that it belongs to, and what became of it."""

    result: ExecutionResult
    fact: Persisted | Poison


def know(connection: Connection, change_ids: Sequence[str], service_ids: Sequence[str], facts: Facts) -> None:
    """Add what waits of these changes and services to ``facts``."""
    # Where outcomes are written whole the table is empty, and this costs nothing that can be measured.
    if connection.execute(_ANY).first() is None:
        return
    for row in connection.execute(_KNOWN, {"changes": list(change_ids), "services": list(service_ids)}):
        half = WaitingFact(
            change_id=row.change_id,
            service_id=row.service_id,
            revision=row.revision,
            hash=row.hash,
            effective_from=row.effective_from,
        )
        facts.waiting[row.change_id] = facts.waiting_services[row.service_id] = half


def write_first(connection: Connection, writes: Sequence[Write], split: Split) -> None:
    """Memberships now, a row for the rest. Raises :class:`~streams.sinks.billing.write.RacedError`."""
    # A refused one that was redriven under another setting may still be there.
    forget(connection, [one.opened.outcome.change_id for one in writes])
    rows = [_row(one, split) for one in writes]
    if write.insert_new(connection, second_part, rows) < len(rows):
        raise write.RacedError
    write.write_memberships(connection, [_with_the_old_product(one) for one in writes])


def take_back(connection: Connection, change_ids: Sequence[str]) -> None:
    """Undo the first part of these changes and forget them. Raises RacedError if one does not wait any more."""
    if not change_ids:
        return
    _undo(connection, change_ids)
    if connection.execute(_DELETE_WAITING, {"changes": list(change_ids)}).rowcount < len(change_ids):
        raise write.RacedError


def finish(connection: Connection, partition: int, at: datetime, limit: int) -> list[Done]:
    """Write the second parts that are due, inside the caller's transaction; answers of earlier times come again."""
    due = connection.execute(_DUE, {"in_partition": partition, "now": at, "most": limit}).all()
    settled = gather.decisions(connection, [row.change_id for row in due]).settled
    facts: dict[str, Persisted | Poison] = {}
    writes: dict[str, Write] = {}
    for row in due:
        own = settled.get((row.change_id, row.effective_from))
        after_missed = own is not None and own.missed
        if row.state == _WAITING:
            opened = Opened(outcome=_decoder.decode(row.body), hash=row.hash, body=row.body)
            writes[row.change_id] = Write(opened=opened, ends=None, held_to=None, after_missed=after_missed)
        elif row.state == _REFUSED:
            facts[row.change_id] = Poison(*row.reason.split(": ", 1))
        else:
            facts[row.change_id] = Persisted(
                mark_id=row.mark_id, deadline=row.effective_from, after_missed=after_missed
            )
    facts.update(_write_second(connection, writes))
    return [Done(result=_result(row), fact=facts[row.change_id]) for row in due]


def forget(connection: Connection, change_ids: Sequence[str]) -> None:
    """Delete the rows whose answers are durable."""
    connection.execute(_FORGET, {"changes": list(change_ids)})


def next_due(connection: Connection, partition: int) -> datetime | None:
    """The first instant at which there is something to finish (or to answer again)."""
    found: datetime | None = connection.execute(_NEXT_DUE, {"in_partition": partition}).scalar_one()
    return found


def _write_second(connection: Connection, writes: Mapping[str, Write]) -> Iterator[tuple[str, Persisted | Poison]]:
    if not writes:
        return
    mark = write.new_mark(connection)
    refused = {change_id: _broken(one.opened) for change_id, one in writes.items() if not _intact(one.opened)}
    sound = [one for change_id, one in writes.items() if change_id not in refused]

    def write_some(some: Sequence[Write]) -> None:
        write.write_outcomes(connection, some, mark, memberships=False)
        outcomes = [one.opened.outcome for one in some]
        products = [
            {"b_service": one.service_id, "b_change": one.change_id, "b_product": one.to_product_id}
            for one in outcomes
            if one.from_product_id != one.to_product_id
        ]
        run_many(connection, _SET_PRODUCT, products)
        _answer(connection, {one.change_id: None for one in outcomes})

    refused |= {one.opened.outcome.change_id: poison for one, poison in write.bisect(connection, sound, write_some)}
    if refused:
        _undo(connection, list(refused))
        _answer(connection, refused)
    for change_id, one in writes.items():
        deadline = one.opened.outcome.effective_from
        yield (
            change_id,
            refused.get(change_id) or Persisted(mark_id=mark, deadline=deadline, after_missed=one.after_missed),
        )


def _answer(connection: Connection, answers: Mapping[str, Poison | None]) -> None:
    rows = [
        {
            "b_change": change_id,
            "b_state": _PERSISTED if poison is None else _REFUSED,
            "b_reason": None if poison is None else f"{poison.reason}: {poison.detail}",
        }
        for change_id, poison in answers.items()
    ]
    if run_many(connection, _ANSWER, rows) < len(rows):
        raise write.RacedError


def _undo(connection: Connection, change_ids: Sequence[str]) -> None:
    held = connection.execute(_HELD, {"changes": list(change_ids)}).all()
    # What began goes before what it ended comes back, or they would overlap for a moment.
    began = [{"b_service": row.service_id, "b_change": row.change_id} for row in held]
    run_many(connection, _DELETE_MEMBERSHIPS, began)
    reopened = [
        {"b_service": row.service_id, "b_start": row.held_from, "b_end": row.held_to, "b_change": row.change_id}
        for row in held
        if row.held_from is not None
    ]
    run_many(connection, _REOPEN_MEMBERSHIP, reopened)


def _intact(opened: Opened) -> bool:
    return verify(SealedOutcome(outcome=opened.outcome, hash=opened.hash))


def _broken(opened: Opened) -> Poison:
    change_id = opened.outcome.change_id
    return Poison("bad_seal", f"the outcome of change {change_id} in table second_part is not what was sealed")


def _with_the_old_product(one: Write) -> Write:
    written = one.opened.outcome
    return replace(one, opened=replace(one.opened, outcome=replace(written, to_product_id=written.from_product_id)))


def _row(one: Write, split: Split) -> dict[str, Any]:
    written = one.opened.outcome
    return {
        "change_id": written.change_id,
        "revision": written.revision,
        "hash": one.opened.hash,
        "account_id": written.account_id,
        "service_id": written.service_id,
        "effective_from": written.effective_from,
        "due_at": split.due_at(written.effective_from),
        "partition": split.partition,
        "held_from": one.ends,
        "held_to": one.held_to,
        "state": _WAITING,
        "reason": None,
        "body": one.opened.body,
    }


def _result(row: SqlRow[Any]) -> ExecutionResult:
    """The executor's result, as far as it can be told from its outcome: which attempt it was is forgotten."""
    sealed = SealedOutcome(outcome=_decoder.decode(row.body), hash=row.hash)
    return ExecutionResult(
        command_id=sealed.outcome.command_id,
        step=CommandStep.EXECUTE,
        attempt=1,
        change_id=row.change_id,
        revision=row.revision,
        account_id=row.account_id,
        service_id=row.service_id,
        verdict=ExecutionVerdict.SEALED,
        reason=None,
        retryable=False,
        sealed=sealed,
        finished_at=sealed.outcome.sealed_at,
    )
