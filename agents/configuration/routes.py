"""A file of routes: ``[[route]]`` tables in TOML, read strictly, checked as a whole before anything is saved."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from agents.configuration.tables import no_strangers, read_tables, refuse
from agents.field_problems import field_problem
from streams.core.errors import Misconfigured
from streams.core.graph import GRAPH, Graph
from streams.core.routing import Route, problems
from streams.filters import CelLanguage

_FIELDS = tuple(field.name for field in fields(Route))


def read_routes(path: Path, queues: Collection[str] | None, graph: Graph | None = GRAPH) -> list[Route]:
    """The routes of a file, all of them valid; raises Misconfigured with every problem of the file otherwise.

    ``queues`` are the names of those that exist, ``graph`` says which parameters there are; None leaves that check out.
    """
    language = CelLanguage()
    tables = read_tables(path, "route", "routes", Decimal)
    found: list[str] = []
    routes: dict[str, Route] = {}
    for number, table in enumerate(tables, 1):
        name = table.get("name", f"number {number}")
        try:
            route = _route(table)
        except Misconfigured as error:
            found.append(f"route {name}: {error}")
            continue
        if route.name in routes:
            found.append(f"route {name}: the name is used twice; the last one would silently win")
        routes[route.name] = route
        found.extend(f"route {name}: {problem}" for problem in problems(route, queues, language, graph))
    refuse(path, found)
    return list(routes.values())


def _route(table: dict[str, Any]) -> Route:
    no_strangers(table, _FIELDS)
    try:
        return msgspec.convert(table, Route)
    except msgspec.ValidationError as error:
        raise Misconfigured(field_problem(error, Route)) from error
