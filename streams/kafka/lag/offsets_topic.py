"""Follows ``__consumer_offsets`` as a plain consumer: every commit of every group, with its time, in one read.

Asking for offsets costs a request for each group, and the client's own function for it may end the process; the topic
costs one fetch for all of them, and only it tells when a commit was made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # public, the stubs do not say so

from streams.core.errors import Transient
from streams.kafka.admin import quiet
from streams.kafka.lag.offset_records import CommitKey, UnknownRecord, parse_key, parse_value

TOPIC: Final = "__consumer_offsets"
TIMEOUT_S: Final = 15.0
POLL_S: Final = 0.2
BATCH: Final = 5_000
#: What the client reads ahead, in KiB: a first read of a large cluster's topic must not fill the memory.
READ_AHEAD_KIB: Final = 8 * 1024
_DENIED: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)


class Unusable(Exception):
    """This user may not read the topic, or its records are of a newer Kafka than is known here."""


class Committed(NamedTuple):
    """One commit as it stands in the topic; ``offset`` None: it was deleted, with its group or by its age. ``order``
    grows within a group."""

    key: CommitKey
    order: int
    offset: int | None
    at_ms: int


class OffsetsTopic:
    """A consumer of its own that is assigned by hand and commits nothing. Use it from one thread."""

    def __init__(self, config: Mapping[str, Any], wanted: Callable[[str], bool] = lambda group: True) -> None:
        self._wanted = wanted
        self._consumer = Consumer(
            quiet(
                {
                    **config,
                    "group.id": "curfew-monitor",  # required by the client, never joined
                    "enable.auto.commit": False,
                    "auto.offset.reset": "earliest",
                    "enable.partition.eof": True,
                    "queued.max.messages.kbytes": READ_AHEAD_KIB,
                    "fetch.queue.backoff.ms": 50,  # a second by default, whenever so much has been read ahead
                }
            )
        )
        #: Partition → the offset behind what was read. The end may be the mark of a transaction, which is no record.
        self._reached: dict[int, int] = {}
        #: Key of a record → whose commit it is, None for those that nobody wants: most records have a known key.
        self._keys: dict[bytes, CommitKey | None] = {}
        self.records = 0
        self.caught_up = False

    def close(self) -> None:
        self._consumer.close()

    def read(self, admin: AdminClient, partitions: int, *, deadline: float) -> Iterator[Committed]:
        """Every commit that has come since the last read, up to where the topic ends now.

        Ends early at ``deadline`` (``time.monotonic()``); :attr:`caught_up` says whether it did not. Raises Unusable,
        and Transient when Kafka does not answer.
        """
        self._assign(partitions)
        ends = self._ends(admin)
        while self._left(ends):
            messages = self._consumer.consume(BATCH, POLL_S)
            for message in messages:
                error, partition, offset = message.error(), message.partition() or 0, message.offset() or 0
                if error is None:
                    self.records += 1
                    self._reached[partition] = offset + 1
                    found = self._parsed(message)
                    if found is not None:
                        yield found
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._reached[partition] = max(self._reached[partition], offset)
                elif error.code() in _DENIED:
                    raise Unusable(error.str())
            if time.monotonic() > deadline:
                break
        self.caught_up = not self._left(ends)

    def _assign(self, partitions: int) -> None:
        """Partitions are only ever added, and hardly ever."""
        new = [TopicPartition(TOPIC, number, 0) for number in range(len(self._reached), partitions)]
        if new:
            self._consumer.incremental_assign(new)
            self._reached |= {one.partition: 0 for one in new}

    def _ends(self, admin: AdminClient) -> dict[int, int]:
        wanted = {TopicPartition(TOPIC, number): OffsetSpec.latest() for number in self._reached}  # type: ignore[no-untyped-call]
        found = admin.list_offsets(wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=TIMEOUT_S)
        ends = {}
        for partition, future in found.items():
            try:
                ends[partition.partition] = int(future.result().offset)
            except KafkaException as error:
                if error.args[0].code() in _DENIED:
                    raise Unusable(error.args[0].str()) from error
                raise Transient(f"the end of {TOPIC} cannot be asked for: {error.args[0].str()}") from error
        return ends

    def _left(self, ends: Mapping[int, int]) -> bool:
        return any(self._reached[number] < end for number, end in ends.items())

    def _parsed(self, message: Message) -> Committed | None:
        key, value = message.key(), message.value()
        if not isinstance(key, bytes):
            return None
        whose = self._keys.get(key)
        if whose is None and key not in self._keys:
            whose = self._learn(key)
        if value is None:
            self._keys.pop(key, None)
        if whose is None:
            return None
        if not isinstance(value, bytes):
            return Committed(whose, message.offset() or 0, None, message.timestamp()[1])
        try:
            offset, at_ms = parse_value(value)
        except UnknownRecord as error:
            raise Unusable(str(error)) from error
        return Committed(whose, message.offset() or 0, offset, at_ms)

    def _learn(self, key: bytes) -> CommitKey | None:
        try:
            found = parse_key(key)
        except UnknownRecord as error:
            raise Unusable(str(error)) from error
        if found is not None and not self._wanted(found.group):
            found = None
        self._keys[key] = found
        return found
