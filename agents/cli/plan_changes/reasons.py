"""Reason codes in words. Programs get the codes, which are stable; people get the codes and what to do.

Hooks abort with codes of their own; those, and codes of newer workers, pass through as they are.
"""

from __future__ import annotations

from collections.abc import Iterable

#: What the account's partition finds.
_ACCOUNT = {
    "account_unknown": "no such account is known yet; send billing.account first, or correct --account",
    "zone_unknown": "the account's time zone is no IANA zone, so there is no midnight; correct the account",
    "service_unknown": "no such service is known yet; send billing.service first, or correct the service's id",
    "service_of_another_account": "the service belongs to another account",
    "account_cancelled": "the account is cancelled",
    "service_cancelled": "the service is cancelled",
    "plan_unknown": "no rate plan of this service is known; import it with `curfew billing import`",
    "billing_day_unknown": "the element's date rule needs the account's billing day, which is not known",
}
#: What the service's partition decides about orders and cancels.
_REQUEST = {
    "unknown_element": "the change matrix has no element of this key; see `curfew plan-changes eligible`",
    "element_not_for_plan": "the element does not start from the service's present rate plan and product",
    "channel_not_allowed": "the element may not be ordered through this channel",
    "option_removed_by_element": "an option was chosen that the element takes away",
    "effective_date_missing": "the element needs an effective date; give --date",
    "effective_date_not_by_rule": "the date given is not the one that the element's rule makes; leave it out",
    "effective_date_impossible": "the effective date is outside the calendar; correct it",
    "deadline_passed": "the deadline has passed, and the element's policy does not allow a late change",
    "before_present_plan": "the service got its present plan after that date; order for a later one",
    "no_time_to_cancel": "the start has passed, and the element wants time to cancel; order for a later date",
    "open_change": "the service has an open change; cancel it, or supersede it with --expected-revision",
    "revision_mismatch": "the open change has another revision now; look at it, then ask again",
    "no_open_change": "the service has no open change",
    "too_late": "the start has passed, so the change can no longer be cancelled",
    "too_late_to_supersede": "the start of the open change has passed, so it can no longer be superseded",
    "plan_not_current": "the last change is effective, but the account does not show it yet; ask again in a moment",
    "request_id_conflict": "this request id was used before with other content; use a new one",
    "invalid_request": "the request contradicts itself",
    "order_hook_failed": "an ORDER hook failed without a reason",
}
#: What the service's partition decides about retry and resolve.
_REPAIR = {
    "nothing_to_repair": "no change of this service has failed or is held",
    "resolution_needed": "the change is held: retrying cannot help, decide with `curfew plan-changes resolve`",
    "resolution_missing": "say what is to become of it: finish_late, roll or abandon",
    "already_persisted": "the billing store has the outcome already; only `curfew plan-changes retry` is left",
    "no_later_boundary": "there is no later effective date to roll to",
}
#: Why an execution failed; the part after the colon names the hook, or the invariants.
_EXECUTION = {
    "not_persisted": "the billing store has no outcome of it, long after it was sent; see dead-letters.persistence",
    "hook_failed": "the hook raised an error; see the execution worker's log, then retry",
    "hook_timeout": "the hook used up its time budget; see what it waits for, then retry",
    "invariant": "the outcome contradicts itself, usually because of a hook's patch",
    "outcome_missing": "the executor answered without an outcome",
    "outcome_too_large": "the outcome does not fit into a Kafka record: hooks asked for too much",
}
_INVARIANT = {
    "membership_gap": "a time without a billing group membership",
    "membership_overlap": "two billing group memberships at one time",
    "membership_empty": "a membership that ends before it begins",
    "membership_of_another_plan": "the membership's rate plan is not the change's",
    "option_ended_not_held": "an option ends that the service does not hold",
    "option_duplicate": "an option is there twice at one time",
    "fee_amount_unrepresentable": "a fee with more digits than decimal(38,6) has",
    "fee_negative": "a negative fee; give a credit in the billing system",
    "fee_currencies_differ": "fees in different currencies",
    "fee_not_wanted": "a fee although the order says --no-fees",
}
EXPLANATIONS = _ACCOUNT | _REQUEST | _REPAIR | _EXECUTION | _INVARIANT


def explain(code: str) -> str | None:
    """``code`` in words, None for one that is not ours; ``hook_failed:crm`` is explained as ``hook_failed``."""
    if code in EXPLANATIONS:
        return EXPLANATIONS[code]
    head, colon, rest = code.partition(":")
    if not colon or head not in _EXECUTION:
        return None
    if head != "invariant":
        return EXPLANATIONS[head]
    broken = [_INVARIANT[one] for one in rest.split(",") if one in _INVARIANT]
    return "; ".join([EXPLANATIONS[head], *broken])


def in_words(codes: Iterable[str | None]) -> list[str]:
    """A line for each code that can be explained, each code once, in their order."""
    found = [(code, explain(code)) for code in dict.fromkeys(codes) if code is not None]
    return [f"{code}: {words}" for code, words in found if words is not None]
