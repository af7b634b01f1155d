"""Reason codes in words. Programs get the codes, which are stable; people get the codes and what to do.

Hooks abort with codes of their own; those, and codes of newer workers, pass through as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents.reconcile.letters import Letter
    from streams.core.plan_change.machine import Change

#: What the account's partition finds.
_ACCOUNT = {
    "account_unknown": "no such account is known yet; send billing.account first, or correct --account",
    "zone_unknown": "the account's time zone is no IANA zone, so there is no midnight; correct the account",
    "service_unknown": "the account has no such service; correct service or --account, or send billing.service first",
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
    "too_many_waiting": "too much of this service waits for an answer already; ask again, with a new request id, "
    "when it has come",
    "request_too_large": "the request, with what is known of the service's plan, is larger than can be kept",
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
#: What an open change is refused for; and what ends one that waits for a person.
_IN_THE_WAY = frozenset({"open_change", "too_late", "too_late_to_supersede"})
_WORDS_OF = {"held": "is held", "failed": "has failed"}
_REMEDIES = {
    "held": "decide with `curfew plan-changes resolve` (--finish-late, --roll or --abandon)",
    "failed": "use `curfew plan-changes retry`, or `resolve` (--finish-late, --roll or --abandon),",
}
#: What a row says without a code.
_OF_STATE = {
    "deadline_missed": "the billing store had no outcome at the deadline, and the element's policy asks a person: "
    "decide with `curfew plan-changes resolve`",
}
#: States in which an outcome may have been put aside.
MAY_LIE_THERE = frozenset({"executed", "held", "failed"})
EXPLANATIONS = _ACCOUNT | _REQUEST | _REPAIR | _EXECUTION | _INVARIANT | _OF_STATE


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


def why(change: Change, letter: Letter | None) -> tuple[str | None, str | None]:
    """The reason for which ``change`` stands where it does, as a code and in words; None where none is known.

    ``letter``: what the persister has put aside of this revision, if anything.
    """
    code = change.reason
    if code is None and change.state == "held":
        code = "deadline_missed"
    words = None if code is None else explain(code) or "a hook's own reason"
    if letter is None or change.persisted_at is not None or change.state not in MAY_LIE_THERE:
        return code, words
    told = f"{letter.message or letter.reason}; it lies in {letter.place}"
    if code is None:
        return letter.reason, f"the billing store refused the outcome: {told}"
    return code, f"{words}; the billing store refused the outcome: {told}"


def in_words(codes: Iterable[str | None], state: str | None = None) -> list[str]:
    """A line for each code that can be explained, each code once, in their order.

    ``state`` is that of the service's open change, if there is one: what a person can do depends on it.
    """
    found = [(code, _stuck(code, state) or explain(code)) for code in dict.fromkeys(codes) if code is not None]
    return [f"{code}: {words}" for code, words in found if words is not None]


def _stuck(code: str, state: str | None) -> str | None:
    """Why an open change is in the way that waits for a person: it can be neither cancelled nor superseded."""
    if code not in _IN_THE_WAY or state not in _REMEDIES:
        return None
    return f"the service's open change {_WORDS_OF[state]}: {_REMEDIES[state]} first"
