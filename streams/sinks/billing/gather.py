"""Read what the store knows about the changes and services of a chunk, in two queries whatever its size."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, and_, bindparam, or_, select

from streams.core.objects import Membership
from streams.sinks.billing.decide import Facts, OutcomeFact, ServiceFact, SettledFact
from streams.sinks.billing.tables import membership, outcome, service_plan, settlement

_DECISIONS = (
    select(
        settlement.c.change_id,
        settlement.c.deadline,
        settlement.c.decision,
        settlement.c.revision,
        settlement.c.accept_late,
        settlement.c.mark_id,
        outcome.c.revision.label("outcome_revision"),
        outcome.c.hash,
        outcome.c.effective_from,
        outcome.c.mark_id.label("outcome_mark_id"),
    )
    .join_from(settlement, outcome, settlement.c.change_id == outcome.c.change_id, isouter=True)
    .where(settlement.c.change_id.in_(bindparam("changes", expanding=True)))
)

_SERVICES = (
    select(
        service_plan.c.service_id,
        service_plan.c.account_id,
        membership.c.rate_plan_id,
        membership.c.valid_from,
        membership.c.valid_to,
    )
    .join_from(
        service_plan,
        membership,
        and_(
            membership.c.service_id == service_plan.c.service_id,
            or_(membership.c.valid_to.is_(None), membership.c.valid_to >= bindparam("since")),
        ),
        isouter=True,
    )
    .where(service_plan.c.service_id.in_(bindparam("services", expanding=True)))
)


def decisions(connection: Connection, change_ids: Collection[str]) -> Facts:
    """Settlements and outcomes of these changes."""
    facts = Facts()
    if not change_ids:
        return facts
    # Unpacked, since looking up a column of a row by its name costs as much as the query.
    for change_id, deadline, decision, revision, accept_late, mark_id, *persisted in connection.execute(
        _DECISIONS, {"changes": list(change_ids)}
    ).all():
        facts.settled[change_id, deadline] = SettledFact(
            missed=decision == "missed", revision=revision, accept_late=accept_late, mark_id=mark_id
        )
        outcome_revision, seal, effective_from, outcome_mark_id = persisted
        if seal is not None:
            facts.outcomes[change_id] = OutcomeFact(
                revision=outcome_revision, hash=seal, effective_from=effective_from, mark_id=outcome_mark_id
            )
    return facts


def services(connection: Connection, service_ids: Collection[str], since: datetime, facts: Facts) -> None:
    """Add these services, with the memberships that were not over at ``since``, to ``facts``."""
    asked = {"services": list(service_ids), "since": since}
    for service_id, account_id, rate_plan_id, valid_from, valid_to in connection.execute(_SERVICES, asked).all():
        service = facts.services.get(service_id)
        if service is None:
            service = facts.services[service_id] = ServiceFact(account_id=account_id)
        if valid_from is not None:
            service.memberships.append(Membership(rate_plan_id=rate_plan_id, valid_from=valid_from, valid_to=valid_to))
