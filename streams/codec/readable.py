"""Avro data ⇄ JSON that a person can read and write, without loss, guided by the schema.

Decimals are text (``"12.50"``), instants and dates are ISO 8601, bytes are base64. Where a union has one branch beside
null, the value stands for itself; where it has several, everything but boolean, long, string and null says its branch:
``{"decimal": "12.50"}``, ``{"date": "2026-03-01"}``, ``{"curfew.events.Instant": {"at": "2026-03-01T00:00:00Z"}}``.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Set
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from streams.codec.schemas import named_types

_SCALARS: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "int": (int,),
    "long": (int,),
    "string": (str,),
}
_NUMBERS = {"float", "double"}

Named = dict[str, Any]
#: Fields of records, each as (record, field).
Fields = Set[tuple[str, str]]
#: Stands for a value that may be personal data.
MASKED = "(masked)"


def personal(schema: Any) -> Fields:
    """The fields of a parsed schema that are marked with ``"pii": true``."""
    records = [one for one in named_types(schema).values() if one["type"] == "record"]
    return {(record["name"], field["name"]) for record in records for field in record["fields"] if field.get("pii")}


def to_json(schema: Any, datum: Any, named: Named | None = None, masked: Fields = frozenset()) -> Any:
    """``datum`` as read by fastavro with the parsed ``schema`` → JSON values, with :data:`MASKED` for what is in the
    fields ``masked``."""
    named = named_types(schema) if named is None else named
    schema = _resolve(schema, named)
    if isinstance(schema, list):
        branch = _branch_of(schema, datum, named)
        value = to_json(branch, datum, named, masked)
        return value if _speaks_for_itself(schema, branch) else {_label(branch): value}
    kind, logical = _kinds(schema)
    if logical is not None:
        return _WRITE_LOGICAL[logical](datum)
    if kind == "record":
        return {
            field["name"]: MASKED
            if (schema["name"], field["name"]) in masked and datum[field["name"]] is not None
            else to_json(field["type"], datum[field["name"]], named, masked)
            for field in schema["fields"]
        }
    if kind == "array":
        return [to_json(schema["items"], item, named, masked) for item in datum]
    if kind == "map":
        return {key: to_json(schema["values"], item, named, masked) for key, item in datum.items()}
    return base64.b64encode(datum).decode() if kind in ("bytes", "fixed") else datum


def from_json(schema: Any, value: Any, path: str = "value", named: Named | None = None) -> Any:
    """JSON values → a datum for fastavro; raises ValueError that names the field and says what it must look like."""
    named = named_types(schema) if named is None else named
    schema = _resolve(schema, named)
    if isinstance(schema, list):
        return _from_union(schema, value, path, named)
    kind, logical = _kinds(schema)
    if logical is not None:
        try:
            found = _READ_LOGICAL[logical](value)
        except (ValueError, TypeError, AttributeError, InvalidOperation):
            raise ValueError(f"{path} must be {_EXAMPLE[logical]}, not {value!r}") from None
        return _within(schema, found, path) if logical == "decimal" else found
    if kind == "record":
        return _from_record(schema, value, path, named)
    if kind == "array" and isinstance(value, list):
        return [from_json(schema["items"], item, f"{path}[{i}]", named) for i, item in enumerate(value)]
    if kind == "map" and isinstance(value, dict):
        return {key: from_json(schema["values"], item, f"{path}.{key}", named) for key, item in value.items()}
    if kind in _NUMBERS and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind == "bytes" and isinstance(value, str):
        return base64.b64decode(value, validate=True)
    if isinstance(value, _SCALARS.get(kind, ())) and (kind == "boolean" or not isinstance(value, bool)):
        return value
    raise ValueError(f"{path} must be {'an' if kind[0] in 'aei' else 'a'} {kind}, not {value!r}")


def _from_record(schema: dict[str, Any], value: Any, path: str, named: Named) -> dict[str, Any]:
    name = schema["name"].rpartition(".")[2]
    if not isinstance(value, dict):
        raise ValueError(f"{path} must be an object with the fields of {name}, not {value!r}")
    fields = {field["name"]: field for field in schema["fields"]}
    if unknown := value.keys() - fields.keys():
        raise ValueError(f"{path}.{min(unknown)} is no field of {name}; it has {', '.join(fields)}")
    datum = {}
    for key, field in fields.items():
        if key in value:
            datum[key] = from_json(field["type"], value[key], f"{path}.{key}", named)
        elif "default" in field:
            # defaults in a schema are in Avro's JSON; ours are null, [], {} and scalars, which are the same here
            datum[key] = from_json(field["type"], field["default"], f"{path}.{key}", named)
        else:
            raise ValueError(f"{path}.{key} is missing: {name} needs it")
    return datum


def _from_union(schema: list[Any], value: Any, path: str, named: Named) -> Any:
    branches = [_resolve(branch, named) for branch in schema]
    if isinstance(value, dict) and len(value) == 1:
        [(label, inner)] = value.items()
        for branch in branches:
            if label in (_label(branch), _kinds(branch)[0]) and not _could_hold(branch, label):
                return from_json(branch, inner, path, named)
    if value is None and "null" in branches:
        return None
    others = [branch for branch in branches if branch != "null"]
    if len(others) == 1:
        return from_json(others[0], value, path, named)
    for branch in others:
        if _kinds(branch)[1] is None and isinstance(value, _SCALARS.get(_kinds(branch)[0], ())):
            return from_json(branch, value, path, named)
    labels = ", ".join(f'{{"{_label(branch)}": …}}' for branch in others if not _plain(branch))
    raise ValueError(f"{path} must be null, true, a whole number, text, or one of {labels}, not {value!r}")


def _could_hold(branch: Any, label: str) -> bool:
    """Whether ``label`` may be data of the branch instead of its name."""
    if not isinstance(branch, dict):
        return False
    return branch["type"] == "map" or any(field["name"] == label for field in branch.get("fields", ()))


def _branch_of(schema: list[Any], datum: Any, named: Named) -> Any:
    branches = [_resolve(branch, named) for branch in schema]
    return next(branch for branch in branches if _holds(branch, datum))


def _holds(branch: Any, datum: Any) -> bool:
    kind, logical = _kinds(branch)
    if logical is not None:
        return type(datum) is _PYTHON_TYPE[logical]
    if kind in _SCALARS:
        return type(datum) in _SCALARS[kind]
    return isinstance(datum, {"record": dict, "map": dict, "array": list, "bytes": bytes}.get(kind, float))


def _speaks_for_itself(schema: list[Any], branch: Any) -> bool:
    return len([other for other in schema if other != "null"]) == 1 or _plain(branch)


def _plain(branch: Any) -> bool:
    kind, logical = _kinds(branch)
    return logical is None and kind in _SCALARS


def _label(branch: Any) -> str:
    kind, logical = _kinds(branch)
    return logical or (str(branch["name"]) if kind == "record" else kind)


def _kinds(schema: Any) -> tuple[str, str | None]:
    """Avro type and logical type, the latter only if it is one that we read."""
    if isinstance(schema, str):
        return schema, None
    logical = schema.get("logicalType")
    return str(schema["type"]), (logical if logical in _READ_LOGICAL else None)


def _resolve(schema: Any, named: Named) -> Any:
    return named.get(schema, schema) if isinstance(schema, str) else schema


def _instant_text(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _instant(value: str | int) -> datetime:
    if isinstance(value, int):
        return datetime.fromtimestamp(value / 1000, UTC)
    found = datetime.fromisoformat(value)
    if found.tzinfo is None:
        raise ValueError("no zone")
    return found.astimezone(UTC)


def _decimal(value: str | int) -> Decimal:
    if isinstance(value, float | bool):
        raise TypeError("money is never a float")
    return Decimal(value)


def _within(schema: dict[str, Any], value: Decimal, path: str) -> Decimal:
    """``value``, if the schema's decimals have room for it: fastavro would not say which field was wrong."""
    if not value.is_finite():
        raise ValueError(f"{path} must be {_EXAMPLE['decimal']}, not '{value}'")
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)  # it is finite
    places, before = schema.get("scale", 0), schema["precision"] - schema.get("scale", 0)
    if -exponent > places:
        raise ValueError(f"{path} is {value}: it has {-exponent} decimals, and there is room for {places}; round it")
    if len(digits) + exponent > before:
        raise ValueError(f"{path} is {value}: there is room for {before} digits before the point")
    return value


_READ_LOGICAL: dict[str, Callable[[Any], Any]] = {
    "timestamp-millis": _instant,
    "date": date.fromisoformat,
    "decimal": _decimal,
}
_WRITE_LOGICAL: dict[str, Callable[[Any], Any]] = {
    "timestamp-millis": _instant_text,
    "date": date.isoformat,
    "decimal": lambda value: format(value, "f"),
}
_PYTHON_TYPE = {"timestamp-millis": datetime, "date": date, "decimal": Decimal}
_EXAMPLE = {
    "timestamp-millis": 'an instant with its zone such as "2026-03-01T00:00:00Z"',
    "date": 'a date such as "2026-03-01"',
    "decimal": 'a decimal as text such as "12.50"',
}
