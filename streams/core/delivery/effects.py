"""What the delivery worker is to do after a decision; the agent turns each into a record or a line of the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from streams.core.delivery.messages import Attempt
from streams.core.delivery.units import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Ask the dispatch worker for an attempt."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Bury:
    """Write the dead letter of ``unit``; ``status`` and ``body`` are in the unit."""

    unit: Unit
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Disable:
    """Tell people that the receiver of this version of the subscription asked for no more (410)."""

    subscription: str
    version: int


Effect: TypeAlias = Send | Bury | Disable
