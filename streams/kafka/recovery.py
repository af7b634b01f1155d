"""Bring a store up to its changelog, in batches, before the first chunk of its partition is decided."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, TopicPartition

from streams.core.errors import Transient
from streams.kafka.failpoints import passing
from streams.kafka.store import Origin, Store
from streams.kafka.watermarks import watermarks

#: Records per write batch: large enough that the cost per batch vanishes, small enough to be stopped in between.
BATCH_RECORDS = 10_000
POLL_S = 1.0
#: Nothing arrives for this long although the end is not reached: the broker is not well; try again from the position.
STALLED_AFTER_S = 30.0

REQUEST_TIMEOUT_S = 10.0

log = structlog.get_logger(__name__)


class StoreAhead(Exception):
    """The store claims a position that the changelog does not have; it copies something that is gone."""


class Stopped(Exception):
    """The partition was taken away while its store was being recovered."""


class Changelog:
    """Reads one changelog partition; blocking, so it runs in a thread. Not part of any consumer group."""

    def __init__(self, config: dict[str, Any], origin: Origin) -> None:
        self._origin = origin
        self._consumer = Consumer(
            {
                "group.id": f"{origin.topic}-recovery",  # required by the client, never committed
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "isolation.level": "read_uncommitted",
                "queued.max.messages.kbytes": 32 * 1024,
                "fetch.wait.max.ms": 50,
                **config,
            }
        )

    def end(self) -> int:
        """Offset after the last record."""
        partition = TopicPartition(self._origin.topic, self._origin.partition)
        return watermarks(self._consumer, partition, REQUEST_TIMEOUT_S)[1]

    def recover(self, store: Store, stopped: Callable[[], bool]) -> int:
        """Apply everything from ``store.position`` to the end; returns how many records were read.

        Raises :class:`StoreAhead`, :class:`Stopped`, or :class:`streams.core.errors.Transient` when Kafka stops
        answering.
        """
        passing("recovery.start")
        origin = self._origin
        low, end = watermarks(self._consumer, TopicPartition(origin.topic, origin.partition), REQUEST_TIMEOUT_S)
        position = store.position
        if position > end:
            raise StoreAhead(f"position {position}, but {origin.topic}[{origin.partition}] ends at {end}")
        position = max(position, low)
        if position >= end:
            read = 0
        else:
            self._consumer.assign([TopicPartition(origin.topic, origin.partition, position)])
            try:
                read = self._read(store, position, end, stopped)
            finally:
                self._consumer.unassign()
        passing("recovery.end")
        return read

    def _read(self, store: Store, position: int, end: int, stopped: Callable[[], bool]) -> int:
        """Apply what is in front of ``end``, from ``position`` on, to which the consumer is assigned."""
        origin, read, heard = self._origin, 0, time.monotonic()
        while position < end:
            if stopped():
                raise Stopped
            messages: list[Any] = self._consumer.consume(BATCH_RECORDS, timeout=POLL_S if read == 0 else 0.2)
            rows: list[tuple[bytes, bytes | None]] = []
            for message in messages:
                error = message.error()
                if error is None:
                    rows.append((message.key(), message.value()))
                    position = message.offset() + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    # What compaction or transactions left behind the last record. Not ``end``: a leader that has just
                    # taken over may not show all of it yet, and rows that are skipped are missed for ever.
                    position = max(position, message.offset())
                else:
                    raise Transient(f"cannot read {origin.topic}[{origin.partition}]: {error.str()}")
            store.write(rows, position)
            read += len(rows)
            if messages:
                heard = time.monotonic()
            elif time.monotonic() - heard > STALLED_AFTER_S:
                raise Transient(f"{origin.topic}[{origin.partition}] does not answer; at {position} of {end}")
            passing("recovery.middle")
        return read

    def close(self) -> None:
        self._consumer.close()
