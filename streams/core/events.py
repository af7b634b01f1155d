"""Findings and events: what a detector found, and the same with parameters, ready for its queues."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

from streams.core.ids import instant_text

# What parameters and facts may be. The Avro union keeps these types; an instant travels as a record with one field.
Value = None | bool | int | str | Decimal | date | datetime


class Audience(StrEnum):
    """Whom an event may reach: a silent change makes its customer events internal."""

    CUSTOMER = "customer"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something happened to one object.

    ``event_id`` follows from type, subject and revision or due instant, so that a replay finds the same again.
    ``sequence`` is the subject's revision. ``previous`` and ``current`` hold the object's plain fields where they
    exist, ``facts`` what the event type adds (see :mod:`streams.core.catalogue`). ``account_id`` is None where the
    subject spans accounts; records are keyed by ``account_id``, otherwise by ``subject_id``. What a calculation has
    found says how many ``hops`` (forwards, calculations) are behind it, and by which queues it came (``path``).
    """

    event_id: str
    type: str
    occurred_at: datetime
    subject_kind: str
    subject_id: str
    account_id: str | None = None
    sequence: int
    previous: dict[str, Value] | None = None
    current: dict[str, Value] | None = None
    facts: dict[str, Value]
    audience: Audience = Audience.CUSTOMER
    hops: int = 0
    path: str = ""

    @property
    def key(self) -> str:
        """The Kafka key: the account's id, or the subject's where there is no account."""
        return self.account_id or self.subject_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A finding with its parameters, a snapshot at event time that travels through retries and replays unchanged.

    A name in ``missing`` is also in ``parameters`` with None: its row was not there yet. A None that is not in
    ``missing`` is a relation or a field that is really empty. ``hops`` counts forwards and calculations behind it.
    """

    event_id: str
    type: str
    occurred_at: datetime
    subject_kind: str
    subject_id: str
    account_id: str | None = None
    sequence: int
    previous: dict[str, Value] | None = None
    current: dict[str, Value] | None = None
    facts: dict[str, Value]
    audience: Audience = Audience.CUSTOMER
    parameters: dict[str, Value]
    missing: tuple[str, ...] = ()
    hops: int = 0
    traceparent: str | None = None

    @property
    def key(self) -> str:
        """The Kafka key: the account's id, or the subject's where there is no account."""
        return self.account_id or self.subject_id


def plain(value: Value) -> bool | int | str | None:
    """As JSON and templates have it: instants in UTC, money and dates as text; numbers and truth stay what they are."""
    match value:
        case datetime():
            return instant_text(value)
        case Decimal() | date():
            return text(value)
        case _:
            return value


def text(value: Value) -> str:
    """The one text form of a value, for filters and messages: 12.50 and 12.500000 are the same text "12.5"."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case Decimal():
            plain = format(value, "f")
            return plain.rstrip("0").rstrip(".") if "." in plain else plain
        case datetime() | date():
            return value.isoformat()
        case _:
            return str(value)
