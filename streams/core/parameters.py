"""Parameters: names like ``account.currency``, checked when they are asked for, resolved once per event.

A name is ``<object>.<field>``; the object graph says which objects an event reaches. :func:`check` refuses before
anything is saved; :func:`compile_plan` turns names into a few loads that :func:`resolve` repeats for every event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from streams.core.catalogue import CATALOGUE, nearest_types
from streams.core.events import Finding, Value
from streams.core.graph import GRAPH, Graph
from streams.core.nearest import nearest_paths

#: (kind, id) → the object, or None when its row is not there yet.
Lookup = Callable[[str, str], object | None]

#: Below this likeness difflib's suggestions have nothing to do with what was meant.
LIKENESS = 0.5

_ABSENT = object()  # the field is not there at all, which is not the same as a field that is None


def available(kind: str, graph: Graph = GRAPH) -> Mapping[str, str]:
    """Every parameter that an event about ``kind`` can have: name → type name, nearest objects first."""
    return {
        f"{reached.name}.{field}": type_name
        for reached in graph.reach(kind).values()
        for field, type_name in graph[reached.kind].fields.items()
    }


def check(event_type: str, names: Iterable[str], graph: Graph = GRAPH) -> list[str]:
    """Why ``names`` cannot all be parameters of ``event_type``; empty when they can. Each text says what can be had."""
    known = CATALOGUE.get(event_type)
    if known is None:
        return [f"there is no event type {event_type!r}{nearest_types(event_type)}; see `curfew events list`"]
    valid = available(known.kind, graph)
    return [_refusal(event_type, known.kind, name, graph, valid) for name in names if name not in valid]


def _refusal(event_type: str, kind: str, name: str, graph: Graph, valid: Mapping[str, str]) -> str:
    if not valid:
        return f"{name} cannot be a parameter of {event_type}: {kind} objects do not reach Curfew yet"
    reached = graph.reach(kind)
    others = [other for other in reached if other != kind]
    prefix, _, field = name.partition(".")
    if not field:
        problem = "a parameter is written <object>.<field>"
    elif prefix in reached:
        problem = f"{prefix} has no field {field}; it has {', '.join(graph[reached[prefix].kind].fields)}"
    else:
        problem = f"its object is {graph[kind].about}"
    reaches = ", ".join([kind, *others]) if others else f"{kind} only"
    return (
        f"{name} cannot be a parameter of {event_type}: {problem}. "
        f"It reaches {reaches}; nearest names: {', '.join(nearest_paths(name, valid, LIKENESS) or list(valid)[:5])}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Fetch a ``kind`` whose id is in ``field`` of the object in slot ``source`` (slot 0 is the subject)."""

    source: int
    field: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to get some parameters: loads fill slots 1, 2, …; then each name is read from a slot."""

    loads: tuple[Load, ...]
    reads: tuple[tuple[str, int, str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _, _ in self.reads)


def compile_plan(kind: str, names: Iterable[str], graph: Graph = GRAPH) -> Plan:
    """The plan for ``names`` on an event about ``kind``; every object is loaded once. A name out of reach is left out,
    since :func:`check` has refused it where it was asked for."""
    valid = available(kind, graph)
    slots: dict[tuple[str, ...], int] = {(): 0}
    loads: list[Load] = []
    reads: list[tuple[str, int, str]] = []
    for name in dict.fromkeys(names):
        if name not in valid:
            continue
        prefix, _, field = name.partition(".")
        way: tuple[str, ...] = ()
        for relation in graph.reach(kind)[prefix].via:
            source, way = slots[way], (*way, relation.name)
            if way not in slots:
                slots[way] = len(slots)
                loads.append(Load(source=source, field=relation.field, kind=relation.row or relation.kind))
        reads.append((name, slots[way], field))
    return Plan(loads=tuple(loads), reads=tuple(reads))


def subject_fields(finding: Finding) -> dict[str, Value]:
    """The subject as the event saw it: its fields now (before, if it is deleted), its facts, and its ids."""
    known = finding.current if finding.current is not None else finding.previous
    return {"id": finding.subject_id, "account_id": finding.account_id, **finding.facts, **(known or {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """A row of a data source as it is looked up: what its fields hold. A field that it does not have is missing."""

    fields: Mapping[str, Value]


def resolve(plan: Plan, finding: Finding, look_up: Lookup) -> tuple[dict[str, Value], tuple[str, ...]]:
    """(parameters, missing): a name whose row is not there is None and in missing; an empty relation is just None."""
    subject = subject_fields(finding)
    slots: list[object] = [subject]
    for load in plan.loads:
        source = slots[load.source]
        if source is None or source is _ABSENT:
            slots.append(source)
            continue
        id = subject.get(load.field, _ABSENT) if source is subject else getattr(source, load.field)
        if isinstance(id, str):
            found = look_up(load.kind, id)
            slots.append(_ABSENT if found is None else found)
        else:
            slots.append(id)  # None: there is no such relation; _ABSENT: the finding did not say
    parameters: dict[str, Value] = {}
    missing: list[str] = []
    for name, slot, field in plan.reads:
        source = slots[slot]
        value: Value
        if source is None:
            value = None
        elif source is _ABSENT:
            value = None
            missing.append(name)
        elif source is subject:
            value = subject.get(field)
            if value is None and field not in subject:
                missing.append(name)
        elif isinstance(source, Present):
            value = source.fields.get(field)
            if value is None and field not in source.fields:
                missing.append(name)
        else:
            value = getattr(source, field)
        parameters[name] = value
    return parameters, tuple(missing)
