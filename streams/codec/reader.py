"""A reader compiled for one record schema and its class: Avro bytes → dataclass, without a datum in between.

Object changes are small records of texts, and there are many: walking the schema anew for each, and building objects by
way of dictionaries, took three times as long as it takes to say once, as Python, what the schema says. The reader knows
only what is right: where something is odd it raises, and the caller reads again with fastavro, which says what it is.
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
            if len(schema) != 2 or schema[0] != "null":
                raise _Other
            yield f"{indent}n = b[i]; i += 1"
            yield f"{indent}if n == 2:"
            yield from self._field(schema[1], _inner(hint), target, depth + 1)
            yield f"{indent}elif n: raise Other"
            yield f"{indent}else: {target} = None"
            return
        kind = schema if isinstance(schema, str) else schema["type"]
        logical = None if isinstance(schema, str) else schema.get("logicalType")
        if kind == "record" or kind in self._records:
            yield from self._nested(schema, kind, hint, target, indent)
        elif kind == "array":
            yield from self._array(schema["items"], hint, target, depth)
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

    def _array(self, items: Any, hint: Any, target: str, depth: int) -> Iterator[str]:
        indent, inner = "    " * depth, "    " * (depth + 1)
        arguments = get_args(hint)
        if get_origin(hint) is not tuple or len(arguments) != 2 or arguments[1] is not Ellipsis:
            raise _Other
        count, found = f"{target}_n", f"{target}_all"
        yield f"{indent}{found} = []"
        yield f"{indent}{count} = b[i]; i += 1"
        yield f"{indent}if {count} & 129: {count}, i = even(b, i, {count})"
        yield f"{indent}while {count}:"
        yield f"{inner}for _ in range({count} >> 1):"
        yield from self._field(items, arguments[0], f"{target}_one", depth + 2)
        yield f"{inner}    {found}.append({target}_one)"
        yield f"{inner}{count} = b[i]; i += 1"
        yield f"{inner}if {count} & 129: {count}, i = even(b, i, {count})"
        yield f"{indent}{target} = tuple({found})"

    def _text(self, kind: str, schema: Any, logical: str | None, hint: Any) -> str:
        if kind == "string" and hint is str:
            return "b[i:j].decode()"
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
