"""Rows of the usage worker's store, and how they are read and written: MessagePack of the dataclasses.

``line/<service>`` is a service with its SIMs; ``bucket/<id>``, ``pool/<id>`` and ``contract/<id>`` are meters;
``use/<meter>/<id>␟<day>␟<usage id>`` are the usage records that count for a meter, by day (UTC) so that the oldest come
first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import msgspec

from streams.core.usage.dormancy import Line
from streams.core.usage.metering import MeterRow, Use
from streams.core.usage.objects import Bucket, Contract, Meter

LINE = "line/"
USE = "use/"
METERS = (Meter.BUCKET, Meter.POOL, Meter.CONTRACT)
# No id of a billing system contains it (see streams/core/ids.py), so the uses of B1 are no prefix of those of B12.
_SEPARATOR = "\x1f"


class Rows(Protocol):
    """The rows of one partition, with what this decision has written so far."""

    def get(self, key: bytes) -> bytes | None: ...

    def put(self, key: bytes, value: bytes) -> None: ...

    def delete(self, key: bytes) -> None: ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]: ...


def line_key(service_id: str) -> str:
    """Key of a line."""
    return f"{LINE}{service_id}"


def meter_key(meter: Meter, id: str) -> str:
    """Key of a meter."""
    return f"{meter}/{id}"


def use_key(meter: Meter, id: str, use: Use) -> bytes:
    """Key of a usage record that counts for a meter."""
    return f"{USE}{meter}/{id}{_SEPARATOR}{use.at.date().isoformat()}{_SEPARATOR}{use.id}".encode()


def uses_prefix(meter: Meter, id: str) -> bytes:
    """What the keys of all records of a meter begin with."""
    return f"{USE}{meter}/{id}{_SEPARATOR}".encode()


def day_of(key: bytes) -> str:
    """The day in the key of a usage record, ``2026-03-01``."""
    return key.decode().split(_SEPARATOR)[1]


pack = msgspec.msgpack.Encoder().encode
unpack_line = msgspec.msgpack.Decoder(Line).decode
unpack_use = msgspec.msgpack.Decoder(Use).decode
_unpack_bucket = msgspec.msgpack.Decoder(MeterRow[Bucket]).decode
_unpack_contract = msgspec.msgpack.Decoder(MeterRow[Contract]).decode


def meter_reader(meter: Meter) -> Callable[[bytes], MeterRow[Any]]:
    """What reads rows of this kind of meter."""
    return _unpack_contract if meter is Meter.CONTRACT else _unpack_bucket
