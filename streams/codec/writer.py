"""A writer compiled for one record schema: dataclass → Avro bytes, without a datum in between.

Events and findings are maps of values, and fastavro looks for the branch of the union anew for each value: that was the
dearest step on the way of an event. Here a value's Python type says the branch. Only schemas of plain fields, lists of
texts or records and maps of values are compiled; the others stay with fastavro. The bytes are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from operator import attrgetter
from typing import Any

from fastavro import schemaless_writer

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_MS = timedelta(milliseconds=1)
_LONGS = range(-(2**63), 2**63)
#: Names and states come again and again; a memo without a bound would keep every text that was ever sent.
_MEMO = 8_192
#: Texts from this length on are not likely to come again; ids of events, which never do, have 36 characters.
_SHORT, _NAME = 64, 32

Write = Callable[[Any], bytes]


def compile_writer(parsed: Any) -> Write | None:
    """Object → the body of its record (without the wire format's header), or None when the schema has other types.

    What it returns raises AttributeError, KeyError, TypeError, ValueError or OverflowError for an object that does not
    fit the schema.
    """
    steps = [_field(field["type"]) for field in parsed["fields"]]
    if None in steps or len(steps) < 2:
        return None
    writes: list[Write] = [step for step in steps if step is not None]
    read = attrgetter(*(field["name"] for field in parsed["fields"]))
    join = b"".join
    return lambda obj: join([write(value) for write, value in zip(writes, read(obj), strict=True)])


def _field(schema: Any) -> Write | None:
    if isinstance(schema, list):
        if len(schema) == 2 and schema[0] == "null" and (inner := _field(schema[1])) is not None:
            return lambda value: b"\x00" if value is None else b"\x02" + inner(value)
        return None
    if isinstance(schema, str):
        return _SCALARS.get(schema)
    kind = schema["type"]
    if schema.get("logicalType") == "timestamp-millis":
        return _instant
    if kind == "array":
        return _texts if schema["items"] == "string" else _list(schema["items"])
    if kind == "map" and isinstance(schema["values"], list):
        return _map(schema["values"])
    return _SCALARS.get(kind) if "logicalType" not in schema else None


def _long(value: int) -> bytes:
    if value not in _LONGS:
        raise OverflowError(f"{value} does not fit into 64 bits")
    number = value << 1 if value >= 0 else ~(value << 1)
    if number < 128:
        return _BYTES[number]
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


_BYTES = [bytes((number,)) for number in range(256)]


_TEXTS: dict[str, bytes] = {}


def _text(value: str) -> bytes:
    found = _TEXTS.get(value)
    if found is not None:
        return found
    data = value.encode()
    size = len(data)
    written = (_BYTES[size << 1] if size < 64 else _long(size)) + data
    if size < _NAME:
        if len(_TEXTS) >= _MEMO:
            _TEXTS.clear()
        _TEXTS[value] = written
    return written


def _bytes(value: bytes) -> bytes:
    return _long(len(value)) + value


def _boolean(value: bool) -> bytes:
    return b"\x01" if value else b"\x00"


def _instant(value: datetime) -> bytes:
    return _long((value - _EPOCH) // _MS)


def _texts(values: Any) -> bytes:
    return b"\x00" if not values else b"".join([_long(len(values)), *map(_text, values), b"\x00"])


def _list(items: Any) -> Write | None:
    write = compile_writer(items) if isinstance(items, dict) and items["type"] == "record" else None
    if write is None:
        return None
    return lambda values: b"".join([_long(len(values)), *map(write, values), b"\x00"]) if values else b"\x00"


_SCALARS: dict[str, Write] = {"string": _text, "bytes": _bytes, "long": _long, "int": _long, "boolean": _boolean}


def _map(branches: list[Any]) -> Write | None:
    """A map of values: null, string, boolean, long, decimal, date, and a record with an instant in it."""
    at = {_name(branch): (number, branch) for number, branch in enumerate(branches)}
    if set(at) != {"null", "string", "boolean", "long", "bytes", "int", "record"}:
        return None
    tags = {name: _BYTES[number << 1] for name, (number, _) in at.items()}
    decimal = at["bytes"][1]
    pairs: dict[tuple[str, str], bytes] = {}

    def amount(value: Decimal) -> bytes:
        out = BytesIO()
        schemaless_writer(out, decimal, value)
        return tags["bytes"] + out.getvalue()

    writers: dict[type, Write] = {
        type(None): lambda value: tags["null"],
        str: lambda value: tags["string"] + _text(value),
        bool: lambda value: tags["boolean"] + _boolean(value),
        int: lambda value: tags["long"] + _long(value),
        Decimal: amount,
        date: lambda value: tags["int"] + _long(value.toordinal() - _EPOCH_DAY),
        datetime: lambda value: tags["record"] + _instant(value),
    }

    def pair(key: str, value: Any) -> bytes:
        kind = type(value)
        written = _text(key) + (writers.get(kind) or writers[_base(kind)])(value)
        if kind is str and len(value) < _SHORT:
            if len(pairs) >= _MEMO:
                pairs.clear()
            pairs[key, value] = written
        return written

    def write(values: dict[str, Any]) -> bytes:
        if not values:
            return b"\x00"
        known = pairs.get
        body = b"".join([known(item) or pair(*item) for item in values.items()])
        return b"%b%b\x00" % (_long(len(values)), body)

    return write


def _base(kind: type) -> type:
    """Enumerations of texts travel as texts."""
    return str if issubclass(kind, str) else kind


def _name(branch: Any) -> str:
    if isinstance(branch, str):
        return branch if branch in ("null", "string", "boolean", "long") else "record"
    return str(branch["type"])
