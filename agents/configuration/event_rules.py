"""A file of event rules: ``[[rule]]`` tables in TOML, read strictly, checked as a whole before anything is saved."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import fields
from datetime import time
from pathlib import Path
from typing import Any

import msgspec

from agents.field_problems import field_problem
from streams.core.errors import Misconfigured
from streams.core.event_rules import EventRule

_FIELDS = tuple(field.name for field in fields(EventRule))


def read_rules(path: Path) -> list[EventRule]:
    """The rules of a file, all of them valid; raises Misconfigured with every problem of the file otherwise."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path} is not TOML: {error}") from error
    tables = document.get("rule")
    if set(document) != {"rule"} or not isinstance(tables, list) or not tables:
        raise Misconfigured(f"{path}: a file of event rules has [[rule]] tables, at least one, and nothing else")
    found: list[str] = []
    rules: dict[str, EventRule] = {}
    for number, table in enumerate(tables, 1):
        name = table.get("name", f"number {number}") if isinstance(table, dict) else f"number {number}"
        try:
            rule = _rule(table)
        except Misconfigured as error:
            found.append(f"rule {name}: {error}")
            continue
        if rule.name in rules:
            found.append(f"rule {name}: the name is used twice; the last one would silently win")
        rules[rule.name] = rule
    if found:
        raise Misconfigured(f"{path}: nothing was saved.\n" + "\n".join(f"  {problem}" for problem in found))
    return list(rules.values())


def _rule(table: Any) -> EventRule:
    if not isinstance(table, dict):
        raise Misconfigured(f"write it as a table, [[rule]], not as {table!r}")
    for key in table:
        if key not in _FIELDS:
            near = difflib.get_close_matches(key, _FIELDS, n=1) or _FIELDS
            raise Misconfigured(f"there is no field {key!r}; did you mean {', '.join(near)}?")
    at = table.get("at")
    if isinstance(at, time):  # TOML has a type for it: at = 09:00:00
        if at.second or at.microsecond:
            raise Misconfigured(f"at is {at.isoformat()}; rules are to the minute, e.g. 09:00")
        table = {**table, "at": at.isoformat(timespec="minutes")}
    try:
        return msgspec.convert(table, EventRule)
    except msgspec.ValidationError as error:
        raise Misconfigured(field_problem(error, EventRule)) from error
