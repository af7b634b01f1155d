"""A writer compiled for one record schema: dataclass → Avro bytes, without a datum in between.

There are many small records, and to find for each value what the schema says of it was the dearest step on the way of
an event. Here the schema becomes Python once, and the values of a record become one string: each character is one byte
(Latin-1), so that Python puts all of them together, lengths and texts, in a single step. A text that is not ASCII is
turned into the characters of its UTF-8 bytes first. The bytes are those of fastavro.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from functools import cache
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_MS = timedelta(milliseconds=1)
#: Shifts the point of any amount, which has 38 digits at most, without rounding.
_EXACT = Context(prec=64)
#: Names of facts and parameters come again and again: so many are kept, of so many characters at most.
_KNOWN_NAMES, _NAME_LENGTH = 8_192, 64

Write = Callable[[Any], str]


class _Other(Exception):
    """A type that is left to fastavro."""


def compile_writer(parsed: Any) -> Callable[[Any], bytes] | None:
    """Object → the body of its record (without the wire format's header), or None when there are types in the schema
    that the writer does not know.

    What it returns raises AttributeError, KeyError, TypeError, ValueError or OverflowError for an object that does not
    fit the schema.
    """
    try:
        write = _Compiler().record(parsed)
    except _Other:
        return None
    return lambda obj: write(obj).encode("latin-1")


class _Compiler:
    """Writes one function for each record, and one for each kind of item in a list or map; what they need is in their
    globals."""

    def __init__(self) -> None:
        self._globals: dict[str, Any] = {
            "plain": str.__str__, "bytewise": _bytewise, "N": _NUMBERS, "whole": _whole, "instant": _instant,
            "decimal": _decimal, "listed": _listed, "mapped": _mapped, "DAY": _EPOCH_DAY, "TRUTH": _TRUTH,
            "NONE": _NUMBERS[0], "SOME": _NUMBERS[1],
        }  # fmt: skip
        self._records: dict[str, str] = {}
        #: Records that only hold an instant among other values.
        self._instants: set[str] = set()

    def record(self, schema: Any) -> Write:
        function = f"record_{len(self._records)}"
        self._records[schema["name"]] = function
        names = [field["name"] for field in schema["fields"]]
        written = [self._value(field["type"], f"v{number}") for number, field in enumerate(schema["fields"])]
        read = [f"v{number} = o.{name}" for number, name in enumerate(names)]
        return self._function(function, "o", [*read, *(line for lines, _ in written for line in lines)],
                              "".join(piece for _, piece in written))  # fmt: skip

    def _function(self, name: str, argument: str, lines: list[str], piece: str) -> Write:
        body = "".join(f"    {line}\n" for line in lines)
        exec(f"def {name}({argument}):\n{body}    return f'{piece}'\n", self._globals)  # only names of ours are in it
        function: Write = self._globals[name]
        return function

    def _value(self, schema: Any, v: str) -> tuple[list[str], str]:
        """Lines that prepare the value in the variable ``v``, and what stands for it in a formatted string then."""
        if isinstance(schema, list):
            return self._optional(schema, v)
        kind = schema if isinstance(schema, str) else schema["type"]
        logical = None if isinstance(schema, str) else schema.get("logicalType")
        match kind, logical:
            case "string", None:
                # What a text of another class formats itself as may be another text than the one that was measured.
                lines = [f"if type({v}) is not str: {v} = plain({v})", f"if not {v}.isascii(): {v} = bytewise({v})"]
                return lines, f"{{N[len({v})]}}{{{v}}}"
            case "long", None:
                return [f"if type({v}) is not int: {v} = whole({v})"], f"{{N[{v}]}}"
            case "int", None:
                return [f"{v} = whole({v}, 32)"], f"{{N[{v}]}}"
            case "boolean", None:
                return [], f"{{TRUTH[{v}]}}"
            case "bytes", None:
                return [f"{v} = {v}.decode('latin-1')"], f"{{N[len({v})]}}{{{v}}}"
            case "long", "timestamp-millis":
                return [], f"{{instant({v})}}"
            case "int", "date":
                return [], f"{{N[{v}.toordinal() - DAY]}}"
            case "bytes", "decimal":
                return [], f"{{decimal({v}, {schema['precision']}, {schema.get('scale', 0)})}}"
            case "array", None:
                return [], f"{{listed({v}, {self._item(schema['items'])})}}"
            case "map", None:
                return [], f"{{{self._map(schema['values'], v)}}}"
            case "record", None:
                self.record(schema)
                return [], f"{{{self._records[schema['name']]}({v})}}"
        if kind in self._records:
            return [], f"{{{self._records[kind]}({v})}}"
        raise _Other

    def _optional(self, branches: list[Any], v: str) -> tuple[list[str], str]:
        if len(branches) != 2 or branches[0] != "null":
            raise _Other
        lines, piece = self._value(branches[1], v)
        some = [*lines, f"{v} = f'{{SOME}}{piece}'"]
        return [f"if {v} is None: {v} = NONE", "else:", *(f"    {line}" for line in some)], f"{{{v}}}"

    def _item(self, schema: Any) -> str:
        """The name of a function that writes one value."""
        name = f"item_{len(self._globals)}"
        self._globals[name] = None  # the number is taken
        self._function(name, "v", *self._value(schema, "v"))
        return name

    def _map(self, values: Any, v: str) -> str:
        if not isinstance(values, list) or len(values) == 2:
            return f"mapped({v}, {self._item(values)})"
        name = f"values_{len(self._globals)}"
        self._globals[name] = _values(dict(self._tags(values)), values)
        return f"{name}({v})"

    def _tags(self, branches: list[Any]) -> Iterator[tuple[type, str]]:
        """Each branch of the values of events: the Python type that goes there, and its number as it is written."""
        for number, branch in enumerate(branches):
            match branch:
                case "null" | "string" | "boolean" | "long":
                    kind = _PLAIN[branch]
                case {"type": "bytes", "logicalType": "decimal"}:
                    kind = Decimal
                case {"type": "int", "logicalType": "date"}:
                    kind = date
                case {"type": "record", "fields": [{"name": "at", "type": {"logicalType": "timestamp-millis"}}]}:
                    self._instants.add(branch["name"])
                    kind = datetime
                case str() if branch in self._instants:
                    kind = datetime
                case _:
                    raise _Other
            yield kind, _NUMBERS[number]


def _varint(number: int) -> str:
    """Seven bits a byte, the lowest first; each but the last one has its highest bit set."""
    out = ""
    while number > 127:
        out += chr(number & 127 | 128)
        number >>= 7
    return out + chr(number)


class _Numbers(dict[int, str]):
    """Every whole number of 64 bits as Avro writes it; only small ones are kept."""

    def __missing__(self, number: int) -> str:
        if not -(2**63) <= number < 2**63:
            raise OverflowError(f"{number} does not fit into 64 bits")
        return _varint(number << 1 if number >= 0 else ~(number << 1))


_PLAIN: dict[str, type] = {"null": type(None), "string": str, "boolean": bool, "long": int}
_TRUTH = {True: "\1", False: "\0"}
_NUMBERS = _Numbers()
_NUMBERS.update({number: _NUMBERS[number] for number in range(-64, 8_192)})
_MORE = [chr(bits | 128) for bits in range(128)]


def _bytewise(text: str) -> str:
    return text.encode().decode("latin-1")


def _text(value: str) -> str:
    text = str.__str__(value)
    if not text.isascii():
        text = _bytewise(text)
    return f"{_NUMBERS[len(text)]}{text}"


def _whole(value: Any, bits: int = 64) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no whole number")
    if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise OverflowError(f"{value} does not fit into {bits} bits")
    return int(value)


def _instant(value: datetime) -> str:
    ms = (value - _EPOCH) // _MS
    n = ms << 1
    if 2**35 <= n < 2**42:  # six bytes, from July 1970 to 2039
        return (
            f"{_MORE[n & 127]}{_MORE[n >> 7 & 127]}{_MORE[n >> 14 & 127]}{_MORE[n >> 21 & 127]}{_MORE[n >> 28 & 127]}"
            f"{chr(n >> 35)}"
        )
    return _NUMBERS[ms]


def _decimal(value: Decimal, precision: int, scale: int) -> str:
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or exponent + scale < 0 or (value and len(digits) + exponent + scale > precision):
        raise ValueError(f"{value} does not fit into {precision} digits, {scale} of them behind the point")
    number = int(value.scaleb(scale, _EXACT)) if value else 0
    size = (number.bit_length() + 8) // 8
    return f"{_NUMBERS[size]}{number.to_bytes(size, 'big', signed=True).decode('latin-1')}"


def _listed(values: Any, write: Write) -> str:
    if isinstance(values, str | bytes):
        raise TypeError(f"{values!r} is no list")
    size = len(values)  # of None there is none: "unknown" must not become "empty"
    return "".join([_NUMBERS[size], *map(write, values), "\0"]) if size else "\0"


def _mapped(values: dict[str, Any], write: Write) -> str:
    return _listed([*values.items()], lambda item: f"{_text(item[0])}{write(item[1])}")


class _Names(dict[str, str]):
    """Names in a map, each with the tag of a text behind it, since most values are texts."""

    def __init__(self, tag: str) -> None:
        self._tag = tag

    def __missing__(self, name: str) -> str:
        written = f"{_text(name)}{self._tag}"
        if len(name) <= _NAME_LENGTH:
            if len(self) >= _KNOWN_NAMES:
                self.clear()
            self[name] = written
        return written


#: Of all writers together, by their tag.
_names = cache(_Names)


def _values(tags: dict[type, str], branches: list[Any]) -> Write:
    """A map of values: null, string, boolean, long, decimal, date, and a record with an instant in it. A value's type
    says the branch."""
    if len(tags) != 7:
        raise _Other
    [(precision, scale)] = [
        (branch["precision"], branch.get("scale", 0))
        for branch in branches
        if isinstance(branch, dict) and branch.get("logicalType") == "decimal"
    ]
    writers: dict[type, Write] = {
        type(None): lambda value: tags[type(None)],
        str: lambda value: tags[str] + _text(value),
        bool: lambda value: tags[bool] + _TRUTH[value],
        int: lambda value: tags[int] + _NUMBERS[value],
        Decimal: lambda value: tags[Decimal] + _decimal(value, precision, scale),
        date: lambda value: tags[date] + _NUMBERS[value.toordinal() - _EPOCH_DAY],
        datetime: lambda value: tags[datetime] + _instant(value),
    }
    names = _names(tags[str])

    def write(values: dict[str, Any]) -> str:
        size = len(values)
        if not size:
            return "\0"
        pieces = [_NUMBERS[size]]
        add = pieces.append
        for name, value in values.items():
            kind = type(value)
            if kind is str:
                if not value.isascii():
                    value = _bytewise(value)
                add(f"{names[name]}{_NUMBERS[len(value)]}{value}")
            else:
                add(f"{_text(name)}{(writers.get(kind) or writers[_base(kind)])(value)}")
        add("\0")
        return "".join(pieces)

    return write


def _base(kind: type) -> type:
    """Enumerations of texts travel as texts."""
    return str if issubclass(kind, str) else kind
