"""The one producer of a worker: every record that leaves goes through here, and is awaited.

Librdkafka's producer with acknowledgement by all replicas and idempotence. The records of a chunk share one
:class:`Delivery`, which counts their acknowledgements; a chunk of which one was not acknowledged is never committed.

The event loop itself takes the acknowledgements, now and then, whatever has come by then. A thread that waits for them
has to get hold of the interpreter for each, while the loop works on the next chunk: it cost a tenth of the time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.core.errors import CurfewError, Fatal, Transient
from streams.kafka.fatal import is_fatal

#: Librdkafka retries a record for this long. It has to be shorter than a group session (see pump.SESSION_TIMEOUT_MS):
#: a record that is delivered after the partition went to another worker would beat the new owner's in compaction.
DELIVERY_TIMEOUT_MS = 10_000
#: One chunk's outputs have to fit, or produce() answers BufferError in the middle of it and waits.
QUEUE_MESSAGES = 1_000_000
QUEUE_KBYTES = 512 * 1024
#: Lets a chunk's records gather into few requests while they are being produced, which takes about as long.
LINGER_MS = 1
#: How often acknowledgements are taken: while somebody waits, while they are long in coming (so many looks later), and
#: while nobody waits, for the errors of records that nobody waits for.
SOON_S, LATER_S, IDLE_S = 0.001, 0.01, 0.2
SOON_TIMES = 50
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


class Delivery:
    """Records that are awaited together, e.g. all that one chunk causes. Make one for each; it is for one wait."""

    __slots__ = ("error", "future", "outstanding")

    def __init__(self) -> None:
        self.outstanding = 0
        self.error: KafkaError | None = None
        self.future: asyncio.Future[None] | None = None

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        """One record is acknowledged, or has failed."""
        self.outstanding -= 1
        if error is not None:
            self.error = error
        if not self.outstanding:
            self.end(None if self.error is None else _not_acknowledged(self.error))

    def end(self, error: CurfewError | None) -> None:
        """Let whoever waits go on, with ``error`` if there is one."""
        if self.future is None or self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)


def _not_acknowledged(error: KafkaError | None) -> DeliveryFailed:
    return DeliveryFailed(f"Kafka did not acknowledge: {error.str() if error is not None else 'unknown'}")


def _cannot_go_on(error: KafkaError) -> Fatal:
    return Fatal(f"the producer cannot go on: {error.str()}")


class Outbox:
    """Produces, and tells when what was produced is durable.

    On an event loop call :meth:`start`, and await :meth:`delivered`; without one use :meth:`flush`.
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
                **config,
                "on_delivery": self._on_delivery,
                "error_cb": self._on_error,
            }
        )
        self.produce: Any = self._producer.produce  # typed Any: the stubs allow headers only as a list of optionals
        self._awaited: set[Delivery] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next_poll: asyncio.TimerHandle | None = None
        self._wait_s = IDLE_S
        self._looks = 0

    def start(self) -> None:
        """From now on the running event loop takes the acknowledgements, until :meth:`stop`."""
        self._loop = asyncio.get_running_loop()
        self._poll()

    def _poll(self) -> None:
        try:
            self._producer.poll(0)
        except KafkaException as error:
            self._on_error(error.args[0])
        finally:  # whatever happens: nobody else takes acknowledgements
            self._looks += 1
            self._poll_after(IDLE_S if not self._awaited else SOON_S if self._looks < SOON_TIMES else LATER_S)
        if self._fatal is not None:
            for delivery in self._awaited:
                delivery.end(_cannot_go_on(self._fatal))

    def _poll_after(self, wait_s: float) -> None:
        if self._loop is not None:  # not stopped
            self._wait_s, self._next_poll = wait_s, self._loop.call_later(wait_s, self._poll)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        """Of a record that belongs to no :class:`Delivery`."""
        if error is not None:
            self._failures += 1
            self._last_error = error
            if self._failures == 1 or self._failures % 1000 == 0:
                log.warning("outbox.not_delivered", topic=message.topic(), error=error.str(), failures=self._failures)

    def _on_error(self, error: KafkaError) -> None:
        if is_fatal(error):
            self._fatal = error
        # While a broker is away the client tells so several times per second.
        if error.fatal() or time.monotonic() - self._told_at > TELL_EVERY_S:
            self._told_at = time.monotonic()
            log.warning("outbox.kafka", error=error.str(), fatal=error.fatal())

    @property
    def failures(self) -> int:
        """How many records without a :class:`Delivery` were ever not acknowledged; for :meth:`flush`."""
        return self._failures

    def emit(
        self,
        topic: str,
        key: bytes | str | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] | None = None,
        partition: int = -1,
        delivery: Delivery | None = None,
    ) -> None:
        """Hand one record to the producer; waits, without loss, when its queue is full.

        Raises :class:`streams.core.errors.Fatal` for a record that no retry can send (unknown topic is retried).
        """
        while True:
            try:
                self.produce(topic, value, key, partition, delivery, headers=headers)
            except BufferError:
                self._producer.poll(0.05)
            except KafkaException as error:
                raise Fatal(f"cannot produce to {topic}: {error}") from error
            else:
                if delivery is not None:
                    delivery.outstanding += 1
                return

    def emit_rows(
        self, topic: str, partition: int, rows: Sequence[dict[str, bytes | None]], delivery: Delivery
    ) -> None:
        """Hand many records without headers to one partition (the changelog): a third of the cost of :meth:`emit`."""
        pending = list(rows)
        while True:
            accepted = self._producer.produce_batch(topic, pending, partition=partition, on_delivery=delivery)
            delivery.outstanding += accepted
            if accepted == len(pending):
                return
            refused = [row for row in pending if "_error" in row]
            for row in refused:
                error = row.pop("_error")
                if isinstance(error, KafkaError) and error.code() != KafkaError._QUEUE_FULL:
                    raise Fatal(f"cannot write row {row['key']!r} to {topic}[{partition}]: {error.str()}")
            # Row keys are unique within a chunk, so sending the refused ones later changes no last value.
            pending = refused
            self._producer.poll(0.05)

    async def delivered(self, delivery: Delivery) -> None:
        """Wait until every record of ``delivery`` is acknowledged; raises :class:`DeliveryFailed` if one failed (all of
        them are to be sent again: sending once too often is harmless, once too few is not)."""
        if self._loop is None:
            raise DeliveryFailed("nobody takes acknowledgements: the outbox was not started, or has been stopped")
        delivery.future = self._loop.create_future()
        if not delivery.outstanding:
            failed = None if delivery.error is None else _not_acknowledged(delivery.error)
            delivery.end(failed if self._fatal is None else _cannot_go_on(self._fatal))
        self._awaited.add(delivery)
        self._looks = 0
        if self._wait_s > SOON_S and self._next_poll is not None:
            self._next_poll.cancel()
            self._poll_after(SOON_S)
        try:
            await delivery.future
        finally:
            self._awaited.discard(delivery)

    def flush(self, failures_before: int) -> None:
        """Blocking form of :meth:`delivered`, for processes without an event loop: all records without a
        :class:`Delivery`. ``failures_before`` is :attr:`failures` as it was before the first of them."""
        while self._producer.flush(1.0):
            if self._fatal is not None:
                raise _cannot_go_on(self._fatal)
        if self._failures != failures_before:
            raise _not_acknowledged(self._last_error)

    def stop(self) -> None:
        """The event loop takes no more acknowledgements, whoever still waits has failed; call it there, then
        :meth:`close` anywhere."""
        if self._next_poll is not None:
            self._next_poll.cancel()
        self._loop = None
        for delivery in self._awaited:
            delivery.end(DeliveryFailed("the outbox has been stopped"))

    def close(self) -> None:
        """Wait for what is queued, bounded by the delivery time-out, and end the client; nothing is sent after it."""
        self._producer.flush(DELIVERY_TIMEOUT_MS / 1000 + 1)
        # The client knows our callbacks and we know the client: its threads would run until garbage is collected.
        del self._producer, self.produce
