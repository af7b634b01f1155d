"""Why two versions of a schema do not get along, field by field.

The rule is FULL: every reader reads what every writer wrote, so that workers can be deployed in any order and old
topics replayed. Registries decide the same; the answer of some is a bare no, and none of them minds a logical type
that changes its meaning.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from streams.codec.schemas import named_types


def field_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One sentence per field that breaks old readers or old records; empty when ``old`` and ``new`` get along."""
    name = str(new.get("name", "")).rpartition(".")[2]
    return list(_compare(old, new, name, named_types(old), named_types(new), frozenset()))


def _compare(
    old: Any, new: Any, path: str, olds: dict[str, Any], news: dict[str, Any], above: frozenset[str]
) -> Iterator[str]:
    old, new = _resolve(old, olds), _resolve(new, news)
    if isinstance(old, list) and isinstance(new, list):
        yield from _compare_unions(old, new, path, olds, news, above)
    elif _kind(old) != _kind(new):
        yield f"{path}: {_kind(old)} became {_kind(new)}; a type cannot change, add a field under another name"
    elif _kind(old).startswith("record "):
        if _kind(old) not in above:
            yield from _compare_records(old, new, path, olds, news, above | {_kind(old)})
    elif _kind(old) == "array":
        yield from _compare(old["items"], new["items"], f"{path}[]", olds, news, above)
    elif _kind(old) == "map":
        yield from _compare(old["values"], new["values"], f"{path}{{}}", olds, news, above)


def _compare_unions(
    old: list[Any], new: list[Any], path: str, olds: dict[str, Any], news: dict[str, Any], above: frozenset[str]
) -> Iterator[str]:
    before = {_kind(_resolve(branch, olds)): branch for branch in old}
    after = {_kind(_resolve(branch, news)): branch for branch in new}
    for kind in before.keys() - after.keys():
        yield f"{path}: it may no longer be {kind}; old records with one could not be read"
    for kind in after.keys() - before.keys():
        yield f"{path}: it may now be {kind}; old readers could not read that"
    for kind in before.keys() & after.keys():
        yield from _compare(before[kind], after[kind], path, olds, news, above)


def _compare_records(
    old: dict[str, Any],
    new: dict[str, Any],
    path: str,
    olds: dict[str, Any],
    news: dict[str, Any],
    above: frozenset[str],
) -> Iterator[str]:
    before = {field["name"]: field for field in old["fields"]}
    after = {field["name"]: field for field in new["fields"]}
    for name in after.keys() - before.keys():
        if "default" not in after[name]:
            yield f"{path}.{name}: added without a default; give it one, or old records cannot be read"
    for name in before.keys() - after.keys():
        if "default" not in before[name]:
            yield f"{path}.{name}: removed, but it had no default; keep it, or old readers cannot read new records"
    for name in before.keys() & after.keys():
        yield from _compare(before[name]["type"], after[name]["type"], f"{path}.{name}", olds, news, above)


def _kind(schema: Any) -> str:
    """A name for a type under which only equal types meet: with the record's name, the decimal's scale."""
    if isinstance(schema, str):
        return schema
    if isinstance(schema, list):
        return "a union of " + ", ".join(_kind(branch) for branch in schema)
    kind = schema["type"]
    if isinstance(kind, dict | list):
        return _kind(kind)
    if kind in ("record", "enum", "fixed"):
        return f"{kind} {schema['name'].rpartition('.')[2]}"
    logical = schema.get("logicalType")
    if logical == "decimal":
        return f"decimal({schema['precision']},{schema.get('scale', 0)})"
    return f"{logical} ({kind})" if logical else str(kind)


def _resolve(schema: Any, named: dict[str, Any]) -> Any:
    if isinstance(schema, str):
        return named.get(schema, schema)
    if isinstance(schema, dict) and isinstance(schema["type"], dict | list):
        return _resolve(schema["type"], named)
    return schema
