"""A pending change follows its account: another zone moves its deadline, a cancellation ends it.

Only before the start instant, which is the point of no return: what has been started is finished as it was ordered.
What is heard after it counts if the change is rolled to another date, or a person decides about it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from streams.core.midnight import TZ_VERSION, UnknownZoneError
from streams.core.objects import AccountStatus, ServiceState
from streams.core.plan_change.due import NO_ROOM
from streams.core.plan_change.machine import Change, ContextChanged, Rules, State, Step
from streams.core.plan_change.messages import Context, ValidatedRequest
from streams.core.plan_change.progress import progress
from streams.core.plan_change.told import cancelled, finding
from streams.core.plan_change.window import window


def newer(validated: ValidatedRequest, account: Context | None, service: Context | None) -> ValidatedRequest:
    """``validated`` with what was heard since: request and context travel on different topics."""
    known = validated.account_revision
    if account is not None and known is not None and account.revision > known:
        status = AccountStatus.CANCELLED if account.cancelled else None
        validated = replace(validated, zone=account.zone, account_revision=account.revision, account_status=status)
    known = validated.service_revision
    if service is not None and known is not None and service.revision > known:
        state = ServiceState.CANCELLED if service.cancelled else None
        validated = replace(validated, service_revision=service.revision, service_state=state)
    return validated


def follow(current: Change, fact: ContextChanged, now: datetime, rules: Rules) -> Step:
    """Cancel the change, or derive its instants for the new zone; the effective date stays the same local date."""
    context, of_account = fact.context, fact.context.service_id is None
    known = current.account_revision if of_account else current.service_revision
    if not current.is_open or (known is not None and known >= context.revision):
        return Step(change=current)
    seen: dict[str, Any] = {"account_revision" if of_account else "service_revision": context.revision}
    reason = "account_cancelled" if of_account else "service_cancelled"
    if current.state is not State.PENDING or current.awaiting is not None or now >= current.start_at:
        ended = reason if context.cancelled else (None if current.ended == reason else current.ended)
        return Step(change=replace(current, **seen, ended=ended, next_zone=context.zone or current.next_zone))
    if context.cancelled:
        after, told = cancelled(replace(current, **seen), now, reason=reason)
        return Step(change=after, effects=told)
    if context.zone is None or context.zone == current.zone:
        return Step(change=replace(current, **seen))
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
    going = progress(moved, now, rules, room=NO_ROOM)
    return replace(going, effects=(news, *going.effects))
