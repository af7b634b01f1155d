"""Content filters: a small expression over one event, as ``facts.to == "Suspended" && account.currency == "BRL"``.

What the names mean is here; reading and running the language is somebody else's (:mod:`streams.filters`), since the
core uses no library. A filter only compares: it has no arithmetic, no loops, no clock and no state (ADR 15).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from streams.core.catalogue import CATALOGUE
from streams.core.events import Event, Finding, Value
from streams.core.facts import fact_type
from streams.core.graph import GRAPH, Graph
from streams.core.parameters import available

#: Fields of the event itself that a filter may name, with their types.
OWN: Final[Mapping[str, str]] = {
    "type": "string",
    "subject_kind": "string",
    "subject_id": "string",
    "account_id": "string",
    "audience": "string",
    "sequence": "long",
    "occurred_at": "instant",
}
#: Maps of the event that a filter may look into: ``current.state``.
MAPS: Final = ("facts", "previous", "current")


class InvalidFilter(Exception):
    """The expression cannot be saved; the text says where in it, why, and what would be right."""


class Unfit(Exception):
    """The expression has no answer for this event, e.g. because it orders a value that is null."""


class Filter(Protocol):
    """A compiled expression. ``names`` are all names in it; calling it raises :class:`Unfit` and nothing else."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def __call__(self, values: Mapping[str, Value]) -> bool: ...


class Language(Protocol):
    """Where filters come from. ``check`` raises :class:`InvalidFilter`; ``compile`` takes what was checked before, and
    for anything else gives a filter that is unfit for every event: configuration must not be able to stop a worker."""

    def check(self, expression: str, variables: Mapping[str, str]) -> None: ...

    def compile(self, expression: str) -> Filter: ...


def variables(event_type: str, graph: Graph = GRAPH) -> dict[str, str]:
    """Every name that a filter on ``event_type`` may use → the name of its type, nearest in meaning first."""
    known = CATALOGUE[event_type]
    found = {f"facts.{name}": fact_type(known, name) for name in known.facts}
    if known.kind in graph:
        for prefix in ("current", "previous"):
            found |= {f"{prefix}.{name}": type_name for name, type_name in graph[known.kind].fields.items()}
    return {**available(known.kind, graph), **found, **OWN}


def is_parameter(name: str) -> bool:
    """Whether a filter's name is a parameter, so that somebody has to look it up."""
    return name not in OWN and name.partition(".")[0] not in MAPS


@dataclass(frozen=True, slots=True)
class _Read:
    """How one name gets its value; one of the two is set."""

    name: str
    field: str
    map: str | None


class Condition:
    """A filter bound to the fields of events. ``parameters`` are the names that have to be looked up for it."""

    __slots__ = ("_filter", "_reads", "parameters")

    def __init__(self, filter: Filter) -> None:
        self._filter = filter
        self.parameters = tuple(name for name in filter.names if is_parameter(name))
        self._reads = tuple(
            _Read(name, name, None) if name in OWN else _Read(name, name.partition(".")[2], name.partition(".")[0])
            for name in filter.names
            if not is_parameter(name)
        )

    def __call__(self, event: Finding | Event, parameters: Mapping[str, Value]) -> bool:
        """Whether the event agrees; what does not exist is null. Raises :class:`Unfit`."""
        values: dict[str, Value] = {name: parameters.get(name) for name in self.parameters}
        for read in self._reads:
            if read.map is None:
                values[read.name] = getattr(event, read.field)
            else:
                fields: Mapping[str, Value] | None = getattr(event, read.map)
                values[read.name] = None if fields is None else fields.get(read.field)
        return self._filter(values)


Compile = Callable[[str], Filter]
