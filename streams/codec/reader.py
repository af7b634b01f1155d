"""A reader compiled for one record schema and its class: Avro bytes → dataclass, without a datum in between.

Object changes are small records of texts, events are maps of values, and there are many: walking the schema anew for
each, and building objects by way of dictionaries, took three times as long as it takes to say once, as Python, what the
schema says. The reader knows only what is right: where something is odd it raises, and the caller reads again with
fastavro, which says what it is.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from enum import Enum
from typing import Any, get_args, get_origin

from streams.codec.convert import fields_of

#: (bytes, position of the record's body) → (object, position behind it).
Read = Callable[[bytes, int], tuple[Any, int]]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
#: A decimal of more bytes may have more digits than its precision.
_DECIMAL_BYTES = 15


class _Other(Exception):
    """A type, or bytes, that are left to fastavro."""


def compile_reader(cls: type, parsed: Any) -> Read | None:
    """A reader for records of ``parsed`` as ``cls``, or None when there are types in it that it does not know.

    What it returns raises all kinds of errors, or a position behind the end, for bytes that are no such record or an
    object that ``cls`` refuses.
    """
    compiler = _Compiler()
    try:
        return compiler.record(parsed, cls)
    except _Other:
        return None


class _Compiler:
    """Writes one function for each record; what the functions need is in their globals."""

    def __init__(self) -> None:
        self._globals: dict[str, Any] = {
            "unsigned": _unsigned, "even": _even, "decimal": _decimal, "instant": _instant, "date": date.fromordinal,
            "DAY": _EPOCH_DAY, "new": object.__new__, "Other": _Other,
        }  # fmt: skip
        self._records: dict[str, tuple[Any, type, str]] = {}
        #: Records that only hold an instant among other values, by name, with the schema of the instant.
        self._instants: dict[str, Any] = {}

    def record(self, schema: Any, cls: type) -> Read:
        hints = fields_of(cls) if dataclasses.is_dataclass(cls) else {}
        names = [field["name"] for field in schema["fields"]]
        if set(names) != set(hints) or not all(isinstance(getattr(cls, name), _MEMBER) for name in names):
            raise _Other
        function = f"read_{len(self._records)}"
        self._records[schema["name"]] = schema, cls, function
        body = [
            line
            for number, field in enumerate(schema["fields"])
            for line in self._field(field["type"], hints[field["name"]], f"v{number}", 1)
        ]
        for number, name in enumerate(names):  # frozen dataclasses set their fields one by one, at twice the cost
            self._globals[f"{function}_{number}"] = getattr(cls, name).__set__
        self._globals[f"{function}_class"] = cls
        text = "\n".join(
            [
                f"def {function}(b, i):",
                *body,
                f"    o = new({function}_class)",
                *(f"    {function}_{number}(o, v{number})" for number in range(len(names))),
                *(["    o.__post_init__()"] if hasattr(cls, "__post_init__") else []),
                "    return o, i",
            ]
        )
        exec(text, self._globals)  # only names of ours are in it
        read: Read = self._globals[function]
        return read

    def _field(self, schema: Any, hint: Any, target: str, depth: int) -> Iterator[str]:
        """The lines that read one value into ``target``."""
        indent = "    " * depth
        if isinstance(schema, list):
            yield from self._union(schema, hint, target, depth)
            return
        kind = schema if isinstance(schema, str) else schema["type"]
        logical = None if isinstance(schema, str) else schema.get("logicalType")
        if kind == "record" or kind in self._records:
            yield from self._nested(schema, kind, hint, target, indent)
        elif kind == "array":
            if get_origin(hint) is not tuple or get_args(hint)[1:] != (Ellipsis,):
                raise _Other
            one = self._field(schema["items"], get_args(hint)[0], f"{target}_one", depth + 2)
            yield from _block(target, depth, "[]", [*one, f"{target}_all.append({target}_one)"])
            yield f"{indent}{target} = tuple({target}_all)"
        elif kind == "map":
            if get_origin(hint) is not dict or get_args(hint)[0] is not str:
                raise _Other
            key = self._field("string", str, f"{target}_key", depth + 2)
            one = self._field(schema["values"], get_args(hint)[1], f"{target}_one", depth + 2)
            yield from _block(target, depth, "{}", [*key, *one, f"{target}_all[{target}_key] = {target}_one"])
            yield f"{indent}{target} = {target}_all"
        elif kind == "boolean" and hint is bool:
            yield f"{indent}n = b[i]; i += 1"
            yield f"{indent}if n > 1: raise Other"
            yield f"{indent}{target} = n == 1"
        elif kind in ("string", "bytes"):
            yield f"{indent}n = b[i]; i += 1"
            yield f"{indent}if n & 129: n, i = even(b, i, n)"
            yield f"{indent}j = i + (n >> 1)"
            yield f"{indent}{target} = {self._text(kind, schema, logical, hint)}; i = j"
        elif kind in ("int", "long"):
            yield f"{indent}n = b[i]; i += 1"
            yield f"{indent}if n & 128: n, i = unsigned(b, i, n)"
            yield f"{indent}{target} = {_number(logical, hint)}"
        else:
            raise _Other

    def _nested(self, schema: Any, kind: str, hint: Any, target: str, indent: str) -> Iterator[str]:
        if kind == "record":
            self.record(schema, hint)
            kind = schema["name"]
        _, cls, function = self._records[kind]
        if cls is not hint:
            raise _Other
        yield f"{indent}{target}, i = {function}(b, i)"

    def _union(self, branches: list[Any], hint: Any, target: str, depth: int) -> Iterator[str]:
        """Null or one other type, or the values of events, whose branches have a Python type each."""
        indent, test = "    " * depth, "if"
        yield f"{indent}n = b[i]; i += 1"
        for number, branch in enumerate(branches):
            yield f"{indent}{test} n == {number << 1}:"
            if branch == "null":
                yield f"{indent}    {target} = None"
            elif len(branches) == 2:
                yield from self._field(branch, _inner(hint), target, depth + 1)
            else:
                schema, inner = self._value(branch)
                if inner not in get_args(hint):
                    raise _Other
                yield from self._field(schema, inner, target, depth + 1)
            test = "elif"
        yield f"{indent}else: raise Other"

    def _value(self, branch: Any) -> tuple[Any, type]:
        """What is read of a branch among other values, and its Python type."""
        if not isinstance(branch, str) and branch["type"] == "record":
            if [field["name"] for field in branch["fields"]] != ["at"]:
                raise _Other
            self._instants[branch["name"]] = branch["fields"][0]["type"]
            branch = branch["name"]
        if isinstance(branch, str) and branch in self._instants:
            return self._instants[branch], datetime
        kind = branch if isinstance(branch, str) else (branch["type"], branch.get("logicalType"))
        if kind not in _VALUES:
            raise _Other
        return branch, _VALUES[kind]

    def _text(self, kind: str, schema: Any, logical: str | None, hint: Any) -> str:
        if kind == "string" and hint is str:
            return "b[i:j].decode()"
        if kind == "bytes" and logical is None and hint is bytes:
            return "b[i:j]"
        if kind == "string" and isinstance(hint, type) and issubclass(hint, Enum):
            name = f"enum_{hint.__name__}"
            self._globals[name] = {member.value: member for member in hint}
            return f"{name}[b[i:j].decode()]"
        if logical == "decimal" and hint is Decimal:
            name = f"context_{schema['precision']}"
            self._globals[name] = Context(prec=schema["precision"])
            return f"decimal(b[i:j], {-schema.get('scale', 0)}, {name})"
        raise _Other


_MEMBER = types.MemberDescriptorType
_VALUES: dict[Any, type] = {
    "string": str, "boolean": bool, "long": int, ("bytes", "decimal"): Decimal, ("int", "date"): date,
}  # fmt: skip


def _block(target: str, depth: int, empty: str, one: list[str]) -> Iterator[str]:
    """The lines around those for ``one`` item of an array or a map: blocks of items until an empty one."""
    indent, count = "    " * depth, f"{target}_n"
    yield f"{indent}{target}_all = {empty}"
    yield f"{indent}{count} = b[i]; i += 1"
    yield f"{indent}if {count} & 129: {count}, i = even(b, i, {count})"
    yield f"{indent}while {count}:"
    yield f"{indent}    for _ in range({count} >> 1):"
    yield from one[:-1]
    yield f"{indent}        {one[-1]}"
    yield f"{indent}    {count} = b[i]; i += 1"
    yield f"{indent}    if {count} & 129: {count}, i = even(b, i, {count})"


def _inner(hint: Any) -> Any:
    """Of an optional type the type."""
    if get_origin(hint) not in (types.UnionType, typing.Union):
        raise _Other
    found = [argument for argument in get_args(hint) if argument is not type(None)]
    if len(found) != 1:
        raise _Other
    return found[0]


def _number(logical: str | None, hint: Any) -> str:
    value = "(n >> 1 ^ -(n & 1))"
    forms: dict[tuple[str | None, Any], str] = {
        (None, int): value,
        ("date", date): f"date({value} + DAY)",
        ("timestamp-millis", datetime): f"instant({value})",
    }
    if (logical, hint) not in forms:
        raise _Other
    return forms[logical, hint]


def _unsigned(b: bytes, i: int, n: int) -> tuple[int, int]:
    """A number of several bytes, the first of which is ``n``, and the position behind it."""
    n, shift = n & 127, 7
    while True:
        more = b[i]
        i += 1
        n |= (more & 127) << shift
        if more < 128:
            break
        shift += 7
    if shift > 63 or n >> 64:
        raise _Other
    return n, i


def _even(b: bytes, i: int, n: int) -> tuple[int, int]:
    """A length that is not of one byte; a negative one is odd."""
    if n & 128:
        n, i = _unsigned(b, i, n)
    if n & 1:
        raise _Other
    return n, i


def _decimal(data: bytes, exponent: int, context: Context) -> Decimal:
    if len(data) > _DECIMAL_BYTES:
        raise _Other
    return Decimal(int.from_bytes(data, "big", signed=True)).scaleb(exponent, context)


def _instant(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)
