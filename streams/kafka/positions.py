"""Positions in a topic as people write them: ``beginning``, ``end``, ``17``, ``@-1h``, ``@2026-03-01T00:00:00Z``."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import datetime

from confluent_kafka import Consumer, TopicPartition

from streams.kafka.watermarks import watermarks

_AGO = re.compile(r"@-(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_HOW = "use beginning, end, an offset such as 17, @-1h (s, m, h, d), or an instant such as @2026-03-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Position:
    """A place in every partition: ``beginning``, ``end``, an offset, or an instant (Kafka's record timestamps)."""

    name: str
    number: int = 0

    def offsets(self, consumer: Consumer, partitions: list[TopicPartition], timeout_s: float) -> dict[int, int]:
        """Partition → offset, within what the partition still has."""
        marks = {one.partition: watermarks(consumer, one, timeout_s) for one in partitions}
        if self.name == "instant":
            asked = [TopicPartition(one.topic, one.partition, self.number) for one in partitions]
            found = {one.partition: one.offset for one in consumer.offsets_for_times(asked, timeout=timeout_s)}
            # no record at or after the instant: Kafka answers with a negative number, and we mean the end
            return {number: found[number] if found[number] >= 0 else high for number, (_, high) in marks.items()}
        if self.name == "offset":
            return {number: min(max(self.number, low), high) for number, (low, high) in marks.items()}
        return {number: low if self.name == "beginning" else high for number, (low, high) in marks.items()}


def parse_position(text: str) -> tuple[Position, Position | None]:
    """START or START:STOP; raises ValueError that says how to write one."""
    start, stop = text, None
    for separator in (i for i, letter in enumerate(text) if letter == ":"):
        # an instant has colons of its own, so the separator is the first one with a position on both sides
        try:
            return _parse(text[:separator]), _parse(text[separator + 1 :])
        except ValueError:
            continue
    return _parse(start), stop


def parse_instant(text: str) -> int:
    """``@-1h`` or ``@2026-03-01T00:00:00Z`` as Unix milliseconds; raises ValueError that says how to write one."""
    start, stop = parse_position(text)
    if start.name != "instant" or stop is not None:
        raise ValueError(f"{text!r} is no instant: write @-1h or @2026-03-01T00:00:00Z")
    return start.number


def _parse(text: str) -> Position:
    if text in ("beginning", "end"):
        return Position(text)
    if text.isdecimal():
        return Position("offset", int(text))
    if ago := _AGO.fullmatch(text):
        return Position("instant", int((time.time() - int(ago[1]) * _SECONDS[ago[2]]) * 1000))
    if text.startswith("@"):
        try:
            instant = datetime.fromisoformat(text[1:])
        except ValueError:
            raise ValueError(f"{text!r} is no position: {_HOW}") from None
        if instant.tzinfo is None:
            raise ValueError(f"{text!r} has no zone: write Z or +01:00 at its end")
        return Position("instant", int(instant.timestamp() * 1000))
    raise ValueError(f"{text!r} is no position: {_HOW}")
