"""Business time of each partition, from the ticks that this group has already handled."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeAlias

import structlog
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from streams.core.clock import Tick, advance
from streams.core.errors import Poison, Transient
from streams.kafka.chunks import Record
from streams.kafka.watermarks import watermarks
from streams.topics import TICKS

#: So many ticks before the committed one are read at a start: two clocks may write in wall mode, so the last one need
#: not be the highest, and the last record need not be a tick at all.
LOOK_BACK = 100
TIMEOUT_S = 10.0

log = structlog.get_logger(__name__)

TickReader: TypeAlias = Callable[[bytes], Tick]


class BusinessTime:
    """``now(partition)``: the highest tick of the partition. After a restart it is the highest tick **in the log**, not
    the last committed one: a tick that was handled but not committed may have been acted upon, and time must not go
    back behind it. An app that reads no ticks has the machine's clock in wall mode and none in virtual mode."""

    def __init__(self, config: dict[str, Any], read_tick: TickReader | None, *, wall: bool) -> None:
        self._config = config
        self._read = read_tick
        self._wall = wall
        self._start: dict[int, int] = {}
        self._now: dict[int, datetime] = {}
        self._epoch: dict[int, str] = {}

    def assigned(self, start: dict[int, int]) -> None:
        """Note where the group continues to read ticks; empty when it reads none."""
        self._start = start
        self._now.clear()
        self._epoch.clear()

    def open(self, partition: int) -> None:
        """Find the time that the partition may have reached (blocks)."""
        if partition not in self._start or self._read is None:
            return
        consumer = Consumer({"group.id": "curfew-ticks", "enable.auto.commit": False, **self._config})
        try:
            low, high = watermarks(consumer, TopicPartition(TICKS, partition), TIMEOUT_S)
            begin = max(low, high - LOOK_BACK)
            if begin < high:
                consumer.assign([TopicPartition(TICKS, partition, begin)])
                for message in self._until(consumer, high):
                    self._advance(partition, message.offset() or 0, message.value())
        except KafkaException as error:
            raise Transient(f"cannot read {TICKS}[{partition}]: {error.args[0].str()}") from error
        finally:
            consumer.close()

    def handle(self, partition: int, records: list[Record]) -> None:
        """Advance by a chunk of ticks."""
        for record in records:
            self._advance(partition, record.offset, record.value)

    def _until(self, consumer: Consumer, end: int) -> Iterator[Message]:
        """Records in front of ``end``; by position, since the last of them may be the mark of a transaction."""
        deadline = time.monotonic() + TIMEOUT_S
        while consumer.position(consumer.assignment())[0].offset < end:
            if time.monotonic() > deadline:
                raise Transient(f"cannot read the last ticks, {TICKS} before offset {end}")
            message = consumer.poll(0.2)
            if message is not None and message.error() is None and (message.offset() or 0) < end:
                yield message

    def _advance(self, partition: int, offset: int, value: bytes | None) -> None:
        assert self._read is not None, "an app that reads clock.ticks needs read_tick"
        if value is None:
            return
        try:
            tick = self._read(value)
        except Poison as error:  # whatever it was, it was no tick; time waits for the next one
            log.error("ticks.unreadable", error=str(error.at(TICKS, partition, offset)))
            return
        now, epoch = advance(self._now.get(partition), tick, self._epoch.get(partition))
        self._now[partition], self._epoch[partition] = now, epoch

    def now(self, partition: int) -> datetime | None:
        if self._wall and not self._start:
            return datetime.now(UTC)
        return self._now.get(partition)
