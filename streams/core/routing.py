"""Routing as data: which events go to which queues, with which parameters. Compiled once, followed per event."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from streams.core.catalogue import CATALOGUE, matching, nearest_types
from streams.core.events import Audience, Event, Finding, Value, text
from streams.core.graph import GRAPH
from streams.core.parameters import Lookup, Plan, available, check, compile_plan, resolve


class RouteAudience(StrEnum):
    """Which events a route takes: an internal event goes only where somebody said so."""

    CUSTOMER = "customer"
    INTERNAL = "internal"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Events of ``event_types`` (exact, or ``group.*``) go to ``queues`` (without the prefix ``queue.``).

    ``where`` maps a field to the values it may have, in the text form of :func:`streams.core.events.text`; all fields
    must agree. A field is a parameter (``account.currency``) or ``facts.…``, ``previous.…``, ``current.…``.
    ``parameters`` are wanted besides the defaults of the event type. The last route of a name counts.
    """

    name: str
    event_types: tuple[str, ...]
    queues: tuple[str, ...]
    where: dict[str, tuple[str, ...]] = field(default_factory=dict)
    parameters: tuple[str, ...] = ()
    audience: RouteAudience = RouteAudience.CUSTOMER
    active: bool = True


class Ask(Protocol):
    """Whoever reads a queue and wants parameters there, e.g. a subscription; no event types means all of them."""

    @property
    def queue(self) -> str: ...
    @property
    def event_types(self) -> tuple[str, ...]: ...
    @property
    def parameters(self) -> tuple[str, ...]: ...
    @property
    def active(self) -> bool: ...


_MAPS = ("facts", "previous", "current")


def problems(route: Route, queues: Collection[str] | None) -> list[str]:
    """Why ``route`` cannot be saved, in the order of its fields; empty when it can.

    ``queues`` are the names of those that exist; None leaves that check out.
    """
    return list(_problems(route, queues))


def _problems(route: Route, queues: Collection[str] | None) -> Iterator[str]:
    if not route.name:
        yield "a route needs a name"
    if not route.event_types:
        yield "event_types is empty, so nothing would ever match; name types, or a group as in 'invoice.*'"
    for pattern in route.event_types:
        if not matching(pattern):
            near = nearest_types(pattern.removesuffix("*"))
            yield f"there is no event type {pattern!r}{near}; see `curfew events list`"
    if not route.queues:
        yield "queues is empty; to stop a route set active = false"
    for queue in route.queues:
        if queues is not None and queue not in queues:
            there = f"there are {', '.join(sorted(queues))}" if queues else "none exists yet (`curfew topics apply`)"
            yield f"there is no queue {queue!r}; {there}; make it with `curfew queues create {queue}`"
    for event_type in _types(route.event_types):
        yield from check(event_type, route.parameters)
        for name, values in route.where.items():
            yield from _where_problems(event_type, name, values)


def _where_problems(event_type: str, name: str, values: tuple[str, ...]) -> Iterator[str]:
    known = CATALOGUE[event_type]
    prefix, _, rest = name.partition(".")
    if not values:
        yield f"where: {name} has no values, so nothing would ever match; leave it out"
    if prefix not in _MAPS:
        yield from check(event_type, (name,))
        return
    has = known.facts if prefix == "facts" else GRAPH[known.kind].fields if known.kind in GRAPH else {}
    if rest not in has:
        yield f"where: {event_type} has no {name}; {prefix} has {', '.join(has) or 'nothing'}"


def _types(patterns: Iterable[str]) -> dict[str, None]:
    return dict.fromkeys(event_type for pattern in patterns for event_type in matching(pattern))


def mismatch(route: Route, audience: str, fields: Mapping[str, str]) -> str | None:
    """Why ``route`` would not take an event of its types with this audience and these fields (text forms); None if it
    would. A field that is not given is ``null``, as in a real event."""
    if not _hears(route, audience):
        return f"is for audience {route.audience}, the event is {audience}"
    for name, values in route.where.items():
        if fields.get(name, "null") not in values:
            return f"{name} is {fields.get(name, 'null')}, not {' or '.join(values)}"
    return None


def _hears(route: Route, audience: str) -> bool:
    return route.audience is RouteAudience.ALL or route.audience.value == audience


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """One event and the queues that get it; queues of one event may differ in parameters, so there may be several."""

    event: Event
    queues: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """What became of a finding. ``unrouted``: no route takes it; ``withheld``: only routes for other audiences do."""

    dispatches: tuple[Dispatch, ...] = ()
    unrouted: bool = False
    withheld: bool = False


class Router:
    """All routes, compiled per event type on first use; make a new one when routes or asks have changed."""

    def __init__(self, routes: Iterable[Route], asks: Iterable[Ask] = ()) -> None:
        self._routes = tuple(route for route in routes if route.active)
        self._asks = tuple(ask for ask in asks if ask.active)
        self._table: dict[str, _Table] = {}
        #: Create, update and delete types that a route names exactly; only these are raised.
        self.registered: frozenset[str] = frozenset(
            pattern
            for route in self._routes
            for pattern in route.event_types
            if pattern in CATALOGUE and CATALOGUE[pattern].registered
        )

    def route(self, finding: Finding, look_up: Lookup, traceparent: str | None = None) -> Routed:
        """Enrich ``finding`` with its parameters, as the rows are now, and say where it goes."""
        table = self._table.get(finding.type)
        if table is None:
            table = self._table[finding.type] = self._compile(finding.type, finding.subject_kind)
        return table.route(finding, look_up, traceparent)

    def matches(self, event_type: str) -> tuple[Route, ...]:
        """Active routes that take this type, in the order of their names, whatever their audience and ``where``."""
        found = [route for route in self._routes if any(event_type in matching(p) for p in route.event_types)]
        return tuple(sorted(found, key=lambda route: route.name))

    def _compile(self, event_type: str, kind: str) -> _Table:
        known = CATALOGUE.get(event_type)
        defaults = known.defaults if known is not None else ()
        routes = self.matches(event_type)
        wanted: dict[str, dict[str, None]] = {}
        for route in routes:
            for queue in route.queues:
                wanted.setdefault(queue, dict.fromkeys(defaults)).update(dict.fromkeys(route.parameters))
        for ask in self._asks:
            if ask.queue in wanted and (not ask.event_types or event_type in ask.event_types):
                wanted[ask.queue].update(dict.fromkeys(ask.parameters))
        valid = available(kind)
        names = {queue: tuple(name for name in asked if name in valid) for queue, asked in wanted.items()}
        conditions = [name for route in routes for name in route.where if name.partition(".")[0] not in _MAPS]
        return _Table(
            routes=routes,
            names=names,
            plan=compile_plan(kind, [*(name for asked in names.values() for name in asked), *conditions]),
        )


class _Table:
    """The compiled routes of one event type."""

    def __init__(self, *, routes: tuple[Route, ...], names: Mapping[str, tuple[str, ...]], plan: Plan) -> None:
        self._plan = plan
        self._names = names
        self._routes = routes
        self._heard = {
            audience: [number for number, route in enumerate(routes) if _hears(route, audience)]
            for audience in Audience
        }
        self._groups: dict[tuple[int, ...], tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]] = {}

    def route(self, finding: Finding, look_up: Lookup, traceparent: str | None) -> Routed:
        if not self._routes:
            return Routed(unrouted=True)
        heard = self._heard[finding.audience]
        if not heard:
            return Routed(withheld=True)
        parameters, missing = resolve(self._plan, finding, look_up)
        taken = tuple([n for n in heard if _agrees(self._routes[n].where, finding, parameters)])
        if not taken:
            return Routed(unrouted=True)
        groups = self._groups.get(taken)
        if groups is None:
            groups = self._groups[taken] = self._group(taken)
        return Routed(
            dispatches=tuple(
                Dispatch(event=_event(finding, names, parameters, missing, traceparent), queues=queues)
                for names, queues in groups
            )
        )

    def _group(self, taken: tuple[int, ...]) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
        """(parameter names, queues) for these routes: queues that want the same get the same event."""
        groups: dict[frozenset[str], tuple[tuple[str, ...], list[str]]] = {}
        for queue in dict.fromkeys(queue for number in taken for queue in self._routes[number].queues):
            names = self._names[queue]
            groups.setdefault(frozenset(names), (names, []))[1].append(queue)
        return tuple((names, tuple(queues)) for names, queues in groups.values())


def _agrees(where: Mapping[str, tuple[str, ...]], finding: Finding, parameters: Mapping[str, Value]) -> bool:
    return not where or all(text(_field(name, finding, parameters)) in values for name, values in where.items())


def _field(name: str, finding: Finding, parameters: Mapping[str, Value]) -> Value:
    prefix, _, rest = name.partition(".")
    if prefix in _MAPS:
        fields: dict[str, Value] | None = getattr(finding, prefix)
        return (fields or {}).get(rest)
    return parameters.get(name)


def _event(
    finding: Finding,
    names: tuple[str, ...],
    parameters: dict[str, Value],
    missing: tuple[str, ...],
    traceparent: str | None,
) -> Event:
    if len(names) != len(parameters):
        parameters = {name: parameters[name] for name in names}
        missing = tuple(name for name in missing if name in parameters)
    return Event(
        event_id=finding.event_id,
        type=finding.type,
        occurred_at=finding.occurred_at,
        subject_kind=finding.subject_kind,
        subject_id=finding.subject_id,
        account_id=finding.account_id,
        sequence=finding.sequence,
        previous=finding.previous,
        current=finding.current,
        facts=finding.facts,
        audience=finding.audience,
        parameters=parameters,
        missing=missing,
        traceparent=traceparent,
    )
