"""Plans as the world sees them: their first revision at the import, the next one when a change becomes true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, insert, select

from streams.core.errors import Misconfigured, Poison
from streams.core.objects import Op, ServicePlan, ServicePlanChange
from streams.core.outcome import Outcome
from streams.core.plan_change.messages import Acknowledgement, AcknowledgementKind, Settlement
from streams.sinks.billing import write
from streams.sinks.billing.decide import Persisted, check_settlement, effective_plan
from streams.sinks.billing.port import Released
from streams.sinks.billing.settle import is_late, waves
from streams.sinks.billing.statements import run_many
from streams.sinks.billing.tables import (
    outcome,
    plan_revision,
    service_plan,
    settlement,
)

#: ``source`` of the changes of service plans: who has made them.
SOURCE = "billing-store"

_change_decoder = msgspec.json.Decoder(ServicePlanChange)
_outcome_decoder = msgspec.json.Decoder(Outcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class Freed:
    """A released change: what to publish, the mark of its release, and how it was persisted."""

    change: ServicePlanChange
    mark_id: int
    persisted: Persisted


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    """What is known of a change that shall be released; ``released`` if it is already."""

    persisted: Persisted
    outcome: Outcome
    released: ServicePlanChange | None
    release_mark_id: int | None


_WAITING = (
    select(
        outcome.c.change_id,
        outcome.c.body,
        outcome.c.mark_id,
        outcome.c.effective_from,
        settlement.c.decision,
        plan_revision.c.body.label("released"),
        plan_revision.c.mark_id.label("release_mark_id"),
    )
    .join_from(
        outcome,
        settlement,
        (settlement.c.change_id == outcome.c.change_id) & (settlement.c.deadline == outcome.c.effective_from),
    )
    .join(plan_revision, plan_revision.c.change_id == outcome.c.change_id, isouter=True)
    .where(outcome.c.change_id.in_(bindparam("changes", expanding=True)))
)
_CURRENT = (
    select(plan_revision.c.service_id, plan_revision.c.body)
    .join_from(
        service_plan,
        plan_revision,
        (plan_revision.c.service_id == service_plan.c.service_id)
        & (plan_revision.c.revision == service_plan.c.revision),
    )
    .where(service_plan.c.service_id.in_(bindparam("services", expanding=True)))
)
_FIRST = select(plan_revision.c.service_id, plan_revision.c.body).where(
    plan_revision.c.service_id.in_(bindparam("services", expanding=True)), plan_revision.c.revision == 1
)
_INSERT_REVISION = insert(plan_revision)


def current(connection: Connection, service_ids: Sequence[str]) -> dict[str, ServicePlanChange]:
    """The newest published revision of these services' plans."""
    rows = connection.execute(_CURRENT, {"services": list(service_ids)})
    return {row.service_id: _change_decoder.decode(row.body) for row in rows}


def release(connection: Connection, settlements: Sequence[Settlement]) -> dict[int, Freed | Poison]:
    """Publish these changes' plans, inside the caller's transaction; what was published before comes out again."""
    facts: dict[int, Freed | Poison] = {}
    mark: int | None = None
    refused = {index: check_settlement(settlement) for index, settlement in enumerate(settlements)}
    facts.update({index: poison for index, poison in refused.items() if poison is not None})
    for wave in waves({index: settlements[index] for index in refused if index not in facts}):
        waiting = _waiting(connection, [settlements[index].change_id for index in wave])
        plans = current(connection, [found.outcome.service_id for found in waiting.values()])
        freed: dict[str, tuple[int, Freed]] = {}
        for index in wave:
            found = waiting.get(settlements[index].change_id)
            if found is None:
                facts[index] = _nothing_to_release(settlements[index])
            elif found.released is not None and found.release_mark_id is not None:
                facts[index] = Freed(change=found.released, mark_id=found.release_mark_id, persisted=found.persisted)
            else:
                mark = mark or write.new_mark(connection)
                try:
                    change = _next_revision(plans[found.outcome.service_id], found.outcome)
                except Poison as poison:
                    facts[index] = poison
                    continue
                freed[found.outcome.service_id] = index, Freed(change=change, mark_id=mark, persisted=found.persisted)
        facts.update(dict(freed.values()))
        _write_revisions(connection, [one for _, one in freed.values()])
    return facts


def _waiting(connection: Connection, change_ids: Sequence[str]) -> dict[str, _Waiting]:
    return {
        row.change_id: _Waiting(
            persisted=Persisted(
                mark_id=row.mark_id, deadline=row.effective_from, after_missed=row.decision == "missed"
            ),
            outcome=_outcome_decoder.decode(row.body),
            released=None if row.released is None else _change_decoder.decode(row.released),
            release_mark_id=row.release_mark_id,
        )
        for row in connection.execute(_WAITING, {"changes": list(change_ids)})
    }


def _nothing_to_release(settlement: Settlement) -> Poison:
    return Poison(
        "nothing_persisted",
        f"change {settlement.change_id} is to be released and the billing store has no outcome of it: was the database "
        "restored from an older backup? Compare it with plan-change.outcomes, then redrive",
    )


def _next_revision(newest: ServicePlanChange, outcome: Outcome) -> ServicePlanChange:
    # The instant at which it became true, not the one at which someone noticed: a repeated release is the same record.
    return ServicePlanChange(
        op=Op.UPDATED,
        previous=newest.subject,
        current=effective_plan(newest.subject, outcome),
        revision=newest.revision + 1,
        occurred_at=outcome.effective_from,
        source=SOURCE,
    )


def _write_revisions(connection: Connection, freed: Sequence[Freed]) -> None:
    if not freed:
        return
    rows = [_revision_row(one.change, one.mark_id) for one in freed]
    if write.insert_new(connection, plan_revision, rows) < len(rows):
        raise write.RacedError
    moves = [
        {
            "b_service": plan.service_id,
            "b_previous": one.change.revision - 1,
            "b_revision": one.change.revision,
            "b_rate_plan": plan.rate_plan_id,
            "b_product": plan.product_id,
            "b_change": plan.change_id,
        }
        for one, plan in ((one, one.change.subject) for one in freed)
    ]
    run_many(connection, write.MOVE_PLAN, moves)


def _revision_row(change: ServicePlanChange, mark: int | None) -> Mapping[str, Any]:
    return {
        "service_id": change.subject.service_id,
        "revision": change.revision,
        "change_id": change.subject.change_id,
        "mark_id": mark,
        "body": msgspec.json.encode(change).decode(),
    }


def answer(settlement: Settlement, freed: Freed, stamps: Mapping[int, datetime]) -> Released:
    """What to send for a released change; ``late`` tells how it was persisted, not when it was released."""
    return Released(
        change=freed.change,
        acknowledgement=Acknowledgement(
            kind=AcknowledgementKind.RELEASED,
            change_id=settlement.change_id,
            revision=settlement.revision,
            account_id=settlement.account_id,
            service_id=settlement.service_id,
            committed_at=stamps[freed.mark_id],
            late=is_late(freed.persisted, stamps),
        ),
    )


def load(connection: Connection, plans: Sequence[ServicePlan], occurred_at: datetime) -> list[ServicePlanChange]:
    """Import plans as revision 1; returns the first revision of each, also of those that were there before."""
    unique = {plan.service_id: plan for plan in plans}
    if not unique:
        return []
    before = _first_revisions(connection, list(unique))
    added = [plan for service_id, plan in unique.items() if service_id not in before]
    headers = [
        {
            "service_id": plan.service_id,
            "account_id": plan.account_id,
            "product_id": plan.product_id,
            "rate_plan_id": plan.rate_plan_id,
            "revision": 1,
            "change_id": plan.change_id,
        }
        for plan in added
    ]
    if write.insert_new(connection, service_plan, headers) < len(headers):
        raise write.RacedError

    def write_some(some: Sequence[ServicePlan]) -> None:
        run_many(connection, write.INSERT_MEMBERSHIP, [row for plan in some for row in _memberships(plan)])
        run_many(connection, write.INSERT_OPTION, [row for plan in some for row in _options(plan)])

    for refused, poison in write.bisect(connection, added, write_some):
        raise Misconfigured(f"the plan of service {refused.service_id} cannot be imported, nothing was: {poison}")
    first = {
        plan.service_id: ServicePlanChange(
            op=Op.CREATED, current=plan, revision=1, occurred_at=occurred_at, source=SOURCE
        )
        for plan in added
    }
    run_many(connection, _INSERT_REVISION, [_revision_row(change, None) for change in first.values()])
    first.update(before)
    return [first[service_id] for service_id in unique]


def _first_revisions(connection: Connection, service_ids: Sequence[str]) -> dict[str, ServicePlanChange]:
    rows = connection.execute(_FIRST, {"services": list(service_ids)})
    return {row.service_id: _change_decoder.decode(row.body) for row in rows}


def _memberships(plan: ServicePlan) -> list[Mapping[str, Any]]:
    return [
        {
            "service_id": plan.service_id,
            "valid_from": held.valid_from,
            "valid_to": held.valid_to,
            "rate_plan_id": held.rate_plan_id,
            "product_id": plan.product_id,
            "change_id": plan.change_id,
        }
        for held in plan.memberships
    ]


def _options(plan: ServicePlan) -> list[Mapping[str, Any]]:
    return [
        {
            "service_id": plan.service_id,
            "option_id": held.option_id,
            "valid_from": held.valid_from,
            "valid_to": held.valid_to,
            "change_id": plan.change_id,
        }
        for held in plan.options
    ]
