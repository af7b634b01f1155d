"""One source's topic, followed by a thread of its own: whatever is wrong with it, the other sources go on.

A feed that fails lets go of its consumer and begins again later, at what it has committed: so a topic that is not there
yet, a right that is missing, a registry that is away and a fault of ours are one case. It keeps nothing: per batch the
rows are made durable, then the offsets are committed.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from agents.sources.values import APP, Reader
from streams.codec import Codec
from streams.core.errors import EXIT_FATAL, CurfewError, Transient
from streams.core.sources import DataSource
from streams.kafka.chunks import Output
from streams.kafka.failpoints import passing
from streams.kafka.fatal import FATAL, is_fatal
from streams.kafka.partitioner import PARTITIONER
from streams.kafka.pump import HEARTBEAT_INTERVAL_MS, SESSION_TIMEOUT_MS, STALLED_AFTER_S
from streams.kafka.stall import StallWatch
from streams.settings import Settings

#: Records that are made durable together; as many come again after a kill.
BATCH: Final = 500
POLL_S: Final = 0.2
#: Kafka takes a record within this or says that it did not. With the heartbeat it stays under the group's session: rows
#: of one who has lost the partition would come behind newer ones of the next, and stay.
DELIVERY_S: Final = 10.0
#: librdkafka's close can wait for ever for a coordinator that is away. What was not committed comes again anyway.
STOP_S: Final = DELIVERY_S + 2.0
#: Waiting times between tries, the last one again and again: a topic that somebody makes is found within it.
BACK_OFF_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
#: What helps against refusals that people meet; others say what they are.
_REMEDIES: Final = {
    **dict.fromkeys(FATAL, "another process has this name: give each its own --instance"),
    KafkaError.UNKNOWN_TOPIC_OR_PART: "create the topic, or correct the source: curfew sources apply",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "let this worker read and describe the topic: docs/security.md",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "let this worker read the group: docs/security.md",
}

log = structlog.get_logger(__name__)


class Writer:
    """The worker's producer, for the threads of all feeds. It ends the process where nobody may write any more."""

    def __init__(self, settings: Settings, instance: str) -> None:
        self._instance = instance
        self._stall = StallWatch(limit_s=STALLED_AFTER_S)
        self._producer = Producer(
            settings.kafka(
                **{
                    "client.id": f"curfew-sources-{instance}",
                    "enable.idempotence": True,
                    "compression.type": "lz4",
                    "linger.ms": 5,
                    "partitioner": PARTITIONER,
                    "allow.auto.create.topics": False,
                    "delivery.timeout.ms": int(DELIVERY_S * 1000),
                    "error_cb": lambda error: None,
                }
            )
        )

    def __call__(self, outputs: Iterable[Output]) -> None:
        """Returns when all are durable; raises when all are answered, so that nothing is on its way any more."""
        if self._stall.stalled:  # these rows may be older than what the next owner of the partition has written
            self._die(self._stall.reason)
        reports: list[KafkaError | None] = []  # appended to by whichever thread polls
        sent = 0
        refused: str | None = None
        for topic, key, value, headers, _ in outputs:
            refused = self._send(topic, key, value, headers, lambda error, _: reports.append(error))
            if refused is not None:
                break
            sent += 1
        passing("outputs.produced")
        while len(reports) < sent:  # at the latest after DELIVERY_S
            self._poll()
        failures = [error.str() for error in reports if error is not None]
        if refused is not None or failures:
            raise Transient(f"Kafka does not take the rows: {refused or failures[0]}")

    def _poll(self) -> None:
        try:
            self._producer.poll(0.1)
        except KafkaException as error:
            self._check(error.args[0])

    def _check(self, error: KafkaError) -> None:
        if is_fatal(error):
            self._die(f"the producer cannot go on: {error.str()}")

    def _die(self, why: str) -> NoReturn:
        """Leave at once: a restart begins where the last commit ended."""
        log.error("worker.died", app=APP, instance=self._instance, error=why)
        sys.stderr.flush()
        os._exit(EXIT_FATAL)

    def _send(self, topic: str, key: Any, value: bytes | None, headers: Any, on_delivery: Any) -> str | None:
        """Why the client refuses it, or None."""
        while True:
            try:
                self._producer.produce(topic, key=key, value=value, headers=headers, on_delivery=on_delivery)
                return None
            except BufferError:
                self._poll()
            except KafkaException as error:
                self._check(error.args[0])
                return f"{topic}: {error.args[0].str()}"


@dataclass(slots=True)
class Standing:
    """How a feed fares; written by its thread, read by others. ``problem`` is None while it reads."""

    problem: str | None = None
    failures: int = 0
    records: int = 0
    outputs: int = 0
    retries: int = 0
    dead: Counter[str] = field(default_factory=Counter)
    #: When the thread last did anything, on the monotonic clock.
    seen_at: float = field(default_factory=time.monotonic)


class Feed:
    """Call :meth:`start` once and :meth:`stop` once. ``standing`` may be read at any time."""

    def __init__(
        self,
        settings: Settings,
        codec: Codec,
        source: DataSource,
        group: str,
        instance: str,
        write: Callable[[Iterable[Output]], None],
    ) -> None:
        assert source.topic is not None
        self.source = source
        self.group = group
        self.standing = Standing()
        self._topic = source.topic.name
        self._codec = codec
        self._write = write
        self._config = settings.kafka(
            **{
                "group.id": group,
                # Known by its name, a worker that was killed has its partitions back at once, not after a session.
                "group.instance.id": f"{group}-{instance}",
                "session.timeout.ms": SESSION_TIMEOUT_MS,
                "heartbeat.interval.ms": HEARTBEAT_INTERVAL_MS,
                "client.id": f"curfew-sources-{instance}",
                "enable.auto.commit": False,
                "enable.partition.eof": True,  # the sign that an empty topic can be read
                "auto.offset.reset": "earliest",
                "allow.auto.create.topics": False,
                "error_cb": lambda error: None,
            }
        )
        self._stop = threading.Event()
        context = copy_context()  # so that its log lines say which worker it is, as all others do
        self._thread = threading.Thread(target=context.run, args=(self._run,), name=group, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> None:
        """Ask the thread to end; :meth:`stop` waits for it."""
        self._stop.set()

    def stop(self, within_s: float = STOP_S) -> None:
        """End the thread, and leave the group; without the broker the thread is left to end with the process."""
        self.end()
        if self._thread.ident is not None:
            self._thread.join(within_s)
        if self.running:
            log.warning("sources.left_behind", source=self.source.name, why="its consumer waits for the broker")

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except Exception as error:  # a fault of ours in one feed is no reason to end the others
                if not self._stop.is_set():
                    self._wait(error)

    def _follow(self) -> None:
        """Read and write until something is wrong or the feed is stopped."""
        reader = Reader(self._codec, self.source, self._put_aside)
        consumer = Consumer(self._config)
        try:
            consumer.subscribe([self._topic])
            while not self._stop.is_set():
                self.standing.seen_at = time.monotonic()
                self._take(reader, consumer, consumer.consume(BATCH, POLL_S))
        finally:
            consumer.close()

    def _take(self, reader: Reader, consumer: Consumer, polled: list[Message]) -> None:
        messages = [one for one in polled if one.error() is None]
        if messages:
            outputs = list(reader.outputs(messages))
            passing("decide.end")
            self._write(outputs)
            passing("outputs.durable")
            self._commit(consumer, messages)
            self.standing.records += len(messages)
            self.standing.outputs += len(outputs)
        for error in [error for one in polled if (error := one.error()) is not None]:
            if error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
        if polled:
            self._well()

    def _commit(self, consumer: Consumer, messages: list[Message]) -> None:
        """Say that these are done. When that is refused the feed begins again, and they come again, their dead letters
        too: without it the group would stand in front of them until the next record."""
        last = {(one.topic() or "", one.partition() or 0): one.offset() or 0 for one in messages}
        offsets = [TopicPartition(*partition, offset + 1) for partition, offset in last.items()]
        consumer.commit(offsets=offsets, asynchronous=False)
        passing("commit.after")

    def _put_aside(self, reason: str) -> None:
        self.standing.dead[reason] += 1

    def _well(self) -> None:
        if self.standing.problem is not None:
            log.info("sources.reads_again", source=self.source.name, topic=self._topic)
        self.standing.problem, self.standing.failures = None, 0

    def _wait(self, error: Exception) -> None:
        standing = self.standing
        pause = BACK_OFF_S[min(standing.failures, len(BACK_OFF_S) - 1)]
        text, remedy = _said(error)
        standing.problem, standing.seen_at = text, time.monotonic()
        standing.failures += 1
        standing.retries += 1
        log.warning(
            "sources.waits", source=self.source.name, topic=self._topic, error=text, again_in_s=pause,
            **({"remedy": remedy} if remedy else {}), exc_info=not isinstance(error, CurfewError | KafkaException),
        )  # fmt: skip
        self._stop.wait(pause)


def _said(error: Exception) -> tuple[str, str | None]:
    """(what is wrong, what to do about it)."""
    if isinstance(error, KafkaException):
        reason = error.args[0]
        return reason.str(), _REMEDIES.get(reason.code())
    if isinstance(error, CurfewError):
        return str(error), None
    return f"{type(error).__name__}: {error}", "this is a fault of Curfew: please report it with this log line"
