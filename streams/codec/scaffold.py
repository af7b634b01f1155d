"""A first example for a schema that has none: everything filled in, and everything empty that may be empty."""

from __future__ import annotations

from typing import Any

from streams.codec.readable import Named

# by the last word of a field's name, so that an example reads like a record and not like a test pattern
_TEXTS = {
    "zone": "Europe/Lisbon",
    "currency": "EUR",
    "locale": "pt-PT",
    "email": "ana@example.org",
    "url": "https://example.org/hook",
    "op": "updated",
    "status": "Active",
    "state": "Active",
    "period": "2026-02",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}
_PLAIN = ["boolean", "long", "string"]
_INSTANT, _DATE, _DECIMAL = "2026-02-28T23:00:00.250Z", "2026-03-01", "12.500000"


def example(schema: Any, *, full: bool, name: str = "value", named: Named | None = None) -> Any:
    """Readable JSON for the parsed ``schema``: all unions at their richest, arrays and maps filled; or all empty."""
    named = {} if named is None else named
    schema = named.get(schema, schema) if isinstance(schema, str) else schema
    if isinstance(schema, list):
        if not full and "null" in schema:
            return None
        return example(next(branch for branch in schema if branch != "null"), full=full, name=name, named=named)
    kind = schema if isinstance(schema, str) else schema["type"]
    if kind == "record":
        named[schema["name"]] = schema
        return {
            field["name"]: example(field["type"], full=full, name=field["name"], named=named)
            for field in schema["fields"]
        }
    if kind == "array":
        return [example(schema["items"], full=full, name=name, named=named)] if full else []
    if kind == "map":
        return _map(schema["values"], name, named) if full else {}
    return _scalar(schema, kind, name, full)


def _map(values: Any, name: str, named: Named) -> dict[str, Any]:
    if not isinstance(values, list):
        return {"key": example(values, full=True, name=name, named=named)}
    every: dict[str, Any] = {"nothing": None}
    for branch in (branch for branch in values if branch != "null"):
        label = branch if isinstance(branch, str) else branch.get("logicalType", branch.get("name", branch["type"]))
        value = example(branch, full=True, name=label, named=named)
        every[label.rpartition(".")[2].lower()] = (
            value if isinstance(branch, str) and branch in _PLAIN else {label: value}
        )
    return every


def _scalar(schema: Any, kind: str, name: str, full: bool) -> Any:
    logical = None if isinstance(schema, str) else schema.get("logicalType")
    by_type: dict[str | None, Any] = {
        "timestamp-millis": _INSTANT,
        "date": _DATE,
        "decimal": _DECIMAL,
        "boolean": full,
        "int": 3,
        "long": 41,
        "bytes": "AGtleQ==" if full else "",
        "double": 1.5,
    }
    found = by_type.get(logical or kind)
    return _TEXTS.get(name.rpartition("_")[2], f"{name.replace('_', '-')}-1") if found is None else found
