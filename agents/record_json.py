"""A Kafka record as one line of JSON, without loss, and back.

::

    {"topic": …, "partition": 0, "offset": 12, "timestamp": 1767225600000, "key": "acc-1",
     "value": {…}, "schema": "curfew.billing.AccountChange", "headers": [["ce_id", "…"]]}

``value`` is null for a tombstone. Where the value is not Avro of a known schema there is ``value_base64`` instead, and
so for keys and header values that are not text; where the topic has no schema (dead letters) both may be there, and the
bytes count. A line that is to be produced needs only ``key`` and ``value``; its value must be one that workers take.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from agents.field_problems import field_problem
from streams.codec import Codec
from streams.codec.readable import MASKED, from_json, personal, to_json
from streams.codec.wire_types import wire_class
from streams.core.errors import Poison
from streams.kafka.manifest import Topic
from streams.kafka.record_keys import key_in

Headers = list[tuple[str, bytes | None]]

_KNOWN = {"topic", "partition", "offset", "timestamp", "key", "value", "schema", "headers"}
_BINARY = {"key_base64", "value_base64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A record that can be produced; ``partition`` is given only where there is no key to choose it."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int | None
    partition: int | None


def masked_json(codec: Codec, value: bytes | None) -> dict[str, Any]:
    """As :func:`value_json`, without personal data: a field is masked if the schema that wrote it marks it, or the
    newest one; what has no schema of ours is masked whole, since nobody has said what is in it."""
    if value is None:
        return {"value": None}
    try:
        decoded = codec.decode_any(value)
    except Poison:
        return {"value": MASKED}
    if decoded.name not in codec.schemas.names():
        return {"value": MASKED, "schema": decoded.name}
    masked = personal(decoded.schema) | personal(codec.schemas.newest(decoded.name).parsed)
    return {"value": to_json(decoded.schema, decoded.datum, masked=masked), "schema": decoded.name}


def value_json(codec: Codec, value: bytes | None, *, topic: Topic | None = None) -> dict[str, Any]:
    """The fields ``value`` and ``schema``, or ``value_base64``; raises Transient when the registry is down.

    For a ``topic`` of raw bytes all three: its Avro values have schemas of other topics, so only the bytes can be
    written again.
    """
    if value is None:
        return {"value": None}
    raw = {"value_base64": _base64(value)}
    try:
        decoded = codec.decode_any(value)
    except Poison:
        return raw
    readable = {"value": to_json(decoded.schema, decoded.datum), "schema": decoded.name}
    return readable | (raw if topic is not None and topic.value is None else {})


def bytes_json(name: str, data: bytes | None) -> dict[str, Any]:
    """``{name: text}``, or ``{name_base64: …}`` where it is no UTF-8."""
    try:
        return {name: None if data is None else data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": _base64(data or b"")}


def headers_json(headers: Sequence[tuple[str, bytes | None]]) -> list[list[Any]]:
    """Pairs in their order (a name may come twice); a value that is no text is ``{"base64": …}``."""
    pairs = []
    for name, value in headers:
        [(key, text)] = bytes_json("value", value).items()
        pairs.append([name, text if key == "value" else {"base64": text}])
    return pairs


def parse_line(line: str, topic: Topic, codec: Codec) -> Outgoing:
    """One line → a record, its value checked as its reader does; raises ValueError naming field and remedy.

    A value as bytes (``value_base64``) is what it is, also where nobody can read it.
    """
    try:
        record = json.loads(line.rstrip())
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error.msg} at column {error.colno}): write one object per line") from error
    if not isinstance(record, dict):
        raise ValueError('must be an object such as {"key": "acc-1", "value": {…}}')
    if unknown := record.keys() - _KNOWN - _BINARY:
        raise ValueError(f"{min(unknown)} is no field of a record: use key, value, headers, timestamp, partition")
    key = _bytes_of(record, "key")
    meant = key_in(topic, record.get("value"))
    if meant is not None and key is not None and key != meant.encode():
        text = key.decode("utf-8", "replace")
        raise ValueError(f"key is {text!r}, but {topic.name} is keyed by {topic.key}: for this value {meant!r}")
    if key is None and meant is not None and record.get("partition") is None:
        key = meant.encode()
    timestamp, partition = record.get("timestamp"), record.get("partition")
    for name, number in (("timestamp", timestamp), ("partition", partition)):
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 0):
            raise ValueError(f"{name} must be a whole number from 0, not {number!r}")
    if key is None and topic.key and partition is None:
        raise ValueError(f'key is missing: {topic.name} is keyed by {topic.key}, add "key"')
    if partition is not None and partition >= topic.partitions:
        raise ValueError(f"partition is {partition}, but {topic.name} has the partitions 0 to {topic.partitions - 1}")
    return Outgoing(
        key=key,
        value=_value_of(record, topic, codec),
        headers=_headers_of(record.get("headers")),
        timestamp_ms=timestamp,
        # a key decides by itself, and the other topic may have another number of partitions
        partition=partition if key is None else None,
    )


def _value_of(record: dict[str, Any], topic: Topic, codec: Codec) -> bytes | None:
    if "value_base64" in record or (topic.value is None and "value" in record):
        return _bytes_of(record, "value")
    if "value" not in record:
        raise ValueError('value is missing: add "value", null for a tombstone')
    if record["value"] is None:
        return None
    assert topic.value is not None
    datum = from_json(codec.schemas.newest(topic.value).parsed, record["value"])
    try:
        encoded = codec.encode_datum(topic.name, topic.value, datum)
    except (ValueError, TypeError, OverflowError) as error:  # a number over 64 bits
        raise ValueError(f"value does not fit {topic.value}: {error}") from error
    cls = wire_class(topic.value)
    try:
        codec.decode(encoded, cls)
    except Poison as error:  # otherwise a dead letter, an hour later
        why = error.__cause__
        detail = field_problem(why, cls) if isinstance(why, msgspec.ValidationError) else str(why or error.detail)
        raise ValueError(f"value is no valid {topic.value}: {detail}") from error
    return encoded


def _bytes_of(record: dict[str, Any], name: str) -> bytes | None:
    if f"{name}_base64" in record:
        return _from_base64(f"{name}_base64", record[f"{name}_base64"])
    text = record.get(name)
    if text is None or isinstance(text, str):
        return None if text is None else text.encode()
    raise ValueError(f"{name} must be text or null, not {text!r}")


def _headers_of(headers: Any) -> Headers:
    if headers is None:
        return []
    pairs = list(headers.items()) if isinstance(headers, dict) else headers
    if not isinstance(pairs, list):
        raise ValueError(f'headers must be pairs such as [["name", "text"]], not {headers!r}')
    found: Headers = []
    for pair in pairs:
        match pair:
            case [str(name), {"base64": text}] | (str(name), {"base64": text}):
                found.append((name, _from_base64(f"headers.{name}", text)))
            case [str(name), str() | None as text] | (str(name), str() | None as text):
                found.append((name, None if text is None else text.encode()))
            case _:
                raise ValueError(f'headers must be pairs such as ["name", "text"], not {pair!r}')
    return found


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _from_base64(name: str, text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ValueError(f"{name} is not base64: {error}") from error
