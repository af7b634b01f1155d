"""How fast each stage of a night was, read from what it has left in Kafka and in the billing store.

Nothing is counted while the night runs, so that the counting costs it nothing: every record carries the wall time at
which its worker handed it to Kafka.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from streams.kafka.scan import Scanner
from streams.topics import ACKNOWLEDGEMENTS, FINDINGS, SERVICE_PLANS

#: The first text in such a record is its name or kind. Five million records are read: decoding them takes minutes.
_FINDING = re.compile(rb"rate_plan_change\.([a-z_]+)")
_ACKNOWLEDGEMENT = re.compile(rb"persisted|missed|released")


@dataclass(slots=True)
class Stage:
    """Wall times (Unix milliseconds) of the records of one stage."""

    times: array[int] = field(default_factory=lambda: array("q"))

    @property
    def count(self) -> int:
        return len(self.times)

    @property
    def first(self) -> int:
        return min(self.times)

    @property
    def last(self) -> int:
        return max(self.times)

    def per_second(self) -> float | None:
        """Changes per second while the stage was at work; None if it had no work to speak of."""
        if self.count < 2 or self.last == self.first:
            return None
        return round(self.count / (self.last - self.first) * 1000, 1)


def read(scanner: Scanner) -> dict[str, Stage]:
    """All stages by name: findings as ``ordered`` … ``completed``, ``ack.persisted`` …, and ``effective``."""
    stages: dict[str, Stage] = {}
    _scan(scanner, FINDINGS, _first(_FINDING), stages)
    _scan(scanner, ACKNOWLEDGEMENTS, lambda value: f"ack.{_first(_ACKNOWLEDGEMENT)(value)}", stages)
    _scan(scanner, SERVICE_PLANS, lambda value: "effective", stages)
    return stages


def _first(pattern: re.Pattern[bytes]) -> Callable[[bytes], str]:
    def find(value: bytes) -> str:
        found = pattern.search(value)
        return "" if found is None else found[found.lastindex or 0].decode()

    return find


def _scan(scanner: Scanner, topic: str, name: Callable[[bytes], str], stages: dict[str, Stage]) -> None:
    for message in scanner.read(topic, scanner.spans(topic)):
        value = message.value()
        if isinstance(value, bytes):
            stages.setdefault(name(value), Stage()).times.append(message.timestamp()[1])
