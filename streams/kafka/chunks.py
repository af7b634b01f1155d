"""Chunks: up to 500 consecutive records of one partition, handled as one unit.

The overhead of a hand-over, of awaiting delivery and of committing is paid once per chunk instead of once per record.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

from streams.core.errors import CurfewError, Poison
from streams.kafka import dead_letters
from streams.kafka.outbox import MAX_MESSAGE_BYTES
from streams.kafka.store import Overlay
from streams.tracing import OFF, Tracer, same_trace, traced, traceparent

#: More records than this gain nothing, and a crash repeats a whole chunk.
CHUNK_RECORDS = 500
#: Large records: a chunk of 500 would hold one partition's worth of memory for long.
CHUNK_BYTES = 1 << 20
#: What Kafka adds to key, value and headers; an output this near to the limit would be refused by the broker.
RECORD_OVERHEAD_BYTES = 512
#: Up to this size of its value an output is not weighed: keys and headers of ours are never half a megabyte.
SURELY_SMALL_BYTES = 500_000

Headers: TypeAlias = Sequence[tuple[str, bytes]]


class Record(NamedTuple):
    """One Kafka record; ``timestamp_ms`` is Kafka's own, Unix milliseconds, never business time."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp_ms: int


@dataclass(slots=True, eq=False)
class Chunk:
    """Consecutive records of one partition on their way through the worker."""

    topic: str
    partition: int
    generation: int
    records: list[Record]
    size: int = 0
    done: bool = False

    @property
    def next_offset(self) -> int:
        """The offset to commit once everything that this chunk caused is durable."""
        return self.records[-1].offset + 1


def joined(chunks: Sequence[Chunk]) -> Chunk:
    """One chunk with the records of all of these, which follow one another in one partition."""
    if len(chunks) == 1:
        return chunks[0]
    first = chunks[0]
    records = [record for chunk in chunks for record in chunk.records]
    return Chunk(first.topic, first.partition, first.generation, records, sum(chunk.size for chunk in chunks))


class Output(NamedTuple):
    topic: str
    key: str | bytes | None
    value: bytes | None
    headers: Headers | None
    partition: int


@dataclass(slots=True, eq=False)
class Batch:
    """What a handler gets: records of one partition in, and everything that they cause out.

    Nothing leaves before the handler returns (or yields); an exception throws all of it away. ``caught_up``: all is
    done that was in its topics (but the ticks) when the partition was assigned; before, time may be far ahead of rows.
    """

    app: str
    topic: str
    partition: int
    records: Sequence[Record]
    rows: Overlay
    now: datetime | None
    memory: dict[str, Any]
    caught_up: bool = True
    #: Raises, or ends the process, when the partition may belong to another worker by now; to be called right before
    #: an effect outside of Kafka that this worker alone may have.
    guard: Callable[[], None] = lambda: None
    #: Whether the partition is about to be handed over. A handler that waits long for the outside then begins nothing
    #: new: it yields what it has done and raises :class:`streams.kafka.lanes.Abandoned`, and the next owner decides the
    #: whole chunk again, on the rows of what was done.
    closing: Callable[[], bool] = lambda: False
    outputs: list[Output] = field(default_factory=list)
    #: Reasons of the records that were put aside, for the metrics.
    put_aside: list[str] = field(default_factory=list)
    tracer: Tracer = OFF
    #: The span of this chunk; what it sends and does not belong to another trace belongs to its.
    traceparent: str | None = None

    def emit(
        self,
        topic: str,
        *,
        key: str | bytes | None,
        value: bytes | None,
        headers: Headers | None = None,
        partition: int = -1,
        cause: Record | None = None,
    ) -> None:
        """Send one record after the handler has returned; partition by murmur2 of the key unless one is given.

        It belongs to the trace of ``cause``, the record that it comes of, if there is only one.
        Raises :class:`streams.core.errors.Poison` (``too_large``) for a record that Kafka would refuse.
        """
        if cause is not None:
            headers = traced(headers, self.trace_of(cause))
        if value is not None and len(value) > SURELY_SMALL_BYTES:
            size = len(key or b"") + len(value) + sum(len(name) + len(text) for name, text in headers or ())
            if size > MAX_MESSAGE_BYTES - RECORD_OVERHEAD_BYTES:
                raise Poison("too_large", f"{size} bytes for {topic}, at most {MAX_MESSAGE_BYTES}")
        self.outputs.append(Output(topic, key, value, headers, partition))

    def trace_of(self, record: Record) -> str | None:
        """What comes of this record goes on here: the chunk's span, where it is of the record's trace."""
        theirs, ours = traceparent(record.headers), self.traceparent
        return ours if theirs is None or (ours is not None and same_trace(theirs, ours)) else theirs

    def dead_letter(self, record: Record, error: Exception) -> None:
        """Put this one record aside, unchanged, with the reason; the others of the chunk go on."""
        if isinstance(error, CurfewError):
            error.at(record.topic, record.partition, record.offset)
        value, headers = dead_letters.envelope(record, error, self.app)
        self.put_aside.append(dead_letters.reason(error))
        self.outputs.append(Output(dead_letters.topic(self.app), dead_letters.key_of(record), value, headers, -1))


Handler: TypeAlias = Callable[[Batch], "Iterator[None] | AsyncGenerator[None, None] | Awaitable[None] | None"]
Opener: TypeAlias = Callable[[Batch], None]


def split(topic: str, partition: int, generation: int, records: list[Record]) -> Iterator[Chunk]:
    """Cut consecutive records into chunks of at most :data:`CHUNK_RECORDS` records and :data:`CHUNK_BYTES` bytes."""
    start, size = 0, 0
    for index, record in enumerate(records):
        size += RECORD_OVERHEAD_BYTES + len(record.value or b"")
        if index - start + 1 >= CHUNK_RECORDS or size >= CHUNK_BYTES:
            yield Chunk(topic, partition, generation, records[start : index + 1], size)
            start, size = index + 1, 0
    if start < len(records):
        yield Chunk(topic, partition, generation, records[start:], size)
