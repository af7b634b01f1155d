"""CloudEvents 1.0, Kafka binding, binary content mode."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from streams.codec import cloud_event, event_headers
from streams.core.errors import Poison
from streams.core.events import Event

EVENT = Event(
    event_id="6f1c2c1e-0000-5000-8000-000000000001",
    type="invoice.posted",
    occurred_at=datetime(2026, 2, 28, 23, 0, 0, 250_000, tzinfo=UTC),
    subject_kind="Invoice",
    subject_id="inv-1",
    account_id="acc-1",
    sequence=2,
    facts={},
    parameters={},
)


def test_the_headers_are_those_of_the_specification() -> None:
    """Required attributes, our optional ones, and the content type of the value."""
    assert dict(event_headers(EVENT)) == {
        "ce_id": b"6f1c2c1e-0000-5000-8000-000000000001",
        "ce_type": b"invoice.posted",
        "ce_source": b"/curfew/events",
        "ce_specversion": b"1.0",
        "ce_time": b"2026-02-28T23:00:00.250000Z",
        "ce_subject": b"Invoice/inv-1",
        "content-type": b"application/avro",
    }


def test_headers_read_back_as_the_event_that_they_describe() -> None:
    """The trace context too, which travels under its W3C name."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    found = cloud_event(event_headers(replace(EVENT, traceparent=trace)))

    assert found is not None
    assert (found.id, found.type, found.subject) == (EVENT.event_id, EVENT.type, "Invoice/inv-1")
    assert (found.time, found.traceparent) == (EVENT.occurred_at, trace)


def test_records_without_cloudevents_headers_describe_none() -> None:
    """Foreign records are no error."""
    assert cloud_event(None) is None
    assert cloud_event([("other", b"x"), ("ce_type", None)]) is None


@pytest.mark.parametrize("name", ["ce_type", "ce_source", "ce_specversion"])
def test_a_missing_required_attribute_is_poison(name: str) -> None:
    """A half description is worse than none."""
    headers = [pair for pair in event_headers(EVENT) if pair[0] != name]

    with pytest.raises(Poison, match=name):
        cloud_event(headers)


@pytest.mark.parametrize(("name", "value"), [("ce_time", b"yesterday"), ("ce_subject", b"\xff")])
def test_an_unreadable_attribute_is_poison(name: str, value: bytes) -> None:
    """It names what it could not read as one record's fault."""
    headers = [(n, value if n == name else v) for n, v in event_headers(EVENT)]

    with pytest.raises(Poison, match="bad_cloudevent"):
        cloud_event(headers)
