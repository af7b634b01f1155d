"""One text per meaning, to be hashed: what seals an outcome and tells whether two requests say the same.

The text is JSON with sorted keys and no white space. It is written by a writer per type, made at the first use of the
type: sealing and verifying are on the way of every change of a night, and a general encoder takes five times as long.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from json.encoder import encode_basestring
from operator import attrgetter
from typing import Any, TypeAlias

from streams.core.ids import instant_text
from streams.core.money import money_text

_Writer: TypeAlias = Callable[[Any], str]

_NOTHING: frozenset[str] = frozenset()
# A night's outcomes share a few thousand instants.
_utc_text = lru_cache(maxsize=4_096)(instant_text)


def canonical_text(value: object, *, without: frozenset[str] = _NOTHING) -> str:
    """JSON with sorted keys and no white space; instants in UTC milliseconds, amounts without padding.

    One spelling per meaning (10 and 10.000000 are one amount, +00:00 and Z one instant), so it is the same before and
    after a trip over the wire, where Avro pads decimals to six places and cuts to milliseconds. ``without`` names
    fields of the outermost record to leave out. Raises TypeError for a value of another type, such as a float.
    """
    if without and isinstance(value, dict):
        value = {key: item for key, item in value.items() if str(key) not in without}
    kind: type = type(value)
    if without and is_dataclass(kind):
        return _record_writer(kind, without)(value)
    return _WRITERS[kind](value)


def fingerprint(value: object, *, without: frozenset[str] = _NOTHING) -> str:
    """SHA-256 (hex) over :func:`canonical_text`."""
    return hashlib.sha256(canonical_text(value, without=without).encode()).hexdigest()


class _Writers(dict[type, _Writer]):
    """Type → what writes values of exactly this type."""

    def __missing__(self, kind: type) -> _Writer:
        self[kind] = found = self._find(kind)
        return found

    def _find(self, kind: type) -> _Writer:
        for kinds, writer in _SIMPLE:
            if issubclass(kind, kinds):
                return writer
        if is_dataclass(kind):
            return _record_writer(kind, _NOTHING)
        raise TypeError(f"no canonical text for {kind.__name__}; add it to streams/core/canonical.py")


_WRITERS = _Writers()


@lru_cache
def _record_writer(kind: type, without: frozenset[str]) -> _Writer:
    """The writer of a dataclass: all names and punctuation are in its form, only values are filled in."""
    names = sorted(field.name for field in fields(kind) if field.name not in without)
    form = "{" + ",".join(f'"{name}":%s' for name in names) + "}"
    values: Callable[[Any], Iterable[Any]] = lambda value: [getattr(value, name) for name in names]  # noqa: E731
    if len(names) > 1:
        values = attrgetter(*names)  # faster; of one name it gives no tuple
    return lambda value: form % tuple([_WRITERS[type(item)](item) for item in values(value)])


def _instant(value: datetime) -> str:
    # Only in UTC: elsewhere two instants of a repeated hour are equal, and the cache would take one for the other.
    return f'"{_utc_text(value) if value.tzinfo is UTC else instant_text(value)}"'


def _sequence(value: tuple[object, ...] | list[object]) -> str:
    return "[" + ",".join([_WRITERS[type(item)](item) for item in value]) + "]"


def _mapping(value: dict[object, object]) -> str:
    named = {str(key): item for key, item in value.items()}
    items = [(name, named[name]) for name in sorted(named)]
    return "{" + ",".join([f"{encode_basestring(name)}:{_WRITERS[type(item)](item)}" for name, item in items]) + "}"


# In this order: a bool is an int, an instant is a date.
_SIMPLE: tuple[tuple[type | tuple[type, ...], _Writer], ...] = (
    (type(None), lambda value: "null"),
    (bool, lambda value: "true" if value else "false"),
    (int, int.__repr__),
    (str, encode_basestring),
    (Decimal, lambda value: f'"{money_text(value)}"'),
    (datetime, _instant),
    (date, lambda value: f'"{value.isoformat()}"'),
    ((tuple, list), _sequence),
    (dict, _mapping),
)
