"""Calculations of the user: an event in, events of declared types out.

A calculation is a pure function, declared in the worker's settings. It runs in a process of its own
(:mod:`agents.calculations.pool`), within a time budget and a memory bound; what it returns is routed like any event.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from streams.core import ids
from streams.core.catalogue import EventType
from streams.core.errors import Misconfigured
from streams.core.events import Audience, Event, Finding, Value

#: Without a budget, one event for which the function loops would hold a process for ever.
DEFAULT_BUDGET_S: Final = 5.0
#: Beyond what Python and the function's own imports take.
DEFAULT_MEMORY_MIB: Final = 256
#: A calculation that returns without end is a mistake, and its results would hold up the partition.
MAX_RESULTS: Final = 100
_TYPE: Final = re.compile(r"calculation\.[a-z0-9_]+(\.[a-z0-9_]+)*")
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class WrongType(Exception):
    """A function has returned what it must not; the message says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emit:
    """One event to raise, about the object of the event that was calculated with. ``type`` is one that the calculation
    declares; ``facts`` hold text, whole numbers, Decimal (money: never float), dates and instants with a zone."""

    type: str
    facts: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitted:
    """A type of event that a calculation raises: what it means, and the meaning of its facts."""

    about: str
    facts: Mapping[str, str] = field(default_factory=dict)
    audience: Audience = Audience.INTERNAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Calculation:
    """``function`` gets an :class:`Event` about an object of ``kind`` and its parameters, and returns or yields
    :class:`Emit`. ``emits``: type (``calculation.…``) → what it is.

    Raises Misconfigured for a name or type that cannot be used.
    """

    name: str
    kind: str
    function: Callable[[Event, Mapping[str, Value]], Iterable[Emit]]
    emits: Mapping[str, Emitted]
    budget_s: float = DEFAULT_BUDGET_S
    memory_mib: int = DEFAULT_MEMORY_MIB

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise Misconfigured(f"calculation {self.name!r}: use 1 to 63 lower-case letters, digits and hyphens")
        for name in self.emits:
            if not _TYPE.fullmatch(name):
                raise Misconfigured(
                    f"calculation {self.name}: the event type {name!r} has to be like calculation.fair_use.exceeded"
                )

    def event_types(self) -> Iterator[EventType]:
        """For the catalogue."""
        for name, one in self.emits.items():
            yield EventType(
                type=name, kind=self.kind, audience=one.audience, about=one.about, facts=one.facts, raised=True
            )


def checked(calculation: Calculation, returned: Any) -> list[Emit]:
    """What a function has returned, when all of it may be raised; raises :class:`WrongType`."""
    if isinstance(returned, Emit) or not isinstance(returned, Iterable):
        raise WrongType(f"it returned {type(returned).__name__}; return or yield Emit(...), as many as there are")
    found: list[Emit] = []
    for one in returned:
        if not isinstance(one, Emit):
            raise WrongType(f"it yielded {type(one).__name__}, not Emit(...)")
        if one.type not in calculation.emits:
            raise WrongType(
                f"{one.type!r} is not among its types: {', '.join(calculation.emits) or 'it declares none'}"
            )
        for name, value in one.facts.items():
            _check(name, value)
        found.append(one)
        if len(found) > MAX_RESULTS:
            raise WrongType(f"it yielded more than {MAX_RESULTS} events")
    return found


def _check(name: Any, value: Any) -> None:
    if not isinstance(name, str):
        raise WrongType(f"the name of a fact is {type(name).__name__}, not text")
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise WrongType(f"{name} is an instant without a zone")
    elif not isinstance(value, None | bool | int | str | Decimal | date):
        remedy = "; money is a Decimal" if isinstance(value, float) else ""
        raise WrongType(f"{name} is {type(value).__name__}, which an event cannot carry{remedy}")


def findings(calculation: Calculation, event: Event, emits: Iterable[Emit], hops: int, path: str) -> list[Finding]:
    """What is raised: ids follow from the event and the place in the results, so a repetition raises the same."""
    return [
        Finding(
            event_id=ids.derive("calculation", event.event_id, calculation.name, str(number)),
            type=one.type,
            occurred_at=event.occurred_at,
            subject_kind=event.subject_kind,
            subject_id=event.subject_id,
            account_id=event.account_id,
            sequence=event.sequence,
            previous=event.previous,
            current=event.current,
            facts=dict(one.facts),
            # What must not reach a customer (a silent change) does not come to them by way of a calculation.
            audience=min(calculation.emits[one.type].audience, event.audience, key=lambda it: it != Audience.INTERNAL),
            hops=hops,
            path=path,
        )
        for number, one in enumerate(emits)
    ]
