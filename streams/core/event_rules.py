"""Rules that say when events are raised which depend on time: data, changed while the workers run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import time

DELIVERED_PLUS = "invoice.delivered_plus"

#: Event types that rules are for.
RULED: tuple[str, ...] = (DELIVERED_PLUS,)
#: Ten years: more is a slip, and an instant derived from it would be out of every calendar.
MAX_DAYS = 3_650

_TIME = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRule:
    """``days`` after the local date of an invoice's first delivery, at the local time ``at`` (``HH:MM``), in its
    account's zone. ``only_while_unpaid``: only if a balance is left then. A wrong rule raises ValueError when it is
    built.

    The name is a part of the identity: an invoice raises one event for each name, whatever becomes of days and time.
    """

    name: str
    type: str = DELIVERED_PLUS
    days: int
    at: str
    only_while_unpaid: bool = False
    active: bool = True

    def __post_init__(self) -> None:
        if not self.name.strip() or len(self.name) > 100 or not self.name.isprintable():
            raise ValueError(f"name is {self.name!r}; give the rule a printable name of at most 100 characters")
        if self.type not in RULED:
            raise ValueError(f"type is {self.type!r}; rules are for {' and '.join(RULED)}")
        if not 0 <= self.days <= MAX_DAYS:
            raise ValueError(f"days is {self.days}; it must be 0 to {MAX_DAYS}")
        if _TIME.fullmatch(self.at) is None:
            raise ValueError(f"at is {self.at!r}; write a local time as HH:MM, e.g. 09:00")

    @property
    def local_time(self) -> time:
        """``at`` as a time of day."""
        return time.fromisoformat(self.at)
