"""Business time as the last ticks say it, for commands that look at what workers do and are none themselves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from streams.codec import Codec
from streams.core.clock import Tick
from streams.kafka.scan import Scanner, Span
from streams.topics import TICKS


@dataclass(frozen=True, slots=True, kw_only=True)
class BusinessTime:
    """``now`` is the highest tick; ``written_at`` is when Kafka got it, by the machine's clock. Both are UTC."""

    now: datetime
    written_at: datetime


def last_tick(scanner: Scanner, codec: Codec) -> BusinessTime | None:
    """The highest of all partitions' last ticks, None before the first. Raises Transient without an answer of Kafka."""
    spans = scanner.spans(TICKS)
    ends = {number: Span(span.end - 1, span.end) for number, span in spans.items() if span.start < span.end}
    found: BusinessTime | None = None
    for message in scanner.read(TICKS, ends):
        value = message.value()
        if not isinstance(value, bytes):
            continue
        tick = codec.decode(value, Tick)
        if found is None or tick.now > found.now:
            written = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
            found = BusinessTime(now=tick.now, written_at=written)
    return found
