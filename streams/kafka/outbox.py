"""The one producer of a worker: every record that leaves goes through here, and is awaited.

Librdkafka's producer with acknowledgement by all replicas and idempotence. Delivery is awaited chunk by chunk with
:meth:`Outbox.delivered`; a chunk whose records were not all acknowledged is never committed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.core.errors import Fatal, Transient

#: Librdkafka retries a record for this long. It has to be shorter than a group session (see driver.SESSION_TIMEOUT_MS):
#: a record that is delivered after the partition went to another worker would beat the new owner's in compaction.
DELIVERY_TIMEOUT_MS = 10_000
#: One chunk's outputs have to fit, or produce() answers BufferError in the middle of it and waits.
QUEUE_MESSAGES = 1_000_000
QUEUE_KBYTES = 512 * 1024
#: flush() ignores linger; this only lets a chunk's records gather into few requests while they are being produced.
LINGER_MS = 5
#: Java, Faust and aiokafka hash keys with murmur2, librdkafka by default does not: with another hash the same key
#: lands in another partition and joins find nothing, without any error.
PARTITIONER = "murmur2_random"
#: A record that a foreign producer may have sent is at most this large after it was enriched.
MAX_MESSAGE_BYTES = 1_048_576
#: How often connection errors are logged at most.
TELL_EVERY_S = 10.0

log = structlog.get_logger(__name__)


class DeliveryFailed(Transient):
    """Kafka did not acknowledge a record of this chunk in time; the chunk is decided and sent again."""


class Outbox:
    """Produces, and tells when everything produced so far is durable.

    Errors: :class:`DeliveryFailed` when a record was not acknowledged; :class:`streams.core.errors.Fatal` when the
    producer itself cannot go on (fenced, not authorised).
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._failures = 0
        self._last_error: KafkaError | None = None
        self._fatal: KafkaError | None = None
        self._told_at = float("-inf")
        self._producer = Producer(
            {
                "acks": "all",
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": LINGER_MS,
                "delivery.timeout.ms": DELIVERY_TIMEOUT_MS,
                "queue.buffering.max.messages": QUEUE_MESSAGES,
                "queue.buffering.max.kbytes": QUEUE_KBYTES,
                "message.max.bytes": MAX_MESSAGE_BYTES,
                "partitioner": PARTITIONER,
                # A callback for each success would cost more than encoding the record does.
                "delivery.report.only.error": True,
                **config,
                "on_delivery": self._on_failure,
                "error_cb": self._on_error,
            }
        )
        self.produce: Any = self._producer.produce  # typed Any: the stubs allow headers only as a list of optionals
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None], int]] = []
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._flush_loop, name="outbox", daemon=True)
        self._thread.start()

    def _on_failure(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures += 1
            self._last_error = error
            if self._failures == 1 or self._failures % 1000 == 0:
                log.warning("outbox.not_delivered", topic=message.topic(), error=error.str(), failures=self._failures)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:  # see pump.FATAL
            self._fatal = error
        # While a broker is away the client tells so several times per second.
        if error.fatal() or time.monotonic() - self._told_at > TELL_EVERY_S:
            self._told_at = time.monotonic()
            log.warning("outbox.kafka", error=error.str(), fatal=error.fatal())

    @property
    def failures(self) -> int:
        """How many records were ever not acknowledged; compare before producing and after :meth:`delivered`."""
        return self._failures

    def emit(
        self,
        topic: str,
        key: bytes | str | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] | None = None,
        partition: int = -1,
    ) -> None:
        """Hand one record to the producer; waits, without loss, when its queue is full.

        Raises :class:`streams.core.errors.Fatal` for a record that no retry can send (unknown topic is retried).
        """
        while True:
            try:
                self.produce(topic, value, key, partition, headers=headers)
            except BufferError:
                self._producer.poll(0.05)
            except KafkaException as error:
                raise Fatal(f"cannot produce to {topic}: {error}") from error
            else:
                return

    def emit_rows(self, topic: str, partition: int, rows: Sequence[dict[str, bytes | None]]) -> None:
        """Hand many records without headers to one partition (the changelog): a third of the cost of :meth:`emit`."""
        pending = list(rows)
        while self._producer.produce_batch(topic, pending, partition=partition) != len(pending):
            refused = [row for row in pending if "_error" in row]
            for row in refused:
                error = row.pop("_error")
                if isinstance(error, KafkaError) and error.code() != KafkaError._QUEUE_FULL:
                    raise Fatal(f"cannot write row {row['key']!r} to {topic}[{partition}]: {error.str()}")
            # Row keys are unique within a chunk, so sending the refused ones later changes no last value.
            pending = refused
            self._producer.poll(0.05)

    async def delivered(self, failures_before: int) -> None:
        """Wait until all that was handed over before this call is acknowledged.

        ``failures_before`` is :attr:`failures` as it was before the first record; raises :class:`DeliveryFailed` if a
        record failed since (perhaps another chunk's: sending once too often is harmless, once too few is not).
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._wake:
            self._waiting.append((loop, future, failures_before))
            self._wake.notify()
        await future

    def flush(self, failures_before: int) -> None:
        """Blocking form of :meth:`delivered`, for processes without an event loop."""
        while self._producer.flush(1.0):
            if self._fatal is not None:
                raise Fatal(f"the producer cannot go on: {self._fatal.str()}")
        if self._failures != failures_before:
            reason = self._last_error.str() if self._last_error is not None else "unknown"
            raise DeliveryFailed(f"Kafka did not acknowledge: {reason}")

    def _flush_loop(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._stopping:
                    self._wake.wait(0.2)
                    if not self._waiting:
                        self._producer.poll(0)
                if self._stopping and not self._waiting:
                    return
                waiting, self._waiting = self._waiting, []
            while self._producer.flush(1.0):
                if self._fatal is not None:
                    break
            for loop, future, before in waiting:
                loop.call_soon_threadsafe(self._settle, future, before)

    def _settle(self, future: asyncio.Future[None], before: int) -> None:
        if future.done():
            return
        if self._fatal is not None:
            future.set_exception(Fatal(f"the producer cannot go on: {self._fatal.str()}"))
        elif self._failures != before:
            reason = self._last_error.str() if self._last_error is not None else "unknown"
            future.set_exception(DeliveryFailed(f"Kafka did not acknowledge: {reason}"))
        else:
            future.set_result(None)

    def close(self) -> None:
        """Wait for what is queued, then end the thread; bounded by the delivery time-out."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout=DELIVERY_TIMEOUT_MS / 1000 + 1)
        self._producer.flush(1.0)
