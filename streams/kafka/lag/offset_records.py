"""The records of ``__consumer_offsets``, as far as they are about committed offsets.

Kafka's own format, of which no client library has a reader: a version in two bytes, then big-endian fields. Keys 0 and
1 are commits, 2 is a group's metadata, higher ones are the newer kinds of groups. Values grew: 1 added and 2 dropped an
expiry, 3 added the leader's epoch, 4 (Kafka 4) has compact strings and optional fields behind the time.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

_VERSION: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">i")
_INT64: Final = struct.Struct(">q")
_COMMIT_KEYS: Final = (0, 1)
_FIRST_COMPACT: Final = 4
#: A value of a later version than this may have anything anywhere.
NEWEST_VALUE: Final = 4


class UnknownRecord(Exception):
    """A record that this reader does not understand; the message says which version or which byte."""


class CommitKey(NamedTuple):
    """Whose commit it is."""

    group: str
    topic: str
    partition: int


class CommitValue(NamedTuple):
    """What was committed, and when by the broker's clock, Unix milliseconds."""

    offset: int
    at_ms: int


def parse_key(key: bytes) -> CommitKey | None:
    """The key of a commit; None for records about something else. Raises UnknownRecord."""
    try:
        if _VERSION.unpack_from(key)[0] not in _COMMIT_KEYS:
            return None
        group, at = _string(key, 2)
        topic, at = _string(key, at)
        return CommitKey(group, topic, _INT32.unpack_from(key, at)[0])
    except (struct.error, UnicodeDecodeError) as error:
        raise UnknownRecord(f"key {key[:80]!r} is cut off: {error}") from error


def parse_value(value: bytes) -> CommitValue:
    """The value of a commit. Raises UnknownRecord for a version after 4 and for bytes that end too soon."""
    try:
        version = _VERSION.unpack_from(value)[0]
        if not 0 <= version <= NEWEST_VALUE:
            raise UnknownRecord(f"commits of version {version} are unknown here; known are 0 to {NEWEST_VALUE}")
        offset = _INT64.unpack_from(value, 2)[0]
        at = 14 if version >= 3 else 10  # behind the leader's epoch
        at = _behind_compact_string(value, at) if version >= _FIRST_COMPACT else _string(value, at)[1]
        return CommitValue(offset, _INT64.unpack_from(value, at)[0])
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise UnknownRecord(f"value {value[:80]!r} is cut off: {error}") from error


def _string(data: bytes, at: int) -> tuple[str, int]:
    length = _VERSION.unpack_from(data, at)[0]
    end = at + 2 + max(0, length)  # -1: null
    if end > len(data):
        raise struct.error(f"{length} bytes of text at {at}")
    return data[at + 2 : end].decode(), end


def _behind_compact_string(data: bytes, at: int) -> int:
    """Its length plus one goes before it, seven bits in each byte, the lowest first; 0 is null."""
    length = shift = 0
    while True:
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return at + max(0, length - 1)
