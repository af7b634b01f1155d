"""An event as a person describes it on the command line, for trying routes: fields as texts, each read as its type."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from streams.core.catalogue import EventType
from streams.core.errors import Misconfigured
from streams.core.events import Audience, Finding, Value
from streams.core.filters import MAPS, OWN, variables
from streams.core.graph import GRAPH, Graph

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def like(
    known: EventType, audience: Audience, given: Mapping[str, str], graph: Graph = GRAPH
) -> tuple[Finding, dict[str, Value]]:
    """(finding, parameters) with the given fields, all others null; raises Misconfigured for a name or a text that an
    event of this type cannot have."""
    types = variables(known.type, graph)
    own: dict[str, Any] = {"subject_id": "", "sequence": 1, "occurred_at": _EPOCH}
    maps: dict[str, dict[str, Value]] = {name: {} for name in MAPS}
    parameters: dict[str, Value] = {}
    for name, text in given.items():
        if name not in types:
            near = difflib.get_close_matches(name, list(types), n=3)
            raise Misconfigured(f"{known.type} has no {name}; did you mean {' or '.join(near or list(types)[:5])}?")
        value = typed(name, text, types[name])
        prefix, _, field = name.partition(".")
        if name in OWN:
            own[name] = value
        elif prefix in MAPS:
            maps[prefix][field] = value
        else:
            parameters[name] = value
    fixed = {"event_id": "", "type": known.type, "subject_kind": known.kind, "audience": audience}
    return Finding(**{**own, **fixed, **maps}), parameters


def typed(name: str, text: str, type_name: str) -> Value:
    """``text`` as a value of this type; ``null`` is null. Raises Misconfigured."""
    if text == "null":
        return None
    try:
        match type_name:
            case "long":
                return int(text)
            case "decimal":
                return Decimal(text)
            case "boolean":
                return {"true": True, "false": False}[text]
            case "date":
                return date.fromisoformat(text)
            case "instant":
                found = datetime.fromisoformat(text)
                return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
            case _:
                return text
    except (ValueError, KeyError, InvalidOperation):
        raise Misconfigured(f"{name}: {text!r} is no {type_name}") from None
