"""A file of routes: ``[[route]]`` tables in TOML, read strictly, checked as a whole before anything is saved."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

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
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path} is not TOML: {error}") from error
    tables = document.get("route")
    if set(document) != {"route"} or not isinstance(tables, list) or not tables:
        raise Misconfigured(f"{path}: a file of routes has [[route]] tables, at least one, and nothing else")
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
    if found:
        raise Misconfigured(f"{path}: nothing was saved.\n" + "\n".join(f"  {problem}" for problem in found))
    return list(routes.values())


def _route(table: dict[str, Any]) -> Route:
    for key in table:
        if key not in _FIELDS:
            near = difflib.get_close_matches(key, _FIELDS, n=1) or _FIELDS
            raise Misconfigured(f"there is no field {key!r}; did you mean {', '.join(near)}?")
    try:
        return msgspec.convert(table, Route)
    except msgspec.ValidationError as error:
        raise Misconfigured(field_problem(error, Route)) from error
