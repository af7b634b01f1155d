"""The core logic of a plan change: what becomes of memberships, options, fees, and what must hold before the seal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from streams.core.hooks import Patch
from streams.core.money import Fee, fits
from streams.core.objects import Membership, OptionTerm
from streams.core.outcome import Outcome, Task, TaskKind
from streams.core.plan_change.messages import ExecuteCommand


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The change as PRIOR hooks may alter it, before the core logic."""

    to_rate_plan_id: str
    to_product_id: str
    fees: tuple[Fee, ...]
    tasks: tuple[Task, ...]
    options_added: tuple[str, ...]
    options_removed: tuple[str, ...]


def draft_of(command: ExecuteCommand) -> Draft:
    """The change as it was ordered: the matrix element's options and fees, and the options that the customer chose."""
    return Draft(
        to_rate_plan_id=command.to_rate_plan_id,
        to_product_id=command.to_product_id,
        fees=command.fees,
        tasks=(),
        options_added=_once(command.options_added + command.options),
        options_removed=command.options_removed,
    )


def adjust_draft(draft: Draft, patch: Patch) -> Draft:
    """Apply a PRIOR hook's patch; what is added and removed by several hooks, the last one decides."""
    added = tuple(option for option in draft.options_added if option not in patch.options_removed)
    removed = tuple(option for option in draft.options_removed if option not in patch.options_added)
    return Draft(
        to_rate_plan_id=patch.to_rate_plan_id or draft.to_rate_plan_id,
        to_product_id=patch.to_product_id or draft.to_product_id,
        fees=draft.fees + patch.fees,
        tasks=draft.tasks + patch.tasks,
        options_added=_once(added + patch.options_added),
        options_removed=_once(removed + patch.options_removed),
    )


def conclude(command: ExecuteCommand, draft: Draft) -> Outcome:
    """The core logic: new memberships from the deadline on, options created and ended, fees and tasks where wanted.

    An option that the service holds is not created again unless it is removed in the same change.
    """
    at = command.effective_from
    held = {term.option_id for term in command.options_held if _covers(term, at)}
    ended = tuple(option for option in draft.options_removed if option in held)
    created = tuple(option for option in draft.options_added if option not in held or option in ended)
    return Outcome(
        change_id=command.change_id,
        revision=command.revision,
        command_id=command.command_id,
        account_id=command.account_id,
        service_id=command.service_id,
        from_rate_plan_id=command.from_rate_plan_id,
        to_rate_plan_id=draft.to_rate_plan_id,
        from_product_id=command.from_product_id,
        to_product_id=draft.to_product_id,
        effective_date=command.effective_date,
        zone=command.zone,
        effective_from=at,
        memberships=(Membership(rate_plan_id=draft.to_rate_plan_id, valid_from=at, valid_to=None),),
        options_created=tuple(OptionTerm(option_id=option, valid_from=at, valid_to=None) for option in created),
        options_ended=ended,
        fees=_fees(command, draft.fees),
        tasks=_tasks(command, draft.tasks),
        silent=command.silent,
        sealed_at=command.sent_at,
    )


def adjust_outcome(command: ExecuteCommand, outcome: Outcome, patch: Patch) -> Outcome:
    """Apply an AFTER hook's patch to the outcome."""
    at = command.effective_from
    plan = patch.to_rate_plan_id or outcome.to_rate_plan_id
    memberships = patch.memberships
    if memberships is None:
        changed = plan != outcome.to_rate_plan_id
        memberships = (Membership(rate_plan_id=plan, valid_from=at, valid_to=None),) if changed else outcome.memberships
    held = {term.option_id for term in command.options_held if _covers(term, at)}
    created = tuple(term for term in outcome.options_created if term.option_id not in patch.options_removed)
    ended = _once(outcome.options_ended + tuple(option for option in patch.options_removed if option in held))
    present = (held - set(ended)) | {term.option_id for term in created}
    added = tuple(
        OptionTerm(option_id=option, valid_from=at, valid_to=None)
        for option in _once(patch.options_added)
        if option not in present
    )
    return replace(
        outcome,
        to_rate_plan_id=plan,
        to_product_id=patch.to_product_id or outcome.to_product_id,
        memberships=memberships,
        options_created=created + added,
        options_ended=ended,
        fees=outcome.fees + _fees(command, patch.fees),
        tasks=outcome.tasks + _tasks(command, patch.tasks),
    )


def violations(command: ExecuteCommand, outcome: Outcome) -> tuple[str, ...]:
    """Codes of the invariants that ``outcome`` breaks, none if it may be sealed."""
    broken = _membership_violations(command, outcome)
    broken += _option_violations(command, outcome)
    if not all(fits(fee.amount) for fee in outcome.fees):
        broken.append("fee_amount_unrepresentable")
    elif any(fee.amount < 0 for fee in outcome.fees):
        broken.append("fee_negative")
    if len({fee.currency for fee in outcome.fees}) > 1:
        broken.append("fee_currencies_differ")
    if outcome.fees and not command.apply_fees:
        broken.append("fee_not_wanted")
    return tuple(broken)


def _membership_violations(command: ExecuteCommand, outcome: Outcome) -> list[str]:
    """No gap, no overlap: old ones reach the deadline, new ones go on from it without a break, the last stays open."""
    broken = []
    at = command.effective_from
    if any(old.valid_from >= at for old in command.memberships):
        broken.append("membership_overlap")
    if command.memberships and not any(old.valid_to is None or old.valid_to >= at for old in command.memberships):
        broken.append("membership_gap")
    expected: datetime | None = at
    for new in outcome.memberships:
        if expected is None or new.valid_from < expected:
            broken.append("membership_overlap")
        elif new.valid_from > expected:
            broken.append("membership_gap")
        if new.valid_to is not None and new.valid_to <= new.valid_from:
            broken.append("membership_empty")
        expected = new.valid_to
    if not outcome.memberships or expected is not None:
        broken.append("membership_gap")
    if outcome.memberships and outcome.memberships[0].rate_plan_id != outcome.to_rate_plan_id:
        broken.append("membership_of_another_plan")
    return sorted(set(broken))


def _option_violations(command: ExecuteCommand, outcome: Outcome) -> list[str]:
    """No option twice at one time, none ended that is not held."""
    broken = []
    at = command.effective_from
    held = {term.option_id for term in command.options_held if term.valid_to is None or term.valid_to > at}
    if len(set(outcome.options_ended)) != len(outcome.options_ended) or not set(outcome.options_ended) <= held:
        broken.append("option_ended_not_held")
    created = [term.option_id for term in outcome.options_created]
    if len(set(created)) != len(created) or (held - set(outcome.options_ended)) & set(created):
        broken.append("option_duplicate")
    return broken


def _covers(term: OptionTerm, at: datetime) -> bool:
    return term.valid_from <= at and (term.valid_to is None or term.valid_to > at)


def _fees(command: ExecuteCommand, fees: tuple[Fee, ...]) -> tuple[Fee, ...]:
    return fees if command.apply_fees else ()


def _tasks(command: ExecuteCommand, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    """A silent change tells the customer nothing, whatever a hook asks for."""
    return tuple(task for task in tasks if not (command.silent and task.kind is TaskKind.COMMUNICATION))


def _once(options: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(options))
