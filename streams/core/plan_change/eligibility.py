"""What a service could order now, and what it would get: the machine's own decision, made and thrown away."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime

from streams.core.midnight import zone_names
from streams.core.objects import Account, Service, ServicePlan
from streams.core.plan_change.machine import Change, ChangeOrdered, Rules, SendReply
from streams.core.plan_change.matrix import DateRule, MatrixElement, eligible
from streams.core.plan_change.messages import Reply, Request, ValidatedRequest
from streams.core.plan_change.step import step
from streams.core.rows import ObjectRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The rows that the account's partition has; None where there is none."""

    account: ObjectRow[Account] | None
    service: ObjectRow[Service] | None
    plan: ObjectRow[ServicePlan] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What would become of an order of ``element``.

    ``change`` is the one that an order would make if no other were open (so its dates are there in any case), None
    where it could not make one. ``reasons`` are why it would be refused now, none if it would be accepted.
    """

    element: MatrixElement
    reasons: tuple[str, ...]
    change: Change | None


def annotated(request: Request, known: Known) -> ValidatedRequest:
    """``request`` with what the rows say, as the service's partition gets it to decide."""
    account = None if known.account is None else known.account.current
    service = None if known.service is None else known.service.current
    plan = None if known.plan is None else known.plan.current
    reasons = []
    if account is None:
        reasons.append("account_unknown")
    elif account.zone not in zone_names():
        reasons.append("zone_unknown")
    if service is None:
        reasons.append("service_unknown")
    elif service.account_id != request.account_id:
        reasons.append("service_of_another_account")
    return ValidatedRequest(
        request=request,
        valid=not reasons,
        reasons=tuple(reasons),
        zone=None if account is None else account.zone,
        account_revision=None if known.account is None else known.account.revision,
        billing_day=None if account is None else account.billing_day,
        account_status=None if account is None else account.status,
        service_state=None if service is None else service.state,
        service_revision=None if known.service is None else known.service.revision,
        rate_plan_id=None if plan is None else plan.rate_plan_id,
        product_id=None if plan is None else plan.product_id,
        memberships=() if plan is None else plan.memberships,
        options_held=() if plan is None else plan.options,
        plan_change_id=None if plan is None else plan.change_id,
    )


def offers(
    validated: ValidatedRequest, elements: Iterable[MatrixElement], current: Change | None, now: datetime, rules: Rules
) -> list[Offer]:
    """An offer for every element that suits the service's plan, product and the request's channel, by key.

    A given effective date is only for the elements that take one.
    """
    if validated.rate_plan_id is None or validated.product_id is None:
        return []
    found = eligible(elements, validated.rate_plan_id, validated.product_id, validated.request.channel)
    given = validated.request.effective_date
    return [offer(_asking_for(validated, element, given), element, current, now, rules) for element in found]


def offer(
    validated: ValidatedRequest, element: MatrixElement | None, current: Change | None, now: datetime, rules: Rules
) -> Offer:
    """What would become of this order of ``element``. Raises ValueError where there is no such element."""
    if element is None:
        raise ValueError(f"the change matrix has no element {validated.request.element_key!r}")
    fact = ChangeOrdered(validated=validated, element=element)
    reply = _reply(current, fact, now, rules)
    # Superseding is a matter of the open change; the dates are those of an order that finds none.
    alone = replace(fact, validated=replace(validated, request=replace(validated.request, expected_revision=None)))
    return Offer(
        element=element,
        reasons=() if reply.accepted else reply.reasons,
        change=step(None, alone, now, rules).change,
    )


def _asking_for(validated: ValidatedRequest, element: MatrixElement, given: date | None) -> ValidatedRequest:
    from_caller = given if element.date_rule is DateRule.DATE_GIVEN else None
    request = replace(validated.request, element_key=element.key, effective_date=from_caller)
    return replace(validated, request=request)


def _reply(current: Change | None, fact: ChangeOrdered, now: datetime, rules: Rules) -> Reply:
    decided = step(current, fact, now, rules)
    return next(effect.reply for effect in decided.effects if isinstance(effect, SendReply))
