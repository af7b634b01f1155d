"""Why a letter is dead, in our words: a line of explanation and a remedy for each reason code. Pure.

The message of a letter may quote the record, so it is masked; these lines quote nothing. Codes of hooks, of receivers'
answers and of newer workers pass through.
"""

from __future__ import annotations

from typing import Final

_AS_IT_IS: Final = "sent back as it is, it comes back: correct it at its source and send it anew"
_REDRIVE: Final = "then redrive"
#: Code → what was wrong, and what to do.
REASONS: Final[dict[str, tuple[str, str]]] = {
    # the record
    "no_value": ("a tombstone, where a value is needed", _AS_IT_IS),
    "not_avro": ("the value is not Avro with a schema id of the registry", _AS_IT_IS),
    "not_json": ("the value is no JSON", _AS_IT_IS),
    "wrong_type": ("the value is of another type than its topic's", _AS_IT_IS),
    "undecodable": ("the value's bytes do not fit the schema that it names", _AS_IT_IS),
    "invalid": ("the value contradicts itself, or a field of it is out of its range", _AS_IT_IS),
    "unknown_schema_id": (
        "the registry does not know the schema id of the value",
        f"see that the registry is the producer's and has its schema, {_REDRIVE}",
    ),
    "wrong_key": ("the record's key is not the one that its topic wants", _AS_IT_IS),
    "wrong_partition": ("the record is not in the partition of what it is about", _AS_IT_IS),
    "too_large": ("the record, or what would become of it, is larger than can be kept", _AS_IT_IS),
    "bad_cloudevent": ("a CloudEvents header is missing or cannot be read", _AS_IT_IS),
    "nul_character": ("a text has a NUL character, which PostgreSQL cannot store", _AS_IT_IS),
    "calculation_wrong_type": (
        "the calculation returned what no event can carry",
        f"correct the calculation, restart the dispatch workers, {_REDRIVE}",
    ),
    # usage
    "in_the_future": ("the usage is over a year ahead of time", _AS_IT_IS),
    "too_many_sims": ("the service has more SIMs than can be metered", "see which SIMs are wrong, " + _REDRIVE),
    "too_many_units": ("a period of the service has too many units and currencies", _AS_IT_IS),
    "too_late": ("the usage is older than a period is kept open", "it is not counted; settle it with a credit"),
    # the billing store
    "wrong_account": (
        "the service belongs to another account in the billing store",
        f"correct the billing store's service, {_REDRIVE}",
    ),
    "unknown_service": ("the billing store has no such service", f"import it with `curfew billing import`, {_REDRIVE}"),
    "not_on_that_plan": (
        "the service is not in the rate plan that the change ends",
        f"compare plan and memberships of the service, correct them, {_REDRIVE}",
    ),
    "plan_has_moved": (
        "the service is in another rate plan than the one from which the change starts",
        f"release the changes before it, {_REDRIVE}",
    ),
    "earlier_change_unfinished": (
        "of an earlier change of the service only the memberships are written",
        "redrive that one first, this one after it",
    ),
    "membership_gap": ("the new memberships do not start when the change does", "look at the hook that made them"),
    "obsolete_outcome": ("a newer revision of the change is written already", "nothing: the newer one counts"),
    "conflicting_outcome": (
        "another outcome of the same change is written already",
        "compare both with `curfew plan-changes show`; a person decides",
    ),
    "nothing_persisted": (
        "a change is to be released, and the billing store has no outcome of it",
        f"was it restored from a backup? Compare it with plan-change.outcomes, {_REDRIVE}",
    ),
    "bad_seal": ("the outcome is not the one that was sealed", "look who changed it; retry the plan change"),
    "constraint_violated": ("the billing store refuses the outcome", f"correct the billing store's data, {_REDRIVE}"),
    # deliveries
    "exhausted": ("all attempts have failed", f"see `curfew subscriptions show`, correct the receiver, {_REDRIVE}"),
    "max_age": ("it got older than the subscription allows", f"see why it waited so long, {_REDRIVE}"),
    "hop_limit": ("it was forwarded or calculated too often", "look for a loop of forwards and calculations"),
    "header_refused": (
        "an address or the subject would break the mail's headers",
        f"correct the subscription's subject and addresses, {_REDRIVE}",
    ),
    "no_recipient": ("the event names no address", f"name addresses in the subscription, {_REDRIVE}"),
    "bad_address": ("the recipient is no address", f"correct the subscription's addresses, {_REDRIVE}"),
    "template_failed": ("the template could not be filled in", f"correct the template, {_REDRIVE}"),
    "secret_unavailable": ("the worker could not get the secret", f"set it where the worker runs, {_REDRIVE}"),
    "url_refused": ("the address of the receiver is not allowed", f"correct the subscription, {_REDRIVE}"),
    "redirect": ("the receiver answered with a redirect", f"name the new address in the subscription, {_REDRIVE}"),
    "bad_run": ("the name of the replay cannot be one", "start the replay again with another name"),
}
#: The record itself is at fault: without other code it dies again, whatever happens around it.
_AT_FAULT: Final = frozenset(code for code, (_, remedy) in REASONS.items() if remedy == _AS_IT_IS)
_HTTP: Final = "http_"


def explained(reason: str) -> tuple[str, str]:
    """What was wrong, and what to do."""
    if reason.startswith(_HTTP):
        status = reason.removeprefix(_HTTP)
        return f"the receiver answered with status {status}", f"correct the receiver or the subscription, {_REDRIVE}"
    what = "its worker has a reason of its own"
    return REASONS.get(reason, (what, "see the worker's log, or the letter with --reveal"))


def incurable(reason: str) -> bool:
    """Whether sending the letter back as it is cannot help."""
    return reason in _AT_FAULT
