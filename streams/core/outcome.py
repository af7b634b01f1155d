"""The outcome of an executed plan change, and the seal that makes it immutable.

``Outcome`` is what may still be altered (by AFTER hooks); ``SealedOutcome`` is what may be persisted. The persister
verifies the seal and writes what it finds; nobody computes anything after the seal.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from streams.core.canonical import fingerprint
from streams.core.money import Fee
from streams.core.objects import Membership, OptionTerm

__all__ = ["Fee", "Outcome", "Release", "SealedOutcome", "Task", "TaskKind", "seal", "verify"]


class TaskKind(StrEnum):
    """What a hook asked for: work on the network, or a message to a person or system outside."""

    PROVISIONING = "provisioning"
    COMMUNICATION = "communication"


class Release(StrEnum):
    """When a task may be seen by the world. Default of hooks is ``effective``: not before it is true."""

    NOW = "now"
    PERSISTED = "persisted"
    EFFECTIVE = "effective"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Something that a hook asked for, to be released at its moment. ``details`` are the hook's own words."""

    kind: TaskKind
    name: str
    release: Release
    details: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """All that the billing store has to write for one revision of a change, every row with its ``valid_from``.

    ``memberships`` are the new ones; those that were valid before end at ``effective_from`` (the deadline: the first
    existing instant of ``effective_date`` in ``zone``). ``options_ended`` are option ids that end at that instant.
    ``sealed_at`` is business time (of the command), so that a replay seals the same bytes.
    """

    change_id: str
    revision: int
    command_id: str
    account_id: str
    service_id: str
    from_rate_plan_id: str
    to_rate_plan_id: str
    from_product_id: str
    to_product_id: str
    effective_date: date
    zone: str
    effective_from: datetime
    memberships: tuple[Membership, ...]
    options_created: tuple[OptionTerm, ...]
    options_ended: tuple[str, ...]
    fees: tuple[Fee, ...]
    tasks: tuple[Task, ...]
    silent: bool
    sealed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedOutcome:
    """An outcome and the SHA-256 (hex) over its canonical text; see :mod:`streams.core.canonical`."""

    outcome: Outcome
    hash: str


def seal(outcome: Outcome) -> SealedOutcome:
    """Close ``outcome``: from here on any difference shows in :func:`verify`."""
    return SealedOutcome(outcome=outcome, hash=fingerprint(outcome))


def verify(sealed: SealedOutcome) -> bool:
    """True if the outcome is what was sealed."""
    return fingerprint(sealed.outcome) == sealed.hash
