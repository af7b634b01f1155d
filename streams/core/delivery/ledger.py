"""The ledger of completeness: over the distinct units of a subscription,

    accepted = filtered + pending + delivered + dead + discarded

``accepted`` are the events of the queue, ``filtered`` those that the subscription's filter did not want. Each term is
found on its own (pending in the rows, delivered in the results, dead in the dead letters); none by subtraction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

_MASK: Final = (1 << 128) - 1


@dataclass(slots=True, eq=False)
class Evidence:
    """What the checker found for one subscription, as unit ids; ``accepted`` says of each whether it was wanted."""

    accepted: dict[str, bool] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    delivered: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    discarded: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """The equation with numbers. ``missing`` and ``unexpected`` are unit ids, sorted.

    ``difference`` is 0 if and only if both are empty. One removed result makes it 1; so does one swapped id, which is
    one missing and one unexpected unit. The digests are sums of the ids modulo 2¹²⁸, in hex.
    """

    accepted: int
    filtered: int
    pending: int
    delivered: int
    dead: int
    discarded: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    digest_accepted: str
    digest_found: str

    @property
    def difference(self) -> int:
        return max(len(self.missing), len(self.unexpected))


def balance(evidence: Evidence) -> Balance:
    """Put every unit into exactly one term.

    Sources are read one after another while deliveries go on, the rows first, so a unit may be found in two: an open
    row means pending whatever came later, then discarded, then delivered (a late success), then dead.
    """
    pending = evidence.pending
    discarded = evidence.discarded - pending
    delivered = evidence.delivered - pending - discarded
    dead = evidence.dead - pending - discarded - delivered
    found = pending | discarded | delivered | dead
    filtered = {unit for unit, wanted in evidence.accepted.items() if not wanted and unit not in found}
    accounted = found | filtered
    return Balance(
        accepted=len(evidence.accepted),
        filtered=len(filtered),
        pending=len(pending),
        delivered=len(delivered),
        dead=len(dead),
        discarded=len(discarded),
        missing=tuple(sorted(evidence.accepted.keys() - accounted)),
        unexpected=tuple(sorted(found - evidence.accepted.keys())),
        digest_accepted=digest(evidence.accepted),
        digest_found=digest(accounted),
    )


def digest(unit_ids: Iterable[str]) -> str:
    """Order-free digest of unit ids."""
    total = 0
    for unit in unit_ids:
        total += UUID(unit).int
    return f"{total & _MASK:032x}"
