"""Types of what events carry in ``facts``: a fact of one name has one type wherever it occurs, for filters to check.

A fact that is called as a field of its event's object has that field's type; the others are listed here.
"""

from __future__ import annotations

from collections.abc import Mapping

from streams.core.catalogue import EventType
from streams.core.graph import GRAPH

#: Fact → name of its type, for facts that are no fields of their event's object.
FACT_TYPES: Mapping[str, str] = {
    "version": "long",
    "reason": "string",
    "percent": "long",
    "failures": "long",
    "failing_since": "instant",
    "status": "long",
    "success_percent": "long",
    "name": "string",
    "from": "string",
    "to": "string",
    "start_missing": "boolean",
    "from_product_id": "string",
    "to_product_id": "string",
    "channel": "string",
    "policy": "string",
    "request_id": "string",
    "superseded_by": "string",
    "from_zone": "string",
    "zone": "string",
    "task_kind": "string",
    "task_name": "string",
    "overdue_at": "instant",
    "rule": "string",
    "days": "long",
    "at": "string",
    "due_at": "instant",
    "silent_since": "instant",
    "dormant_at": "instant",
    "usage_at": "instant",
    "correction": "boolean",
    "tier": "long",
    "tiers": "long",
    "tier_amount": "decimal",
    "tier_name": "string",
    "threshold": "decimal",
    "used": "decimal",
    "usage_id": "string",
    "commit": "decimal",
    "measured": "decimal",
    "shortfall": "decimal",
    "period_start": "instant",
    "period_end": "instant",
    "period_starts_on": "date",
    "period_ends_on": "date",
    "late": "boolean",
    "rerate_from": "instant",
    "rerate_to": "instant",
}


def fact_type(known: EventType, name: str) -> str:
    """The name of the type of a fact; ``any`` for one that nobody has said: a filter on it cannot be checked."""
    if known.kind in GRAPH and name in GRAPH[known.kind].fields:
        return GRAPH[known.kind].fields[name]
    return FACT_TYPES.get(name, "any")
