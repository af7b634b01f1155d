"""Rules that say when events are raised which depend on time: data, changed while the workers run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import time

DELIVERED_PLUS = "invoice.delivered_plus"
DORMANT = "sim.dormant"

#: Event types that rules are for.
RULED: tuple[str, ...] = (DELIVERED_PLUS, DORMANT)
#: Ten years: more is a slip, and an instant derived from it would be out of every calendar.
MAX_DAYS = 3_650

_TIME = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRule:
    """When an event is raised that depends on time. A wrong rule raises ValueError when it is built.

    ``invoice.delivered_plus``: ``days`` after the local date of an invoice's first delivery, at the local time ``at``
    (``HH:MM``), in its account's zone. ``only_while_unpaid``: only if a balance is left then. The name is a part of the
    identity: an invoice raises one event for each name, whatever becomes of days and time.

    ``sim.dormant``: after ``days`` without usage, for the SIMs of ``product_id``; without one, for all whose product
    has no rule of its own. One that is not active raises nothing for them.
    """

    name: str
    type: str = DELIVERED_PLUS
    days: int
    at: str | None = None
    product_id: str | None = None
    only_while_unpaid: bool = False
    active: bool = True

    def __post_init__(self) -> None:
        if not self.name.strip() or len(self.name) > 100 or not self.name.isprintable():
            raise ValueError(f"name is {self.name!r}; give the rule a printable name of at most 100 characters")
        if self.type not in RULED:
            raise ValueError(f"type is {self.type!r}; rules are for {' and '.join(RULED)}")
        if self.type == DORMANT:
            if not 1 <= self.days <= MAX_DAYS:
                raise ValueError(f"days is {self.days}; for {DORMANT} it must be 1 to {MAX_DAYS}")
            if self.at is not None or self.only_while_unpaid:
                raise ValueError(f"{DORMANT} is raised at the end of a day (UTC): leave out at and only_while_unpaid")
            return
        if not 0 <= self.days <= MAX_DAYS:
            raise ValueError(f"days is {self.days}; it must be 0 to {MAX_DAYS}")
        if self.at is None or _TIME.fullmatch(self.at) is None:
            raise ValueError(f"at is {self.at!r}; write a local time as HH:MM, e.g. 09:00")
        if self.product_id is not None:
            raise ValueError(f"product_id is only for {DORMANT}")

    @property
    def local_time(self) -> time:
        """``at`` as a time of day; raises ValueError for a rule that has none."""
        if self.at is None:
            raise ValueError(f"rule {self.name} has no time")
        return time.fromisoformat(self.at)
