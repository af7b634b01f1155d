"""What the delivery worker and the dispatch worker tell each other; one Result follows every Attempt."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from streams.core import ids


class Verdict(StrEnum):
    """How an attempt ended: received; not received, try again by the schedule; can never be received; not begun, since
    the endpoint or the worker is busy, its breaker is open, it is disabled, what it needs is away, or the event before
    was not delivered (does not count as an attempt)."""

    DELIVERED = "delivered"
    FAILED = "failed"
    PERMANENT = "permanent"
    POSTPONED = "postponed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """One Kafka record header of the event."""

    name: str
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Make one attempt now. ``number`` counts from 1; ``key``, ``value`` and ``headers`` are the queue record's own.

    The same ``attempt_id`` may arrive again after a crash and is then the same attempt. ``follows`` is the attempt of
    the event before in the same key: only who knows that it was delivered may make this one, otherwise it is postponed.
    ``replay`` is the run that sends it again, and ``replay_of`` the unit that it was, whose ``webhook-id`` is used.
    """

    attempt_id: str
    unit_id: str
    number: int
    subscription_id: str
    subscription: str
    recipient: str
    queue: str
    queue_partition: int
    queue_offset: int
    event_id: str
    follows: str | None
    replay: str | None = None
    replay_of: str | None = None
    key: bytes | None
    value: bytes
    headers: tuple[Header, ...]
    sent_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How an attempt ended. ``retry_after_s`` is what the receiver asked for, or when there is room for what was
    postponed; ``body`` the start of what the receiver answered.

    ``reason`` is a short stable word with underscores, None for success; ``detail`` is for people.
    """

    attempt_id: str
    unit_id: str
    number: int
    subscription_id: str
    subscription: str
    subscription_version: int
    recipient: str
    queue: str
    queue_partition: int
    queue_offset: int
    event_id: str
    replay: str | None = None
    verdict: Verdict
    reason: str | None
    detail: str | None
    status: int | None
    retry_after_s: int | None
    body: str | None
    latency_ms: int
    finished_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Reopen:
    """Begin a unit again that was given up: its dead letter as a command to the delivery worker.

    ``attempts`` were made before; they are not counted against the policy any more, but no attempt has their numbers.
    ``replay`` and ``replay_of`` are those of the attempts, where it was a replay that was given up.
    ``key``, ``value`` and ``headers`` are the queue record's own.
    """

    unit_id: str
    subscription_id: str
    subscription: str
    recipient: str
    queue: str
    queue_partition: int
    queue_offset: int
    event_id: str
    lane: str | None
    attempts: int
    replay: str | None = None
    replay_of: str | None = None
    key: bytes | None
    value: bytes
    headers: tuple[Header, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Send an event again to a receiver of a subscription, whatever became of the unit ``unit_id`` that it was.

    It is a unit of its own in ``run``. ``key``, ``value`` and ``headers`` are the queue record's own.
    """

    run: str
    unit_id: str
    subscription_id: str
    subscription: str
    recipient: str
    queue: str
    queue_partition: int
    queue_offset: int
    event_id: str
    key: bytes | None
    value: bytes
    headers: tuple[Header, ...]


def attempt_id(unit_id: str, number: int) -> str:
    """Derived from the unit and the number, so that a replay asks for the same attempt."""
    return ids.derive("attempt", unit_id, str(number))
