"""A file of event rules: ``[[rule]]`` tables in TOML, read strictly, checked as a whole before anything is saved."""

from __future__ import annotations

from dataclasses import fields
from datetime import time
from pathlib import Path
from typing import Any

import msgspec

from agents.configuration.tables import no_strangers, read_tables, refuse
from agents.field_problems import field_problem
from streams.core.errors import Misconfigured
from streams.core.event_rules import EventRule

_FIELDS = tuple(field.name for field in fields(EventRule))


def read_rules(path: Path) -> list[EventRule]:
    """The rules of a file, all of them valid; raises Misconfigured with every problem of the file otherwise."""
    tables = read_tables(path, "rule", "event rules")
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
    refuse(path, found)
    return list(rules.values())


def _rule(table: Any) -> EventRule:
    if not isinstance(table, dict):
        raise Misconfigured(f"write it as a table, [[rule]], not as {table!r}")
    no_strangers(table, _FIELDS)
    at = table.get("at")
    if isinstance(at, time):  # TOML has a type for it: at = 09:00:00
        if at.second or at.microsecond:
            raise Misconfigured(f"at is {at.isoformat()}; rules are to the minute, e.g. 09:00")
        table = {**table, "at": at.isoformat(timespec="minutes")}
    try:
        return msgspec.convert(table, EventRule)
    except msgspec.ValidationError as error:
        raise Misconfigured(field_problem(error, EventRule)) from error
