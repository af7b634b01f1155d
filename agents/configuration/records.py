"""Compacted topics, for commands: configuration is read whole and changed record by record, rows are only read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition

from streams.codec import Codec
from streams.core.errors import Misconfigured, Transient
from streams.kafka.admin import answering
from streams.kafka.catalogue import Catalogue, Source
from streams.kafka.partitioner import PARTITIONER
from streams.settings import Settings

#: Long enough for a broker that is busy, short enough for a person who waits at a terminal.
TIMEOUT_S = 15.0

T = TypeVar("T")


def read_records(settings: Settings, codec: Codec, topic: str, cls: type[T]) -> dict[str, T]:
    """Key → latest value of a compacted topic; raises Misconfigured when it does not exist, Transient when Kafka does
    not answer."""
    source = Source(kind=topic, topic=topic, decode=codec.decoder(cls))
    catalogue = Catalogue(answering(settings.kafka()), [source])
    try:
        catalogue.start()
        return dict(catalogue.all(topic))
    finally:
        catalogue.stop()


def write_records(settings: Settings, codec: Codec, topic: str, records: Mapping[str, object | None]) -> None:
    """Set the values of these keys (None deletes), and return when Kafka has them all; raises Transient otherwise."""
    write_keyed(settings, codec, topic, list(records.items()))


def write_keyed(settings: Settings, codec: Codec, topic: str, records: Sequence[tuple[str, object | None]]) -> None:
    """As :func:`write_records`, for topics where several records have one key."""
    producer = Producer(
        answering(settings.kafka())  # quiet: what matters is in the delivery reports
        | {
            "enable.idempotence": True,
            "partitioner": PARTITIONER,
            "allow.auto.create.topics": False,
            "delivery.timeout.ms": int(TIMEOUT_S * 1000),
        }
    )
    failures: list[str] = []

    def on_delivery(error: Any, _message: Any) -> None:
        if error is not None:
            failures.append(error.str())

    for key, value in records:
        encoded = None if value is None else codec.encode(topic, value)
        while True:
            try:
                producer.produce(topic, key=key, value=encoded, on_delivery=on_delivery)
                break
            except BufferError:  # a large file: wait until the client has room again
                producer.poll(0.1)
    left = producer.flush(2 * TIMEOUT_S)
    if failures or left:
        reason = failures[0] if failures else "no answer"
        raise Transient(f"{len(failures) + left} of {len(records)} records for {topic} were not written: {reason}")


def read_rows(settings: Settings, changelog: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The rows of an app whose key begins with ``prefix``, as its changelog has them now, partition by partition.

    The same key may come once from every partition. Raises Misconfigured when there is no such topic.
    """
    config = {"group.id": "curfew-rows", "enable.auto.commit": False, "enable.partition.eof": True}
    consumer = Consumer(answering(settings.kafka()) | config)
    try:
        found = consumer.list_topics(changelog, timeout=TIMEOUT_S).topics[changelog]
        if found.error is not None:
            raise Misconfigured(f"there is no topic {changelog}: create it with `curfew topics apply`")
        for number in found.partitions:
            consumer.assign([TopicPartition(changelog, number, OFFSET_BEGINNING)])
            yield from _read_partition(consumer, changelog, prefix).items()
    finally:
        consumer.close()


def _read_partition(consumer: Consumer, topic: str, prefix: bytes) -> dict[bytes, bytes]:
    rows: dict[bytes, bytes] = {}
    while True:
        first = consumer.poll(TIMEOUT_S)  # consume() alone would wait for its whole number of messages
        if first is None:
            raise Transient(f"{topic} cannot be read to its end: no answer within {TIMEOUT_S:.0f} s; try again")
        for message in (first, *consumer.consume(1_000, timeout=0.0)):
            error, key, value = message.error(), message.key(), message.value()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    return rows
                raise Transient(f"{topic} cannot be read: {error.str()}")
            if isinstance(key, bytes) and key.startswith(prefix):
                if value is None:
                    rows.pop(key, None)
                elif isinstance(value, bytes):
                    rows[key] = value
