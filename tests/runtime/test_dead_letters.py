"""The envelope of a dead letter, as Connect's and Spring's tools read it."""

from __future__ import annotations

import struct

from streams.core.errors import Poison
from streams.kafka.chunks import RECORD_OVERHEAD_BYTES, Record
from streams.kafka.dead_letters import envelope, key_of, topic
from streams.kafka.outbox import MAX_MESSAGE_BYTES


def raised(error: Exception) -> Exception:
    """With a traceback, as a handler catches it."""
    try:
        raise error
    except Exception as caught:
        return caught


RECORD = Record("billing.account", 3, 41, b"A1", b"value", [("ce_id", b"1"), ("empty", None)], 0)


def test_the_topic_is_named_after_the_app() -> None:
    assert topic("events") == "dead-letters.events"


def test_value_and_headers_of_the_record_are_kept() -> None:
    value, headers = envelope(RECORD, raised(Poison("bad")), "events")

    assert value == b"value"
    assert headers[:2] == [("ce_id", b"1"), ("empty", b"")]


def test_connect_and_spring_find_where_it_came_from_and_why() -> None:
    _, headers = envelope(RECORD, raised(Poison("not_avro", "magic byte is 7")), "events")
    found = dict(headers)

    assert found["__connect.errors.topic"] == b"billing.account"
    assert found["__connect.errors.partition"] == b"3"
    assert found["__connect.errors.offset"] == b"41"
    assert found["__connect.errors.connector.name"] == b"events"
    assert found["__connect.errors.exception.class.name"] == b"streams.core.errors.Poison"
    assert found["__connect.errors.exception.message"] == b"not_avro: magic byte is 7"
    assert b"raise error" in found["__connect.errors.exception.stacktrace"]
    assert found["kafka_dlt-original-topic"] == b"billing.account"
    assert struct.unpack(">i", found["kafka_dlt-original-partition"]) == (3,)
    assert struct.unpack(">q", found["kafka_dlt-original-offset"]) == (41,)
    assert found["curfew-reason"] == b"not_avro"


def test_an_error_that_is_not_poison_gives_its_class_as_reason() -> None:
    _, headers = envelope(RECORD, raised(ValueError("x")), "events")

    assert dict(headers)["curfew-reason"] == b"ValueError"


def test_the_first_death_wins() -> None:
    """A record that was redriven and died again still leads to its origin."""
    value, headers = envelope(RECORD, raised(Poison("first")), "events")
    kept: list[tuple[str, bytes | None]] = [*headers]
    redriven = Record("dead-letters.events", 0, 7, b"A1", value, kept, 0)

    _, again = envelope(redriven, raised(Poison("second")), "delivery")

    assert again == headers


def test_a_value_at_kafkas_limit_is_cut_and_says_so() -> None:
    value, headers = envelope(RECORD._replace(value=bytes(2_000_000)), raised(Poison("too_large")), "events")

    assert value is not None
    assert len(value) < 2_000_000
    assert dict(headers)["curfew-truncated"] == b"2000000"


def test_a_dead_letter_fits_into_a_record_however_large_the_original_was() -> None:
    """Its headers count too; a refused dead letter would stop its partition for ever."""
    large: list[tuple[str, bytes | None]] = [("h", bytes(90_000)), ("i", bytes(90_000))]
    record = RECORD._replace(key=b"k" * 50_000, value=bytes(1_900_000), headers=large)

    value, headers = envelope(record, raised(Poison("too_large")), "events")

    size = len(record.key or b"") + len(value or b"") + sum(len(name) + len(text) for name, text in headers)
    assert size <= MAX_MESSAGE_BYTES - RECORD_OVERHEAD_BYTES


def test_a_key_at_kafkas_limit_is_cut_and_the_letter_says_so() -> None:
    """It cannot be redriven then, as the record that it was is no more."""
    record = RECORD._replace(key=b"k" * 1_000_000, value=bytes(40_000))

    value, headers = envelope(record, raised(Poison("invalid")), "events")

    size = len(key_of(record) or b"") + len(value or b"") + sum(len(name) + len(text) for name, text in headers)
    assert size <= MAX_MESSAGE_BYTES - RECORD_OVERHEAD_BYTES
    assert (value, dict(headers)["curfew-truncated"]) == (bytes(40_000), b"40000")


def test_headers_beyond_the_limit_are_left_out() -> None:
    """Coordinates and reason matter more than two megabytes of somebody's headers."""
    record = RECORD._replace(headers=[("h", bytes(2_000_000)), ("small", b"1")])

    value, headers = envelope(record, raised(Poison("too_large")), "events")

    found = dict(headers)
    assert "h" not in found
    assert (value, found["small"], found["kafka_dlt-original-topic"]) == (b"value", b"1", b"billing.account")
