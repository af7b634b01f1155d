"""Read a known part of a topic once, without a group: for checkers and reports, not for agents."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.core.errors import Transient
from streams.kafka.watermarks import watermarks

REQUEST_TIMEOUT_S: Final = 15.0
POLL_S: Final = 0.2
BATCH: Final = 5_000
#: A broker that delivers nothing for this long is not well; without it a checker would wait for ever.
SILENCE_S: Final = 30.0


class Span(NamedTuple):
    """Offsets [start, end) of one partition."""

    start: int
    end: int


Spans: TypeAlias = dict[int, Span]


class Scanner:
    """One consumer that is assigned by hand and commits nothing; use it as a context manager."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._consumer = Consumer(
            {
                **config,
                "group.id": "curfew-scan",  # required by the client, never joined
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
            }
        )

    def __enter__(self) -> Scanner:
        return self

    def __exit__(self, *exc: object) -> None:
        self._consumer.close()

    def topics(self, prefix: str) -> list[str]:
        """The names of all topics that begin so. Raises Transient when nobody answers."""
        try:
            found = self._consumer.list_topics(timeout=REQUEST_TIMEOUT_S).topics
        except KafkaException as error:
            raise Transient(f"cannot ask Kafka for its topics: {error.args[0].str()}; is it running?") from error
        return sorted(name for name in found if name.startswith(prefix))

    def spans(self, topic: str) -> Spans:
        """What every partition holds now; empty if there is no such topic. Raises Transient when nobody answers."""
        try:
            metadata = self._consumer.list_topics(topic, timeout=REQUEST_TIMEOUT_S).topics[topic]
            if metadata.error is not None:
                return {}
            return {number: self._span(topic, number) for number in sorted(metadata.partitions)}
        except KafkaException as error:
            raise Transient(f"cannot ask Kafka about {topic}: {error.args[0].str()}; is it running?") from error

    def since(self, topic: str, spans: Spans, at_ms: int) -> Spans:
        """The part of ``spans`` from the first record on that is as old as this (Unix milliseconds), or younger."""
        if not spans:
            return {}
        wanted = [TopicPartition(topic, number, at_ms) for number in spans]
        try:
            found = self._consumer.offsets_for_times(wanted, timeout=REQUEST_TIMEOUT_S)
        except KafkaException as error:
            raise Transient(f"cannot ask Kafka about {topic}: {error.args[0].str()}; is it running?") from error
        return {
            one.partition: Span(
                spans[one.partition].end if one.offset < 0 else max(one.offset, spans[one.partition].start),
                spans[one.partition].end,
            )
            for one in found
        }

    def _span(self, topic: str, partition: int) -> Span:
        return Span(*watermarks(self._consumer, TopicPartition(topic, partition), REQUEST_TIMEOUT_S))

    def read(self, topic: str, spans: Spans) -> Iterator[Message]:
        """The records of ``spans``, in order within a partition; raises Transient when Kafka stops delivering."""
        left = {number: span for number, span in spans.items() if span.start < span.end}
        if not left:
            return
        self._consumer.assign([TopicPartition(topic, number, span.start) for number, span in left.items()])
        heard = time.monotonic()
        while left:
            messages = self._consumer.consume(BATCH, POLL_S)
            if messages:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENCE_S:
                raise Transient(f"Kafka does not deliver {topic} to its end; is the broker well? Try again.")
            for message in messages:
                error = message.error()
                if error is None:
                    span = left.get(message.partition() or 0)
                    if span is not None and (message.offset() or 0) < span.end:
                        yield message
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise Transient(f"cannot read {topic}: {error.str()}")
            # By position, not by the last record seen: compaction leaves gaps, also at the end of a span.
            positions = self._consumer.position([TopicPartition(topic, number) for number in left])
            for position in positions:
                if position.offset >= left[position.partition].end:
                    del left[position.partition]
        self._consumer.unassign()
