"""The rows of the delivery store. Instants are Unix milliseconds of the wall clock: a receiver lives in real time.

======================================  ==========================================================================
``unit/<unit id>``                      an open :class:`Unit`, with the event's bytes
``done/<2 hex>/<unit id>``              a finished one (:class:`Done`), kept so that a repeated event is recognised
``activation/<subscription id>``        from where this partition counts for a subscription (:class:`Activation`)
``version/<subscription id>/<version>`` the subscription as it was, for the ledger's filter
``endpoint/<subscription id>``          an endpoint that asked for no more (:class:`Disabled`)
``lane/<subscription id>/<key>``        a key whose head is exhausted and whose later events wait (:class:`Parked`)
``replays``                             how far the commands of replays have been decided (:class:`Reached`)
======================================  ==========================================================================

The event's bytes are in the row, not a reference into the queue: a unit may wait longer than the queue keeps its
records, a retry must not seek in Kafka, and the changelog alone can then say what is pending.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, TypeVar

import msgspec

from streams.core.delivery.messages import Header
from streams.core.subscriptions import Subscription

UNIT: Final = b"unit/"
DONE: Final = b"done/"
ACTIVATION: Final = b"activation/"
VERSION: Final = b"version/"
ENDPOINT: Final = b"endpoint/"
LANE: Final = b"lane/"
REPLAYS: Final = b"replays"


class State(StrEnum):
    """Open units are pending or in flight; the others are ends."""

    PENDING = "pending"
    IN_FLIGHT = "in_flight"
    DELIVERED = "delivered"
    DEAD = "dead"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One event for one recipient of one subscription, not finished yet.

    ``attempts`` counts those that were begun, ``begun_before`` those of them before it was redriven. ``lane`` is the
    ordering key when the unit waits for earlier ones of its key, None when it does not. ``due_ms`` is when the next
    attempt may begin. ``replay`` is the run that sends ``replay_of``, another unit, again.
    """

    unit_id: str
    subscription_id: str
    subscription: str
    recipient: str
    queue: str
    offset: int
    event_id: str
    lane: str | None
    state: State
    attempts: int
    due_ms: int
    accepted_ms: int
    begun_before: int = 0
    replay: str | None = None
    replay_of: str | None = None
    last_status: int | None = None
    last_reason: str | None = None
    last_body: str | None = None
    key: bytes | None
    value: bytes
    headers: tuple[Header, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What is left of a finished unit."""

    subscription_id: str
    queue: str
    offset: int
    event_id: str
    state: State
    attempts: int
    reason: str | None
    finished_ms: int
    replay: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From ``offset`` on, this version of the subscription decided what is filtered."""

    version: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """Where a subscription starts to count in this partition, its versions since, and how far intake has come.

    ``accepted`` and ``filtered`` count queue records below ``through`` (a repeated event counts again).
    """

    subscription_id: str
    subscription: str
    queue: str
    spans: tuple[Span, ...]
    through: int
    accepted: int
    filtered: int

    @property
    def start(self) -> int:
        return self.spans[0].offset

    def version_at(self, offset: int) -> int:
        """The version that decided the record at ``offset``, which is not below ``start``."""
        return [span for span in self.spans if span.offset <= offset][-1].version


@dataclass(frozen=True, slots=True, kw_only=True)
class Disabled:
    """The receiver answered 410 to this version of the subscription; a newer version enables it again."""

    version: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """The unit whose exhaustion parked the key."""

    unit_id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """Commands of ``delivery.replays`` in this partition below ``through`` are units; the others are still to come."""

    through: int


Row = TypeVar("Row")
_encode = msgspec.msgpack.Encoder().encode
_decoders: dict[type, msgspec.msgpack.Decoder[object]] = {
    cls: msgspec.msgpack.Decoder(cls) for cls in (Unit, Done, Activation, Disabled, Parked, Reached, Subscription)
}


def encode(row: object) -> bytes:
    """A row's bytes in the store."""
    return _encode(row)


def decode(data: bytes, cls: type[Row]) -> Row:
    """The row in ``data``; raises :class:`msgspec.ValidationError` for bytes of another kind."""
    row = _decoders[cls].decode(data)
    assert isinstance(row, cls)
    return row


def unit_key(unit_id: str) -> bytes:
    return UNIT + unit_id.encode()


def done_key(unit_id: str) -> bytes:
    """In 256 buckets, so that old ones can be swept a bucket at a time."""
    return DONE + unit_id[:2].encode() + b"/" + unit_id.encode()


def activation_key(subscription_id: str) -> bytes:
    return ACTIVATION + subscription_id.encode()


def version_key(subscription_id: str, version: int) -> bytes:
    return b"%s%s/%d" % (VERSION, subscription_id.encode(), version)


def endpoint_key(subscription_id: str) -> bytes:
    return ENDPOINT + subscription_id.encode()


def lane_key(subscription_id: str, lane: str) -> bytes:
    return b"%s%s/%s" % (LANE, subscription_id.encode(), lane.encode())


class Rows(Protocol):
    """The rows of one partition, as the runtime gives them to a handler."""

    def get(self, key: bytes) -> bytes | None: ...

    def put(self, key: bytes, value: bytes) -> None: ...

    def delete(self, key: bytes) -> None: ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]: ...


class Table:
    """Typed access to :class:`Rows` for the time of one decision: a unit that was read or written is not read again."""

    __slots__ = ("_units", "rows")

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._units: dict[str, Unit | None] = {}

    def unit(self, unit_id: str) -> Unit | None:
        if unit_id not in self._units:
            self._units[unit_id] = self._get(unit_key(unit_id), Unit)
        return self._units[unit_id]

    def put_unit(self, unit: Unit) -> None:
        self._units[unit.unit_id] = unit
        self.put(unit_key(unit.unit_id), unit)

    def delete_unit(self, unit_id: str) -> None:
        self._units[unit_id] = None
        self.delete(unit_key(unit_id))

    def done(self, unit_id: str) -> Done | None:
        return self._get(done_key(unit_id), Done)

    def activation(self, subscription_id: str) -> Activation | None:
        return self._get(activation_key(subscription_id), Activation)

    def disabled(self, subscription_id: str) -> Disabled | None:
        return self._get(endpoint_key(subscription_id), Disabled)

    def parked(self, subscription_id: str, lane: str) -> Parked | None:
        return self._get(lane_key(subscription_id, lane), Parked)

    def reached(self) -> Reached | None:
        return self._get(REPLAYS, Reached)

    def put(self, key: bytes, row: object) -> None:
        self.rows.put(key, encode(row))

    def delete(self, key: bytes) -> None:
        self.rows.delete(key)

    def _get(self, key: bytes, cls: type[Row]) -> Row | None:
        data = self.rows.get(key)
        return None if data is None else decode(data, cls)
