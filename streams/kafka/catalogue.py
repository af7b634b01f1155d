"""Topics that every worker reads whole: products, rate plans, the change matrix, bill runs, routes, subscriptions.

A plain consumer without a group follows all partitions of these topics and keeps the last value of each key in memory.
It is small data that changes rarely; a worker does not start before it has read what was there at its start.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.core.errors import EXIT_FATAL, Misconfigured, Poison, Transient
from streams.kafka.watermarks import watermarks

POLL_S = 0.2
BATCH = 2_000
#: While the registry is down at start, a worker waits this long between tries of the same record.
RETRY_S = 1.0
START_TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 10.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One topic: ``decode`` makes an object of a value, or None for "not there" (a deleted object)."""

    kind: str
    topic: str
    decode: Callable[[bytes], Any | None]


class Catalogue:
    """``get(kind, id)``, ``all(kind)``, ``version(kind)``; safe to read from any thread while it follows."""

    def __init__(self, config: dict[str, Any], sources: list[Source]) -> None:
        self._sources = {source.topic: source for source in sources}
        self._objects: dict[str, dict[str, Any]] = {source.kind: {} for source in sources}
        self._partitions: list[tuple[str, int]] = []
        self._reached: dict[tuple[str, int], int] = {}
        self._versions = dict.fromkeys(self._objects, 0)
        self._consumer = Consumer(
            {
                "group.id": "curfew-catalogue",  # required by the client; nothing is ever committed
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
                **config,
            }
        )
        # A client of its own: the other one is locked while its thread polls, and it polls again at once.
        self._asker = Consumer({"group.id": "curfew-catalogue", **config})
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="catalogue", daemon=True)

    def get(self, kind: str, id: str) -> Any | None:
        """The object, or None when there is none (yet)."""
        return self._objects[kind].get(id)

    def all(self, kind: str) -> Mapping[str, Any]:
        """All objects of a kind by id; a snapshot."""
        return dict(self._objects[kind])

    def version(self, kind: str) -> int:
        """Grows whenever something of the kind changed; for caches."""
        return self._versions[kind]

    def sync(self) -> None:
        """Wait until everything that is in the topics at this moment has been read; raises Transient when Kafka does
        not say how much that is."""
        try:
            ends = self._ends()
        except KafkaException as error:
            raise Transient(f"Kafka does not say where the catalogue topics end: {error.args[0].str()}") from error
        while any(self._reached.get(partition, 0) < end for partition, end in ends.items()):
            time.sleep(0.001)

    def start(self) -> None:
        """Read everything that is there now, then follow in a thread.

        Raises :class:`streams.core.errors.Misconfigured` for a missing topic, Transient when Kafka does not answer.
        """
        partitions: list[tuple[str, int]] = []
        for topic in self._sources:
            metadata = self._asker.list_topics(topic, timeout=REQUEST_TIMEOUT_S).topics[topic]
            if metadata.error is not None:
                raise Misconfigured(f"no such topic: {topic}. Create it with: curfew topics apply")
            partitions += [(topic, number) for number in metadata.partitions]
        self._partitions = partitions
        ends = self._ends()
        self._consumer.assign([TopicPartition(topic, partition, 0) for topic, partition in ends])
        deadline = time.monotonic() + START_TIMEOUT_S
        while any(self._reached.get(partition, 0) < end for partition, end in ends.items()):
            if time.monotonic() > deadline:
                raise Transient("Kafka does not deliver the catalogue topics; is the broker well?")
            self._take(self._consumer.consume(BATCH, POLL_S))
            self._note_positions()
        self._thread.start()

    def _ends(self) -> dict[tuple[str, int], int]:
        return {
            partition: watermarks(self._asker, TopicPartition(*partition), REQUEST_TIMEOUT_S)[1]
            for partition in self._partitions
        }

    def _note_positions(self) -> None:
        """By position and not by the last record: compaction leaves gaps, also at the end."""
        for found in self._consumer.position([TopicPartition(*partition) for partition in self._partitions]):
            self._reached[found.topic, found.partition] = max(0, int(found.offset))

    def _follow(self) -> None:
        try:
            self._follow_on()
        except BaseException as error:
            # Going on with configuration that no longer changes would be worse than a restart: events would go to
            # routes and receivers that were taken away, and nobody would notice.
            log.error(
                "catalogue.died",
                error=repr(error),
                topics=sorted(self._sources),
                remedy="the worker stops, as its configuration would never change again; the supervisor restarts it",
            )
            sys.stderr.flush()
            os._exit(EXIT_FATAL)

    def _follow_on(self) -> None:
        while not self._stopping.is_set():
            first = self._consumer.poll(POLL_S)
            if first is not None:
                self._take([first, *self._consumer.consume(BATCH, 0.0)])
            self._note_positions()
        self._consumer.close()

    def _take(self, messages: list[Message]) -> None:
        for message in messages:
            error = message.error()
            if error is None:
                self._put(message)
            elif error.code() != KafkaError._PARTITION_EOF:
                log.warning("catalogue.kafka", error=error.str())

    def _put(self, message: Any) -> None:
        source = self._sources[message.topic()]
        key, value = message.key(), message.value()
        if key is None:
            log.warning("catalogue.no_key", topic=source.topic, offset=message.offset())
            return
        name = key.decode(errors="replace")
        found = self._decode(source, message, value) if value is not None else None
        objects = self._objects[source.kind]
        if found is None:
            objects.pop(name, None)
        else:
            objects[name] = found
        self._versions[source.kind] += 1

    def _decode(self, source: Source, message: Any, value: bytes) -> Any | None:
        while not self._stopping.is_set():
            try:
                return source.decode(value)
            except Poison as error:  # the last good value of the key stays: a bad one must not delete configuration
                log.error(
                    "catalogue.unreadable", error=str(error.at(source.topic, message.partition(), message.offset()))
                )
                return self._objects[source.kind].get((message.key() or b"").decode(errors="replace"))
            except Transient as error:
                log.warning("catalogue.waits", error=str(error))
                self._stopping.wait(RETRY_S)
        return None

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        else:
            self._consumer.close()
        self._asker.close()


def patiently(start: Callable[[], None], stop: threading.Event | None = None) -> None:
    """Call ``start`` until Kafka answers; says every ten seconds what it waits for."""
    waited = 0
    while True:
        try:
            return start()
        except (KafkaException, Transient) as error:
            if waited % 10 == 0:
                log.warning(
                    "worker.waits_for_kafka",
                    error=str(error),
                    remedy="start the broker, or set CURFEW_BOOTSTRAP_SERVERS",
                )
            waited += 1
            if stop is not None and stop.wait(1.0):
                return None
            time.sleep(1.0)
