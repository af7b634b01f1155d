"""Orders and cancels: what the service's partition accepts, supersedes and refuses, with reasons as codes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from streams.core import ids
from streams.core.midnight import TZ_VERSION, UnknownZoneError, local_date
from streams.core.objects import AccountStatus, ServiceState
from streams.core.plan_change.due import NO_ROOM
from streams.core.plan_change.machine import Change, ChangeCancelled, ChangeOrdered, Effect, Rules, State, Step
from streams.core.plan_change.matrix import DateRule, LatePolicy, MatrixElement, effective_date
from streams.core.plan_change.messages import Request, ValidatedRequest
from streams.core.plan_change.progress import progress
from streams.core.plan_change.told import accepted, cancelled, finding, is_told, refused, rejection
from streams.core.plan_change.window import Window, roll, window


def order(current: Change | None, fact: ChangeOrdered, now: datetime, rules: Rules) -> Step:
    """Accept, supersede or refuse an order. An order after its start instant starts at once."""
    request, element = fact.validated.request, fact.element
    change_id = ids.change_id(request.service_id, request.request_id)
    reasons = list(fact.validated.reasons) if not fact.validated.valid else []
    found: Window | None = None
    if fact.validated.valid:
        reasons += _reasons_of_account(fact.validated) + _reasons_of_open_change(current, fact.validated, now)
        if element is None:
            reasons.append("unknown_element")
        else:
            reasons += _reasons_of_element(element, fact.validated)
            found, why = _window_for(element, fact.validated, change_id, now)
            reasons += why
    if reasons or element is None or found is None:
        codes = tuple(dict.fromkeys(reasons)) or ("invalid_request",)
        told = rejection(request, change_id, codes, now)
        return Step(change=current, effects=(refused(request, current, codes, now), *told))

    effects: list[Effect] = []
    replaced: Change | None = None
    if current is not None:
        replaced = current
        if current.is_open:
            replaced = replace(current, state=State.SUPERSEDED, awaiting=None, sequence=current.sequence + 1)
            effects.append(finding(replaced, "superseded", now, before=current.state, superseded_by=change_id))
    change = _new_change(fact.validated, element, found, change_id, 1 if current is None else current.revision + 1, now)
    if is_told(change, "ordered"):
        change = replace(change, sequence=1)
        effects.append(finding(change, "ordered", now, channel=request.channel))
    going = progress(change, now, rules, room=NO_ROOM)
    assert going.change is not None
    return Step(
        change=going.change,
        replaced=replaced,
        effects=(*effects, accepted(request, going.change, now), *going.effects),
    )


def cancel(current: Change | None, fact: ChangeCancelled, now: datetime) -> Step:
    """Accepted if and only if the partition's clock is before the start instant of the open change."""
    request = fact.validated.request
    reasons = []
    if current is None or not current.is_open:
        reasons.append("no_open_change")
    else:
        if request.account_id != current.account_id:
            reasons.append("service_of_another_account")
        if request.expected_revision is not None and request.expected_revision != current.revision:
            reasons.append("revision_mismatch")
        if now >= current.start_at:
            reasons.append("too_late")
    if reasons or current is None:
        return Step(change=current, effects=(refused(request, current, tuple(reasons), now),))
    after, told = cancelled(current, now, request_id=request.request_id)
    return Step(change=after, effects=(accepted(request, after, now), *told))


def _reasons_of_account(validated: ValidatedRequest) -> list[str]:
    reasons = []
    if validated.account_status == AccountStatus.CANCELLED:
        reasons.append("account_cancelled")
    if validated.service_state == ServiceState.CANCELLED:
        reasons.append("service_cancelled")
    if validated.rate_plan_id is None or validated.product_id is None:
        reasons.append("plan_unknown")
    return reasons


def _reasons_of_open_change(current: Change | None, validated: ValidatedRequest, now: datetime) -> list[str]:
    """One open change per service; it is superseded only by an order that names it, and only before its start."""
    expected = validated.request.expected_revision
    if current is None or not current.is_open:
        reasons = [] if expected is None else ["no_open_change"]
        if current is not None and current.effective_at is not None and validated.plan_change_id != current.change_id:
            # The account's partition has not seen yet what this change made of the plan: ask again in a moment.
            reasons.append("plan_not_current")
        return reasons
    if expected is None:
        return ["open_change"]
    if expected != current.revision:
        return ["revision_mismatch"]
    return ["too_late_to_supersede"] if now >= current.start_at else []


def _reasons_of_element(element: MatrixElement, validated: ValidatedRequest) -> list[str]:
    request = validated.request
    reasons = []
    if (element.from_rate_plan_id, element.from_product_id) != (validated.rate_plan_id, validated.product_id):
        reasons.append("element_not_for_plan")
    if request.channel not in element.channels:
        reasons.append("channel_not_allowed")
    if set(request.options) & set(element.options_removed):
        reasons.append("option_removed_by_element")
    return reasons


def _window_for(
    element: MatrixElement, validated: ValidatedRequest, change_id: str, now: datetime
) -> tuple[Window | None, list[str]]:
    """The window of the order, or the reasons why there is none."""
    try:
        return _found_window(element, validated, change_id, now)
    except (OverflowError, ValueError):  # year 1, billing day 0: one impossible request must not stop a partition
        return None, ["effective_date_impossible"]


def _found_window(
    element: MatrixElement, validated: ValidatedRequest, change_id: str, now: datetime
) -> tuple[Window | None, list[str]]:
    request = validated.request
    if validated.zone is None:
        return None, ["zone_unknown"]
    try:
        today = local_date(validated.zone, now)
    except UnknownZoneError:
        return None, ["zone_unknown"]
    day = effective_date(element.date_rule, today, validated.billing_day, request.effective_date)
    if day is None:
        return None, ["effective_date_missing" if element.date_rule is DateRule.DATE_GIVEN else "billing_day_unknown"]
    if request.effective_date not in (None, day):
        return None, ["effective_date_not_by_rule"]
    found = window(validated.zone, day, element.lead_hours, change_id)
    if now >= found.deadline_at and element.late_policy is not LatePolicy.RETROACTIVE:
        rolled = None
        if element.late_policy is LatePolicy.ROLL:
            rolled = roll(element, validated.zone, validated.billing_day, day, change_id, now)
        if rolled is None:
            return None, ["deadline_passed"]
        found = rolled
    if now >= found.deadline_at and any(held.valid_from >= found.deadline_at for held in validated.memberships):
        return None, ["before_present_plan"]  # another change is true already: it would have to be undone first
    if now >= found.start_at and not element.allow_without_cancel:
        return None, ["no_time_to_cancel"]
    return found, []


def _new_change(
    validated: ValidatedRequest, element: MatrixElement, found: Window, change_id: str, revision: int, now: datetime
) -> Change:
    request: Request = validated.request
    retroactive = now >= found.deadline_at  # its deadline is not missed: there never was one
    assert validated.zone is not None  # _window_for saw to it
    return Change(
        change_id=change_id,
        request_id=request.request_id,
        revision=revision,
        account_id=request.account_id,
        service_id=request.service_id,
        state=State.PENDING,
        element=element,
        channel=request.channel,
        silent=request.silent,
        apply_fees=request.apply_fees,
        options=request.options,
        memberships=validated.memberships,
        options_held=validated.options_held,
        zone=validated.zone,
        account_revision=validated.account_revision,
        service_revision=validated.service_revision,
        billing_day=validated.billing_day,
        effective_date=found.effective_date,
        tz_version=TZ_VERSION,
        start_at=found.start_at,
        # An order that comes after its start starts at once; the spread is for those that waited together.
        release_at=found.start_at if now >= found.start_at else found.release_at,
        deadline_at=found.deadline_at,
        to_rate_plan_id=element.to_rate_plan_id,
        to_product_id=element.to_product_id,
        closed=retroactive,
        finish_late=retroactive,
    )
