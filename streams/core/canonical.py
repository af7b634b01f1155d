"""One text per meaning, to be hashed: what seals an outcome and tells whether two requests say the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from decimal import Decimal

from streams.core.ids import instant_text
from streams.core.money import money_text


def _plain(value: object) -> object:
    """``value`` as JSON types, one spelling per meaning: 10 and 10.000000 are one amount, +00:00 and Z one instant."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Decimal):
        return money_text(value)
    if isinstance(value, datetime):
        return instant_text(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"no canonical text for {type(value).__name__}; add it to streams/core/canonical.py")


def canonical_text(value: object, *, without: frozenset[str] = frozenset()) -> str:
    """JSON with sorted keys and no white space; instants in UTC milliseconds, amounts without padding.

    The same before and after a trip over the wire, where Avro pads decimals to six places and cuts to milliseconds.
    ``without`` names fields of the outermost record to leave out.
    """
    plain = _plain(value)
    if isinstance(plain, dict):
        plain = {key: item for key, item in plain.items() if key not in without}
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def fingerprint(value: object, *, without: frozenset[str] = frozenset()) -> str:
    """SHA-256 (hex) over :func:`canonical_text`."""
    return hashlib.sha256(canonical_text(value, without=without).encode()).hexdigest()
