"""CloudEvents 1.0 in Kafka's binary content mode: the attributes travel in headers, the value stays plain Avro.

Source of the rules: CloudEvents 1.0.2, and its Kafka protocol binding (headers ``ce_<attribute>``, UTF-8).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from streams.core.errors import Poison
from streams.core.events import Event, Finding

SOURCE = b"/curfew/events"  # a URI reference, as the specification wants it; the same for every event of ours
CONTENT_TYPE = b"application/avro"
TRACEPARENT = "traceparent"  # W3C trace context, under its own name so that every tracer finds it

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudEvent:
    """The attributes of one event as read from headers; ``subject`` is ``<kind>/<id>``, ``time`` an aware instant."""

    id: str
    type: str
    source: str
    specversion: str
    time: datetime | None
    subject: str | None
    traceparent: str | None


def event_headers(event: Event | Finding) -> Headers:
    """All headers for a record that carries ``event``; traceparent only if the event has one."""
    headers = [
        ("ce_id", event.event_id.encode()),
        ("ce_type", event.type.encode()),
        ("ce_source", SOURCE),
        ("ce_specversion", b"1.0"),
        ("ce_time", f"{_in_utc(event.occurred_at).isoformat()[:-6]}Z".encode()),
        ("ce_subject", f"{event.subject_kind}/{event.subject_id}".encode()),
        ("content-type", CONTENT_TYPE),
    ]
    traceparent = getattr(event, "traceparent", None)
    if traceparent is not None:
        headers.append((TRACEPARENT, traceparent.encode()))
    return headers


def _in_utc(at: datetime) -> datetime:
    return at if at.tzinfo is UTC else at.astimezone(UTC)


def cloud_event(headers: Iterable[tuple[str, bytes | None]] | None) -> CloudEvent | None:
    """The event that the headers describe; None when they describe none (there is no ``ce_id``).

    Raises Poison("bad_cloudevent") when a required attribute is missing or cannot be read.
    """
    found = {name: value for name, value in headers or () if value is not None}
    if "ce_id" not in found:
        return None
    try:
        time = found.get("ce_time")
        subject, traceparent = found.get("ce_subject"), found.get(TRACEPARENT)
        return CloudEvent(
            id=found["ce_id"].decode(),
            type=found["ce_type"].decode(),
            source=found["ce_source"].decode(),
            specversion=found["ce_specversion"].decode(),
            time=None if time is None else datetime.fromisoformat(time.decode()),
            subject=None if subject is None else subject.decode(),
            traceparent=None if traceparent is None else traceparent.decode(),
        )
    except KeyError as error:
        raise Poison("bad_cloudevent", f"the header {error.args[0]} is missing") from error
    except ValueError as error:
        raise Poison("bad_cloudevent", f"a header cannot be read: {error}") from error
