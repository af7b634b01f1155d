"""What happens in the demo's night, and when: every record that its producer sends, and what has to become of it."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from operator import attrgetter

from agents.demo.fleet import Fleet

#: The story begins so long before the first midnight, in the early afternoon there.
BEFORE_FIRST = timedelta(hours=11, minutes=30)
#: And ends so long after the last one, when that is settled.
AFTER_LAST = timedelta(minutes=15)


class Fate(StrEnum):
    """How an order ends."""

    EFFECTIVE = "effective"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """One record: ``value`` is a wire dataclass, ``at`` the virtual instant from which it is due."""

    at: datetime
    topic: str
    key: str
    value: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Sendings in order of time. ``fates`` has every order by change id; ``refused_cancels`` come too late."""

    sendings: tuple[Sending, ...]
    fates: dict[str, Fate]
    refused_cancels: int
    transitions: Counter[str]


def begins(fleet: Fleet) -> datetime:
    """When the virtual clock starts."""
    return min(fleet.deadlines.values()) - BEFORE_FIRST


def ends(fleet: Fleet) -> datetime:
    """When it stops."""
    return max(fleet.deadlines.values()) + AFTER_LAST


def write(fleet: Fleet, changes: int, seed: int) -> Script:
    """The script for ``changes`` plan changes that become effective, and others that do not.

    Raises Misconfigured when the fleet has too few services for them.
    """
    from agents.demo import billing, orders

    rng = random.Random(seed + 1)  # another sequence than the fleet's
    placed = orders.write(fleet, changes, rng)
    night = billing.write(fleet, begins(fleet), ends(fleet), rng)
    return Script(
        sendings=tuple(sorted((*placed.sendings, *night.sendings), key=attrgetter("at"))),
        fates=placed.fates,
        refused_cancels=placed.refused_cancels,
        transitions=night.raised,
    )
