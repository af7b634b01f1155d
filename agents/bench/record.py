"""The work of one record, the same for every contender: decode, look up, add parameters, encode, headers."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import fastavro
import msgspec

#: 120 bytes on the wire, the size of a small billing event; larger records would hide the cost of the machinery.
SCHEMA = fastavro.parse_schema(
    {
        "type": "record",
        "name": "ServiceStateTransition",
        "namespace": "curfew.bench",
        "fields": [
            {"name": "event_id", "type": "string"},
            {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "account_id", "type": "string"},
            {"name": "service_id", "type": "string"},
            {"name": "from_state", "type": "string"},
            {"name": "to_state", "type": "string"},
            {"name": "parameters", "type": {"type": "map", "values": "string"}},
        ],
    }
)
PREFIX = struct.pack(">bI", 0, 1)
SERVICES = 10_000
Headers = list[tuple[str, bytes]]
_decode_row = msgspec.msgpack.decode


def make(number: int) -> tuple[bytes, bytes]:
    """Key and value of the ``number``-th input record."""
    service = number % SERVICES
    key = f"s{service}"
    record = {
        "event_id": f"e{number:09d}",
        "occurred_at": 1_760_000_000_000 + number,
        "account_id": f"a{service % 1000}",
        "service_id": key,
        "from_state": "ACTIVE",
        "to_state": "SUSPENDED",
        "parameters": {"reason": "unpaid"},
    }
    return key.encode(), encode(record)


def row(service: int) -> tuple[bytes, bytes]:
    """Key and value of a service's row in the store."""
    return f"s{service}".encode(), msgspec.msgpack.encode({"name": f"service {service}", "package": "gold"})


def encode(record: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    out.write(PREFIX)
    fastavro.schemaless_writer(out, SCHEMA, record)
    return out.getvalue()


def decode(value: bytes) -> dict[str, Any]:
    source = io.BytesIO(value)
    source.seek(len(PREFIX))
    return fastavro.schemaless_reader(source, SCHEMA, None)  # type: ignore[return-value]


def enrich(value: bytes, get: Callable[[bytes], bytes | None]) -> tuple[bytes, bytes, Headers]:
    """Key, value and CloudEvents headers of the output for one input value; ``get`` reads the store."""
    record = decode(value)
    key = record["service_id"].encode()
    found = get(key)
    if found is None:
        raise LookupError(f"no row for {record['service_id']}: the bench's store was not loaded")
    service = _decode_row(found)
    record["parameters"]["service.name"] = service["name"]
    record["parameters"]["package.name"] = service["package"]
    headers = [
        ("ce_id", record["event_id"].encode()),
        ("ce_type", b"service.state_transitioned"),
        ("ce_source", b"curfew/bench"),
        ("ce_specversion", b"1.0"),
        ("ce_time", record["occurred_at"].isoformat().encode()),
        ("ce_subject", key),
        ("content-type", b"application/avro"),
    ]
    return key, encode(record), headers
