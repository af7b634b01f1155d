"""A pending change follows its account: another zone moves its deadline, a cancellation ends it.

Only before the start instant, which is the point of no return: what has been started is finished as it was ordered.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from streams.core.change import Change, ContextChanged, Rules, State, Step
from streams.core.change_messages import finding, is_told
from streams.core.change_progress import progress
from streams.core.change_window import window
from streams.core.messages import Context, ValidatedRequest
from streams.core.midnight import TZ_VERSION, UnknownZoneError
from streams.core.objects import AccountStatus, ServiceState


def newer(validated: ValidatedRequest, account: Context | None, service: Context | None) -> ValidatedRequest:
    """``validated`` with what was heard since: request and context travel on different topics."""
    known = validated.account_revision
    if account is not None and known is not None and account.revision > known:
        validated = replace(validated, zone=account.zone, account_revision=account.revision)
        if account.cancelled:
            validated = replace(validated, account_status=AccountStatus.CANCELLED)
    if service is not None and service.cancelled:
        validated = replace(validated, service_state=ServiceState.CANCELLED)
    return validated


def follow(current: Change, fact: ContextChanged, now: datetime, rules: Rules) -> Step:
    """Cancel the change, or derive its instants for the new zone; the effective date stays the same local date."""
    context = fact.context
    if current.state is not State.PENDING or current.awaiting is not None or now >= current.start_at:
        return Step(change=current)
    if context.cancelled:
        reason = "account_cancelled" if context.service_id is None else "service_cancelled"
        told = is_told(current, "cancelled")
        cancelled = replace(current, state=State.CANCELLED, reason=reason, sequence=current.sequence + told)
        effects = (finding(cancelled, "cancelled", now, before=current.state),) if told else ()
        return Step(change=cancelled, effects=effects)
    known = current.account_revision
    if context.zone is None or context.service_id is not None or (known is not None and known >= context.revision):
        return Step(change=current)
    try:
        found = window(context.zone, current.effective_date, current.element.lead_hours, current.change_id)
    except (UnknownZoneError, OverflowError, ValueError):
        return Step(change=current)  # the old zone is better than none; the account's own change is refused elsewhere
    moved = replace(
        current,
        zone=context.zone,
        account_revision=context.revision,
        tz_version=TZ_VERSION,
        start_at=found.start_at,
        # As with an order that comes after its start: there is nothing to spread over.
        release_at=found.start_at if now >= found.start_at else found.release_at,
        deadline_at=found.deadline_at,
    )
    moved = replace(moved, sequence=moved.sequence + 1)
    news = finding(moved, "rescheduled", now, from_zone=current.zone, zone=moved.zone)
    going = progress(moved, now, rules, may_execute=False)
    return replace(going, effects=(news, *going.effects))
