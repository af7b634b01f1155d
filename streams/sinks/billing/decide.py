"""What to do with an outcome or a settlement, given what the store holds: pure functions over gathered facts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

import msgspec

from streams.core.errors import Poison
from streams.core.objects import Membership, OptionTerm, ServicePlan
from streams.core.outcome import Outcome, verify
from streams.core.plan_change.messages import ExecutionResult, Settlement

Term = TypeVar("Term", Membership, OptionTerm)

#: PostgreSQL's texts cannot hold NUL, and its driver refuses the whole statement: one such record would stop a
#: partition for ever. An even number of backslashes before it is a text that only looks like it.
_NUL_IN_JSON = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledFact:
    """A row of ``settlement``."""

    missed: bool
    revision: int
    accept_late: bool
    mark_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeFact:
    """A row of ``outcome`` (without its body)."""

    revision: int
    hash: str
    effective_from: datetime
    mark_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingFact:
    """A row of ``second_part`` that waits: the memberships of this outcome are written, the rest is not."""

    change_id: str
    service_id: str
    revision: int
    hash: str
    effective_from: datetime


@dataclass(slots=True, kw_only=True)
class ServiceFact:
    """A service and the memberships that were not over yet."""

    account_id: str
    memberships: list[Membership] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Facts:
    """What the store knows about the changes and services of a chunk."""

    settled: dict[tuple[str, datetime], SettledFact] = field(default_factory=dict)
    outcomes: dict[str, OutcomeFact] = field(default_factory=dict)
    services: dict[str, ServiceFact] = field(default_factory=dict)
    waiting: dict[str, WaitingFact] = field(default_factory=dict)
    waiting_services: dict[str, WaitingFact] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An outcome whose seal was found intact; ``body`` is its JSON text, as it is stored."""

    outcome: Outcome
    hash: str
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Write the outcome; ``ends`` is the start of the membership to be ended (None: it ends by itself just then), and
    ``held_to`` is the end that it has until then."""

    opened: Opened
    ends: datetime | None
    held_to: datetime | None
    after_missed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Its memberships are there (or are from now on), and the rest is not due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Persisted:
    """It is there (or is from now on); ``after_missed``: written after its deadline had been closed."""

    mark_id: int
    deadline: datetime
    after_missed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """The deadline was closed without it, and it may not be written any more."""

    mark_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteMissed:
    """Nothing is there for this deadline: record it as missed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateMissed:
    """A newer revision of the change says whether late writing is accepted; the decision stays."""

    mark_id: int


def opened(result: ExecutionResult) -> Opened:
    """The outcome of a sealed result, if it is what was sealed and belongs to the result; otherwise raises Poison."""
    sealed = result.sealed
    if sealed is None:
        raise Poison("bad_seal", f"the result of {result.command_id} says sealed and carries no outcome")
    outcome = sealed.outcome
    if not verify(sealed):
        raise Poison("bad_seal", f"the outcome of change {outcome.change_id} is not what was sealed ({sealed.hash})")
    named = (result.change_id, result.revision, result.account_id, result.service_id)
    if named != (outcome.change_id, outcome.revision, outcome.account_id, outcome.service_id):
        raise Poison("bad_seal", f"the result names {named}, its outcome is of {outcome.change_id}")
    if min((new.valid_from for new in outcome.memberships), default=None) != outcome.effective_from:
        raise Poison(
            "membership_gap",
            f"the new memberships of change {outcome.change_id} do not start at {outcome.effective_from}",
        )
    body = msgspec.json.encode(outcome)
    if b"u0000" in body and _NUL_IN_JSON.search(body):  # the plain search first: it takes a hundredth of the time
        raise _nul_character(outcome.change_id)
    return Opened(outcome=outcome, hash=sealed.hash, body=body.decode())


def judge_outcome(opened: Opened, facts: Facts) -> Write | Waiting | Persisted | Missed:
    """Decide one opened outcome; raises Poison when it can never be written."""
    outcome = opened.outcome
    own = facts.settled.get((outcome.change_id, outcome.effective_from))
    there = facts.outcomes.get(outcome.change_id)
    if there is not None and (there.revision, there.hash) == (outcome.revision, opened.hash):
        return Persisted(
            mark_id=there.mark_id, deadline=there.effective_from, after_missed=own is not None and own.missed
        )
    # Before "something else is there": on replay, an outcome that once was too late must get the same answer again.
    if own is not None and own.missed and not own.accept_late and outcome.revision <= own.revision:
        return Missed(mark_id=own.mark_id)
    if there is not None:
        reason = "conflicting_outcome" if there.revision == outcome.revision else "already_persisted"
        raise Poison(
            reason,
            f"change {outcome.change_id} was persisted as revision {there.revision} with hash {there.hash}; "
            f"revision {outcome.revision} cannot be persisted too: compare both, then correct the billing data by hand",
        )
    half = facts.waiting.get(outcome.change_id) or facts.waiting_services.get(outcome.service_id)
    if half is not None and half.change_id == outcome.change_id:
        if (half.revision, half.hash) == (outcome.revision, opened.hash):
            return Waiting()
        raise Poison(
            "obsolete_outcome" if half.revision > outcome.revision else "conflicting_outcome",
            f"the memberships of change {outcome.change_id} were written as of revision {half.revision} with hash "
            f"{half.hash}; revision {outcome.revision} is not written",
        )
    if half is not None:
        raise Poison(
            "earlier_change_unfinished",
            f"of change {half.change_id} of service {outcome.service_id} only the memberships are written: redrive "
            f"{outcome.change_id} after {half.effective_from}",
        )
    service = facts.services.get(outcome.service_id)
    if service is None:
        raise Poison(
            "unknown_service", f"service {outcome.service_id} is not in the billing store: import it, then redrive"
        )
    if service.account_id != outcome.account_id:
        raise Poison(
            "wrong_account",
            f"service {outcome.service_id} belongs to account {service.account_id}, not {outcome.account_id}",
        )
    ended = _membership_to_end(outcome, service)
    return Write(
        opened=opened,
        ends=None if ended.valid_to == outcome.effective_from else ended.valid_from,
        held_to=ended.valid_to,
        after_missed=own is not None and own.missed,
    )


def _membership_to_end(outcome: Outcome, service: ServiceFact) -> Membership:
    at = outcome.effective_from
    for held in service.memberships:
        if held.valid_from < at and (held.valid_to is None or held.valid_to >= at):
            if held.rate_plan_id != outcome.from_rate_plan_id:
                break
            return held
    raise Poison(
        "not_on_that_plan",
        f"service {outcome.service_id} is not in rate plan {outcome.from_rate_plan_id} up to {at}, "
        f"so change {outcome.change_id} cannot end it",
    )


def replaces(outcome: Outcome, facts: Facts) -> bool:
    """True if the memberships of an older revision of this change have to be taken back first."""
    half = facts.waiting.get(outcome.change_id)
    return half is not None and half.revision < outcome.revision and half.service_id == outcome.service_id


def takes_back(settlement: Settlement, facts: Facts) -> bool:
    """True if the memberships that are written must not stay after this change was missed.

    Those of a newer revision are none of this settlement's business.
    """
    half = facts.waiting.get(settlement.change_id)
    if half is None or half.revision > settlement.revision:
        return False
    return not settlement.accept_late or half.effective_from != settlement.deadline_at


def check_settlement(settlement: Settlement) -> Poison | None:
    """Why this settlement can be no question to the store, if so."""
    texts = settlement.change_id, settlement.account_id, settlement.service_id
    return _nul_character(settlement.change_id) if any("\x00" in text for text in texts) else None


def _nul_character(change_id: str) -> Poison:
    return Poison("nul_character", f"a text of change {change_id!r} has a NUL character, which PostgreSQL cannot store")


def judge_close(settlement: Settlement, facts: Facts) -> Persisted | Missed | UpdateMissed | WriteMissed:
    """Decide at the deadline. The decision that is there already stands, whatever came after it."""
    own = facts.settled.get((settlement.change_id, settlement.deadline_at))
    there = facts.outcomes.get(settlement.change_id)
    if own is not None and own.missed:
        newer = settlement.revision > own.revision
        return UpdateMissed(mark_id=own.mark_id) if newer else Missed(mark_id=own.mark_id)
    if there is not None:
        other = facts.settled.get((settlement.change_id, there.effective_from))
        return Persisted(
            mark_id=there.mark_id, deadline=there.effective_from, after_missed=other is not None and other.missed
        )
    return WriteMissed()


def effective_plan(previous: ServicePlan, outcome: Outcome) -> ServicePlan:
    """The plan that is true from the outcome's ``effective_from`` on.

    Rows that were over before that instant are left out (a service of many years would not fit into a record); those
    that end exactly there stay, so that a reader of one record sees what was replaced.
    """
    if previous.rate_plan_id != outcome.from_rate_plan_id:
        raise Poison(
            "plan_has_moved",
            f"service {outcome.service_id} is in rate plan {previous.rate_plan_id}, change {outcome.change_id} "
            f"starts from {outcome.from_rate_plan_id}: release the changes before it first, then redrive",
        )
    at = outcome.effective_from
    ended = set(outcome.options_ended)
    kept = [_ended(held, at) for held in previous.memberships if _concerns(held, at)]
    options = [
        _ended(held, at) if held.option_id in ended else held for held in previous.options if _concerns(held, at)
    ]
    return ServicePlan(
        service_id=outcome.service_id,
        account_id=outcome.account_id,
        rate_plan_id=outcome.to_rate_plan_id,
        product_id=outcome.to_product_id,
        memberships=(*kept, *outcome.memberships),
        options=(*options, *outcome.options_created),
        change_id=outcome.change_id,
        silent=outcome.silent,
    )


def _concerns(term: Membership | OptionTerm, at: datetime) -> bool:
    return term.valid_to is None or term.valid_to >= at


def _ended(term: Term, at: datetime) -> Term:
    return replace(term, valid_to=at) if term.valid_from < at else term
