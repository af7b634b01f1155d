"""The format of ``__consumer_offsets``, in every version that a broker may have written."""

from __future__ import annotations

import struct

import pytest

from streams.kafka.lag.offset_records import CommitKey, CommitValue, UnknownRecord, parse_key, parse_value

#: As Kafka 4.3 has written them: a commit of offset 0 by group g7 for exp/0, with a topic id behind the time.
KEY_OF_4_3 = b"\x00\x01\x00\x02g7\x00\x03exp\x00\x00\x00\x00"
VALUE_OF_4_3 = bytes.fromhex(
    "0004 0000000000000000 ffffffff 01 000001a2056efdc6 01 00 10 6e360224db9a4874 8d7e0019a12625dc"
)


def text(value: str) -> bytes:
    return struct.pack(">h", len(value.encode())) + value.encode()


def value_of(version: int, offset: int, metadata: str, at_ms: int) -> bytes:
    """As the specification of each version has it."""
    parts = [struct.pack(">hq", version, offset)]
    if version >= 3:
        parts.append(struct.pack(">i", 17))
    if version >= 4:
        size = len(metadata.encode()) + 1
        parts.append(bytes([size & 0x7F | 0x80, size >> 7]) if size > 127 else bytes([size]))
        parts.append(metadata.encode())
    else:
        parts.append(text(metadata))
    parts.append(struct.pack(">q", at_ms))
    if version == 1:
        parts.append(struct.pack(">q", -1))
    if version >= 4:
        parts.append(b"\x00")
    return b"".join(parts)


@pytest.mark.parametrize("metadata", ["", "worker ä", "m" * 300])
@pytest.mark.parametrize("version", range(5))
def test_every_version_of_a_commit_is_read(version: int, metadata: str) -> None:
    """Offset and time, whatever the client has written beside them."""
    assert parse_value(value_of(version, 2**40, metadata, 1_700_000_000_123)) == CommitValue(2**40, 1_700_000_000_123)


def test_what_kafka_4_3_has_written_is_read() -> None:
    """Real bytes."""
    assert parse_key(KEY_OF_4_3) == CommitKey("g7", "exp", 0)
    assert parse_value(VALUE_OF_4_3) == CommitValue(0, 0x1A2056EFDC6)


@pytest.mark.parametrize("version", [0, 1])
def test_both_versions_of_the_key_are_read(version: int) -> None:
    """Names may be anything but empty."""
    key = struct.pack(">h", version) + text("gruppe-ä") + text("a.b") + struct.pack(">i", 12)

    assert parse_key(key) == CommitKey("gruppe-ä", "a.b", 12)


@pytest.mark.parametrize("version", [2, 3, 5, 8, 21])
def test_records_about_anything_else_are_passed_over(version: int) -> None:
    """Members of classic groups, and all records of the newer kinds of groups."""
    assert parse_key(struct.pack(">h", version) + text("group")) is None


@pytest.mark.parametrize("cut", [1, 5, 9, 15, 20])
def test_a_value_that_ends_too_soon_is_said_to_be_so(cut: int) -> None:
    """Not an offset out of thin air."""
    with pytest.raises(UnknownRecord, match="cut off"):
        parse_value(VALUE_OF_4_3[:cut])


def test_a_key_that_ends_too_soon_is_said_to_be_so() -> None:
    """In the middle of a name."""
    with pytest.raises(UnknownRecord, match="cut off"):
        parse_key(KEY_OF_4_3[:8])


def test_a_version_of_a_newer_kafka_is_not_guessed() -> None:
    """The monitor asks group by group then."""
    with pytest.raises(UnknownRecord, match="version 5"):
        parse_value(b"\x00\x05" + VALUE_OF_4_3[2:])
