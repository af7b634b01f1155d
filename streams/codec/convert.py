"""Wire dataclasses ⇄ what fastavro reads and writes (dicts of ``str, int, bool, Decimal, date, datetime``).

``msgspec`` does this at the speed of C. Two things it cannot know are compiled here, once per class or schema:

* which branch of a union is meant. A branch is named to fastavro instead of letting it try them all: faster by half
  for nested records, and exact, since Python's ``datetime`` is a ``date`` and its ``bool`` an ``int``.
* the ``Value`` union of events (null, boolean, long, string, decimal, date, instant). An instant travels in it as the
  record ``curfew.events.Instant``. ``msgspec`` will not keep a union of texts, decimals and dates apart (Avro has done
  so already), so classes with a ``Value`` inside are built field by field.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any, TypeVar, get_args, get_origin

import msgspec

from streams.core.errors import Misconfigured

INSTANT = "curfew.events.Instant"
PASS_THROUGH = (datetime, date, Decimal, bytes)  # fastavro's logical types take these as they are

_BRANCH_OF: dict[type, str] = {bool: "boolean", int: "long", str: "string", Decimal: "bytes", date: "int"}
Convert = Callable[[Any], Any]
T = TypeVar("T")


def to_datum(parsed: dict[str, Any]) -> Convert:
    """Compile: dataclass → datum for ``schemaless_writer`` with this schema."""
    name_branches = _writer(parsed, {})
    if name_branches is None:
        return lambda obj: msgspec.to_builtins(obj, builtin_types=PASS_THROUGH)
    return lambda obj: name_branches(msgspec.to_builtins(obj, builtin_types=PASS_THROUGH))


def name_branches(parsed: dict[str, Any]) -> Convert:
    """Compile: datum as fastavro reads it → the same with every union branch named; changes the datum in place."""
    plain, named = _reader(parsed, {}), _writer(parsed, {})
    if named is None:
        return lambda datum: datum
    return named if plain is None else lambda datum: named(plain(datum))


def from_datum(cls: type[T], parsed: dict[str, Any]) -> Callable[[Any], T]:
    """Compile: datum of this schema → an instance of ``cls``.

    The result raises msgspec.ValidationError, ValueError or TypeError for a datum that ``cls`` refuses. Raises
    Misconfigured here, not later, for a class with types that cannot be on the wire.
    """
    build = _builder(cls) or (lambda datum: datum)
    plain = _reader(parsed, {})
    return build if plain is None else lambda datum: build(plain(datum))


def fields_of(cls: type) -> dict[str, Any]:
    """Field name → resolved type of a dataclass, type variables of generic bases filled in."""
    hints = typing.get_type_hints(cls)
    variables: dict[Any, Any] = {}
    bases: tuple[Any, ...] = vars(cls).get("__orig_bases__", ())
    for base in bases:
        origin = get_origin(base)
        if origin is not None and hasattr(origin, "__parameters__"):
            variables.update(zip(origin.__parameters__, get_args(base), strict=False))
    return {field.name: _fill(hints[field.name], variables) for field in dataclasses.fields(cls)}


def _fill(hint: Any, variables: dict[Any, Any]) -> Any:
    if isinstance(hint, TypeVar):
        return variables.get(hint, Any)
    parameters: tuple[Any, ...] = getattr(hint, "__parameters__", None) or ()
    return hint[tuple(variables.get(parameter, Any) for parameter in parameters)] if parameters else hint


# ---- classes


def _builder(hint: Any) -> Convert | None:
    """msgspec builds everything but what has a Value inside; None = leave as it is."""
    if not _has_value(hint):
        if hint in (Any, str, int, bool, Decimal, date, datetime):
            return None
        try:
            msgspec.msgpack.Decoder(hint)
        except TypeError as error:
            raise Misconfigured(f"{hint} cannot be on the wire: {error}") from error
        return lambda datum: msgspec.convert(datum, hint)
    arguments = get_args(hint)
    if not _is_value(hint) and type(None) in arguments:
        [inner] = [argument for argument in arguments if argument is not type(None)]
        build = _builder(inner)
        return build and (lambda datum: None if datum is None else build(datum))
    if get_origin(hint) is tuple:
        return _each_item(_builder(arguments[0]), tuple)
    if get_origin(hint) is dict:
        return _each_value(_builder(arguments[1]))
    return _class_builder(hint) if dataclasses.is_dataclass(hint) else None


def _class_builder(cls: Any) -> Convert:
    steps = [(name, build) for name, inner in fields_of(cls).items() if (build := _builder(inner)) is not None]

    def record(datum: dict[str, Any]) -> Any:
        for name, build in steps:
            datum[name] = build(datum[name])
        return cls(**datum)

    return record


def _has_value(hint: Any) -> bool:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return any(_has_value(inner) for inner in fields_of(hint).values())
    return _is_value(hint) or any(_has_value(argument) for argument in get_args(hint))


def _is_value(hint: Any) -> bool:
    return {date, datetime, Decimal} <= set(get_args(hint))


# ---- outwards: name the branches


def _writer(schema: Any, named: dict[str, Convert | None]) -> Convert | None:
    """None = nothing to do below this schema."""
    if isinstance(schema, list):
        return _union_writer(schema, named)
    if isinstance(schema, str):
        return named.get(schema)
    kind = schema["type"]
    if kind == "record":
        return _record_steps(schema, named, _writer)
    if kind == "array":
        return _each_item(_writer(schema["items"], named))
    if kind == "map":
        return _each_value(_writer(schema["values"], named))
    return None


def _union_writer(branches: list[Any], named: dict[str, Convert | None]) -> Convert | None:
    inner = {_branch_name(branch): _writer(branch, named) for branch in branches if branch != "null"}
    if len(inner) > 1:
        return _value_writer
    [(name, step)] = inner.items()
    if name in ("boolean", "int", "long", "float", "double", "string", "bytes"):
        return None  # one scalar or null: fastavro is quick at telling these apart
    if step is None:
        return lambda datum: None if datum is None else (name, datum)
    return lambda datum: None if datum is None else (name, step(datum))


def _branch_name(branch: Any) -> str:
    if isinstance(branch, str):
        return branch
    return str(branch["name"] if branch["type"] in ("record", "enum", "fixed") else branch["type"])


def _value_writer(value: Any) -> Any:
    if value is None:
        return None
    kind = type(value)
    if kind is datetime:
        return INSTANT, {"at": value}
    return _BRANCH_OF[kind], value


# ---- inwards: take the instants out of their records


def _reader(schema: Any, named: dict[str, Convert | None]) -> Convert | None:
    """None = nothing to do below this schema."""
    if isinstance(schema, list):
        if any(_branch_name(branch) == INSTANT for branch in schema):
            return _value_reader
        # more than one branch to work on would need a branch name, and our schemas have no such union
        only = next((step for branch in schema if (step := _reader(branch, named)) is not None), None)
        return only and (lambda datum: None if datum is None else only(datum))
    if isinstance(schema, str):
        return named.get(schema)
    kind = schema["type"]
    if kind == "record":
        return _record_steps(schema, named, _reader)
    if kind == "array":
        return _each_item(_reader(schema["items"], named))
    if kind == "map":
        step = _reader(schema["values"], named)
        if step is _value_reader:
            # the hot case, written out: only an instant differs from what Avro gives
            return lambda datum: {k: v["at"] if type(v) is dict else v for k, v in datum.items()}
        return _each_value(step)
    return None


def _value_reader(value: Any) -> Any:
    return value["at"] if type(value) is dict else value


# ---- both ways


def _record_steps(
    schema: dict[str, Any],
    named: dict[str, Convert | None],
    compiler: Callable[[Any, dict[str, Convert | None]], Convert | None],
) -> Convert | None:
    named[schema["name"]] = None  # ends the recursion of a record that contains itself
    steps = [(f["name"], step) for f in schema["fields"] if (step := compiler(f["type"], named)) is not None]
    if not steps:
        return None

    def record(datum: Any) -> Any:
        for name, step in steps:
            datum[name] = step(datum[name])
        return datum

    named[schema["name"]] = record
    return record


def _each_item(step: Convert | None, sequence: type[list[Any]] | type[tuple[Any, ...]] = list) -> Convert | None:
    return None if step is None else lambda datum: sequence(map(step, datum))


def _each_value(step: Convert | None) -> Convert | None:
    return None if step is None else lambda datum: {key: step(one) for key, one in datum.items()}
