"""Dead letters: records that can never be handled, kept unchanged with the reason, in one topic per app.

The headers are those of Kafka Connect (numbers as UTF-8 text) and of Spring (big-endian), so that the tools which
people have already read them. The first reason wins: a record that was redriven and died again keeps its origin.
"""

from __future__ import annotations

import struct
import traceback
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from streams.core.errors import Poison

if TYPE_CHECKING:
    from streams.kafka.chunks import Record

CONNECT = "__connect.errors."
SPRING = "kafka_dlt-"
#: A stack trace in a header counts against the record's size; the message is what people search for.
MAX_HEADER_BYTES = 4096
#: What a dead letter may weigh in all. A record that is itself at Kafka's limit would not fit together with its new
#: headers, would be refused, and tried again for ever.
MAX_BYTES = 1_000_000
#: Of these the key gets at most so many: it is for finding the letter, and nobody's real key is as long.
MAX_KEY_BYTES = 100_000
#: Of these the original headers get at most so many.
MAX_ORIGINAL_HEADER_BYTES = 250_000


def topic(app: str) -> str:
    """The dead-letter topic of an app."""
    return f"dead-letters.{app}"


def reason(error: Exception) -> str:
    """A short stable word for why."""
    return error.reason if isinstance(error, Poison) else type(error).__name__


def key_of(record: Record) -> bytes | None:
    """The key of the dead letter: that of the record, or its beginning."""
    return None if record.key is None else record.key[:MAX_KEY_BYTES]


def envelope(record: Record, error: Exception, app: str) -> tuple[bytes | None, list[tuple[str, bytes]]]:
    """Value and headers of the dead letter: the original ones, then what happened.

    A value or key that does not fit is cut, and ``curfew-truncated`` gives the value's whole length; headers that do
    not fit are left out. The coordinates in the headers still lead to the original.
    """
    reason_text = reason(error)
    headers = list(_fitting((name, text if text is not None else b"") for name, text in record.headers))
    present = {name for name, _ in headers}
    value = record.value
    added = {
        f"{CONNECT}topic": record.topic.encode(),
        f"{CONNECT}partition": str(record.partition).encode(),
        f"{CONNECT}offset": str(record.offset).encode(),
        f"{CONNECT}connector.name": app.encode(),
        f"{CONNECT}stage": b"AGENT",
        f"{CONNECT}class.name": reason_text.encode(),
        f"{CONNECT}exception.class.name": f"{type(error).__module__}.{type(error).__qualname__}".encode(),
        f"{CONNECT}exception.message": str(error).encode()[:MAX_HEADER_BYTES],
        f"{CONNECT}exception.stacktrace": "".join(traceback.format_exception(error)).encode()[-MAX_HEADER_BYTES:],
        f"{SPRING}original-topic": record.topic.encode(),
        f"{SPRING}original-partition": struct.pack(">i", record.partition),
        f"{SPRING}original-offset": struct.pack(">q", record.offset),
        "curfew-reason": reason_text.encode(),
    }
    headers += [(name, text) for name, text in added.items() if name not in present]
    key = key_of(record)
    room = MAX_BYTES - len(key or b"") - sum(len(name) + len(text) for name, text in headers)
    if len(value or b"") > room or key != record.key:
        headers.append(("curfew-truncated", str(len(value or b"")).encode()))
        value = None if value is None else value[:room]
    return value, headers


def _fitting(headers: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    left = MAX_ORIGINAL_HEADER_BYTES
    for name, text in headers:
        if len(name) + len(text) <= left:
            left -= len(name) + len(text)
            yield name, text
