"""Business time of each partition, from the ticks that this group has already handled."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeAlias

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from streams.core.clock import Tick, advance
from streams.core.errors import Poison, Transient
from streams.kafka.chunks import Record

TICKS = "clock.ticks"
log = structlog.get_logger(__name__)

TickReader: TypeAlias = Callable[[bytes], Tick]


class BusinessTime:
    """``now(partition)``: the highest tick handled; survives a restart, since the last handled tick is the one before
    the committed offset. An app that reads no ticks has the machine's clock in wall mode and none in virtual mode."""

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
        """Find the time that the partition had reached (blocks)."""
        offset = self._start.get(partition)
        if offset is None or offset == 0 or self._read is None:
            return
        consumer = Consumer({"group.id": "curfew-ticks", "enable.auto.commit": False, **self._config})
        try:
            low, _ = consumer.get_watermark_offsets(TopicPartition(TICKS, partition), timeout=10.0)
            if offset - 1 < low:
                return
            consumer.assign([TopicPartition(TICKS, partition, offset - 1)])
            message: Any = consumer.poll(10.0)
            if message is None or message.error() is not None:
                raise Transient(f"cannot read the last handled tick, {TICKS}[{partition}]@{offset - 1}")
            self._advance(partition, message.value())
        except KafkaException as error:
            raise Transient(f"cannot read {TICKS}[{partition}]: {error.args[0].str()}") from error
        finally:
            consumer.close()

    def handle(self, partition: int, records: list[Record]) -> None:
        """Advance by a chunk of ticks."""
        for record in records:
            if record.value is None:
                continue
            try:
                self._advance(partition, record.value)
            except Poison as error:  # whatever it was, it was no tick; time waits for the next one
                log.error("ticks.unreadable", error=str(error.at(record.topic, record.partition, record.offset)))

    def _advance(self, partition: int, value: bytes) -> None:
        assert self._read is not None, "an app that reads clock.ticks needs read_tick"
        now, epoch = advance(self._now.get(partition), self._read(value), self._epoch.get(partition))
        self._now[partition], self._epoch[partition] = now, epoch

    def now(self, partition: int) -> datetime | None:
        if self._wall and not self._start:
            return datetime.now(UTC)
        return self._now.get(partition)
