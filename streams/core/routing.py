"""Routing as data: which events go to which queues, with which parameters. Compiled once, followed per event."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from streams.core.catalogue import CATALOGUE, matching, nearest_types
from streams.core.events import Audience, Event, Finding, Value
from streams.core.filters import Condition, InvalidFilter, Language, Unfit, variables
from streams.core.graph import GRAPH, Graph
from streams.core.parameters import Lookup, Plan, available, check, compile_plan, resolve


class RouteAudience(StrEnum):
    """Which events a route takes: an internal event goes only where somebody said so."""

    CUSTOMER = "customer"
    INTERNAL = "internal"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Events of ``event_types`` (exact, or ``group.*``) go to ``queues`` (without the prefix ``queue.``).

    ``filter`` is an expression over the event (:mod:`streams.core.filters`), empty for all of them. ``parameters`` are
    wanted besides the defaults of the event type. The last route of a name counts.
    """

    name: str
    event_types: tuple[str, ...]
    queues: tuple[str, ...]
    filter: str = ""
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


def problems(
    route: Route, queues: Collection[str] | None, language: Language, graph: Graph | None = GRAPH
) -> list[str]:
    """Why ``route`` cannot be saved, in the order of its fields; empty when it can.

    ``queues`` are the names of those that exist, ``graph`` what parameters there are; None leaves that check out.
    """
    return list(dict.fromkeys(_problems(route, queues, language, graph)))


def _problems(route: Route, queues: Collection[str] | None, language: Language, graph: Graph | None) -> Iterator[str]:
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
    if graph is not None:
        for event_type in _types(route.event_types):
            yield from check(event_type, route.parameters, graph)
            yield from filter_problems(route.filter, event_type, language, graph)


def filter_problems(expression: str, event_type: str, language: Language, graph: Graph) -> Iterator[str]:
    """Why events of this type cannot be filtered so."""
    try:
        if expression:
            language.check(expression, variables(event_type, graph))
    except InvalidFilter as error:
        yield f"filter on {event_type}: {error}"


def _types(patterns: Iterable[str]) -> dict[str, None]:
    return dict.fromkeys(event_type for pattern in patterns for event_type in matching(pattern))


def mismatch(route: Route, finding: Finding, parameters: Mapping[str, Value], language: Language) -> str | None:
    """Why ``route`` would not take an event of its types that is like ``finding``; None if it would. A parameter or
    field that is not given is null, as in a real event."""
    if not _hears(route, finding.audience):
        return f"is for audience {route.audience}, the event is {finding.audience}"
    try:
        if not route.filter or Condition(language.compile(route.filter))(finding, parameters):
            return None
    except Unfit as error:
        return f"the filter {route.filter!r} has no answer: {error}"
    return f"the filter {route.filter!r} does not agree"


def _hears(route: Route, audience: str) -> bool:
    return route.audience is RouteAudience.ALL or route.audience.value == audience


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """One event and the queues that get it; queues of one event may differ in parameters, so there may be several."""

    event: Event
    queues: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """What became of a finding. ``unrouted``: no route takes it; ``withheld``: only routes for other audiences do;
    ``unfit``: names of routes whose filter had no answer, so that they did not take it."""

    dispatches: tuple[Dispatch, ...] = ()
    unrouted: bool = False
    withheld: bool = False
    unfit: tuple[str, ...] = ()


class Router:
    """All routes, compiled per event type on first use; make a new one when routes or asks have changed."""

    def __init__(
        self, routes: Iterable[Route], asks: Iterable[Ask] = (), *, language: Language, graph: Graph = GRAPH
    ) -> None:
        self._language = language
        self._graph = graph
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
        """Active routes that take this type, in the order of their names, whatever their audience and filter."""
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
        valid = available(kind, self._graph)
        names = {queue: tuple(name for name in asked if name in valid) for queue, asked in wanted.items()}
        conditions = [Condition(self._language.compile(route.filter)) if route.filter else None for route in routes]
        compared = [name for condition in conditions if condition is not None for name in condition.parameters]
        asked_for = [name for asked in names.values() for name in asked]
        return _Table(
            routes=routes,
            conditions=conditions,
            names=names,
            plan=compile_plan(kind, [*asked_for, *compared], self._graph),
        )


class _Table:
    """The compiled routes of one event type."""

    def __init__(
        self,
        *,
        routes: tuple[Route, ...],
        conditions: Sequence[Condition | None],
        names: Mapping[str, tuple[str, ...]],
        plan: Plan,
    ) -> None:
        self._plan = plan
        self._conditions = conditions
        self._filtered = any(condition is not None for condition in conditions)
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
        unfit: tuple[str, ...] = ()
        taken = tuple(heard)
        if self._filtered:
            taken, unfit = self._agreeing(heard, finding, parameters)
        if not taken:
            return Routed(unrouted=True, unfit=unfit)
        groups = self._groups.get(taken)
        if groups is None:
            groups = self._groups[taken] = self._group(taken)
        return Routed(
            dispatches=tuple(
                Dispatch(event=_event(finding, names, parameters, missing, traceparent), queues=queues)
                for names, queues in groups
            ),
            unfit=unfit,
        )

    def _agreeing(
        self, heard: Iterable[int], finding: Finding, parameters: Mapping[str, Value]
    ) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """(numbers of the routes whose filter agrees, names of those whose filter has no answer)."""
        taken: list[int] = []
        unfit: list[str] = []
        for number in heard:
            condition = self._conditions[number]
            try:
                if condition is None or condition(finding, parameters):
                    taken.append(number)
            except Unfit:
                unfit.append(self._routes[number].name)
        return tuple(taken), tuple(unfit)

    def _group(self, taken: tuple[int, ...]) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
        """(parameter names, queues) for these routes: queues that want the same get the same event."""
        groups: dict[frozenset[str], tuple[tuple[str, ...], list[str]]] = {}
        for queue in dict.fromkeys(queue for number in taken for queue in self._routes[number].queues):
            names = self._names[queue]
            groups.setdefault(frozenset(names), (names, []))[1].append(queue)
        return tuple((names, tuple(queues)) for names, queues in groups.values())


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
        hops=finding.hops,
        traceparent=traceparent,
    )
