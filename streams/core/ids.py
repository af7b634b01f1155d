"""Identities derived from their cause: reprocessing gives the same id, so an effect can be recognised as done.

Every id is a UUIDv5 in one fixed namespace over the parts that cause it. Nothing here is drawn at random.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha1
from uuid import UUID

# Never change it: every id ever published, and every unique key of the billing store, is derived from it.
NAMESPACE = UUID("5b0f8f0e-6a55-5f0d-9c86-2f7c1d1f3a07")

# ASCII unit separator: ("a", "bc") and ("ab", "c") must not give one id, and no id of a billing system contains it.
_SEPARATOR = "\x1f"

_NAMESPACE_BYTES = NAMESPACE.bytes


def derive(*parts: str) -> str:
    """The id (canonical UUID text) caused by ``parts``, in this order: :func:`uuid.uuid5`, at less cost."""
    digest = bytearray(sha1(_NAMESPACE_BYTES + _SEPARATOR.join(parts).encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50  # version 5
    digest[8] = digest[8] & 0x3F | 0x80  # variant of RFC 9562
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def instant_text(at: datetime) -> str:
    """``2018-11-04T03:00:00.000Z``: UTC, milliseconds, which is all that survives an Avro timestamp.

    Raises ValueError for a naive datetime: it names no instant.
    """
    if at.tzinfo is None:
        raise ValueError(f"{at!r} has no time zone; pass an aware datetime")
    return at.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def event_id(type: str, subject_kind: str, subject_id: str, cause: int | str | datetime) -> str:
    """Id of an event: type + object + what caused it (the object's revision, or the due instant)."""
    text = instant_text(cause) if isinstance(cause, datetime) else str(cause)
    return derive("event", type, subject_kind, subject_id, text)


def change_id(service_id: str, request_id: str) -> str:
    """Id of the plan change that this request orders.

    The service is a part: request ids are unique per service only, since its partition alone remembers them.
    """
    return derive("change", service_id, request_id)


def command_id(change_id: str, revision: int, step: str, attempt: int = 1) -> str:
    """Id of the command for one step of one revision of a change; sent again, it keeps its id."""
    return derive("command", change_id, str(revision), step, str(attempt))


def unit_id(event_id: str, subscription: str, recipient: str = "") -> str:
    """Id of one delivery unit: this event for this recipient of this subscription; "" where it has only one."""
    return derive("unit", event_id, subscription, *([recipient] if recipient else []))


def replayed_unit_id(run: str, unit_id: str) -> str:
    """Id of the unit that sends ``unit_id`` again in this run; the same command twice is the same unit."""
    return derive("replay", run, unit_id)
