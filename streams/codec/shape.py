"""A wire dataclass and its newest schema must have the same fields; otherwise Avro would drop one without a word."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, get_args

from streams.codec.convert import INSTANT, fields_of
from streams.codec.schemas import LocalSchema, named_types
from streams.core.errors import Misconfigured


def check_shape(cls: type, schema: LocalSchema) -> None:
    """Compare names, nested records too; raises Misconfigured naming every field that only one side has."""
    differences = list(_compare(cls, schema.raw, named_types(schema.raw), schema.name))
    if differences:
        raise Misconfigured(
            f"the class {cls.__qualname__} and schemas/avro/{schema.name}/v{schema.version}.avsc differ: "
            f"{'; '.join(differences)}. Give both the same fields (a released schema gets a new version)."
        )


def _compare(cls: type, schema: dict[str, Any], records: dict[str, dict[str, Any]], path: str) -> Iterator[str]:
    ours, theirs = fields_of(cls), {field["name"]: field["type"] for field in schema["fields"]}
    for name in ours.keys() - theirs.keys():
        yield f"{path}.{name} is only in the class"
    for name in theirs.keys() - ours.keys():
        yield f"{path}.{name} is only in the schema"
    for name in ours.keys() & theirs.keys():
        for inner, record in zip(_classes(ours[name]), _records_in(theirs[name], records), strict=False):
            yield from _compare(inner, record, records, f"{path}.{name}")


def _classes(hint: Any) -> list[type]:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return [hint]
    return [found for argument in get_args(hint) for found in _classes(argument)]


def _records_in(schema: Any, records: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(schema, str):
        return [records[schema]] if schema in records else []
    if isinstance(schema, list):
        return [found for branch in schema for found in _records_in(branch, records)]
    kind = schema["type"]
    if kind == "record":
        return [] if schema["name"] in (INSTANT, INSTANT.rpartition(".")[2]) else [schema]
    return _records_in(schema.get("items", schema.get("values", "null")), records) if kind in ("array", "map") else []
