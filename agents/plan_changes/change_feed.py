"""Follows the scheduler's changelog and the ticks, without a group: what the board shows, kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from agents.business_time import BusinessTime
from streams.codec import Codec
from streams.core.clock import Tick
from streams.core.errors import Misconfigured, Transient
from streams.core.plan_change.board import Entry, entry
from streams.core.plan_change.machine import Change
from streams.core.plan_change.rows import CHANGE, unpack_change
from streams.kafka.scan import Scanner, Span
from streams.kafka.watermarks import watermarks
from streams.topics import TICKS

BATCH = 2_000
POLL_S = 0.2
#: A broker that delivers nothing for so many polls is not well; without it the board would read for ever.
SILENT_POLLS = 150

_PREFIX = CHANGE.encode()


class ChangeFeed:
    """``entries`` by row key and ``time`` as of the last :meth:`poll`; call :meth:`start` first, :meth:`close` last.

    ``on_change`` hears of every row too, with None for one that was deleted: for those who keep more than entries.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        codec: Codec,
        changelog: str,
        *,
        on_change: Callable[[bytes, Change | None], None] = lambda key, change: None,
    ) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.time: BusinessTime | None = None
        self._config = dict(config)
        self._codec = codec
        self._changelog = changelog
        self._on_change = on_change
        self._consumer = Consumer(
            {
                **config,
                "group.id": "curfew-board",  # required by the client; it is never joined and nothing is committed
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
            }
        )

    def start(self, on_read: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Read everything that is there now; ``on_read`` hears how much. Raises Transient, or Misconfigured without the
        topic."""
        with Scanner(self._config) as scanner:
            rows, ticks = scanner.spans(self._changelog), scanner.spans(TICKS)
        if not rows:
            raise Misconfigured(f"there is no topic {self._changelog}: create it with `curfew topics apply`")
        last = {number: Span(max(span.start, span.end - 1), span.end) for number, span in ticks.items()}
        spans = {(self._changelog, number): span for number, span in rows.items()}
        spans |= {(TICKS, number): span for number, span in last.items()}
        self._consumer.assign([TopicPartition(*partition, span.start) for partition, span in spans.items()])
        left = {partition: span.end for partition, span in spans.items() if span.start < span.end}
        total, done, silent = sum(span.end - span.start for span in spans.values()), 0, 0
        while left:
            heard = self.poll(POLL_S)
            done, silent = done + heard, 0 if heard else silent + 1
            if silent > SILENT_POLLS:
                raise Transient(f"Kafka does not deliver {self._changelog} to its end; is the broker well? Try again.")
            on_read(done, total)
            # By position, not by the last record seen: compaction leaves gaps, also at the end.
            for found in self._consumer.position([TopicPartition(*partition) for partition in left]):
                if found.offset >= left[found.topic, found.partition]:
                    del left[found.topic, found.partition]

    def poll(self, timeout_seconds: float) -> int:
        """Take what has come, waiting at most so long for the first; returns the number of records."""
        first = self._consumer.poll(timeout_seconds)
        messages = [] if first is None else [first, *self._consumer.consume(BATCH, 0.0)]
        return sum(self._take(message) for message in messages)

    def check(self, timeout_seconds: float) -> None:
        """Raise Transient when Kafka does not answer: nothing comes then, as when nothing happens."""
        try:
            watermarks(self._consumer, TopicPartition(self._changelog, 0), timeout_seconds)
        except KafkaException as error:
            raise Transient(f"cannot read {self._changelog}: {error.args[0].str()}; is the broker well?") from error

    def close(self) -> None:
        """Leave; nothing stays behind in Kafka."""
        self._consumer.close()

    def _take(self, message: Message) -> bool:
        error = message.error()
        if error is not None:
            if error.code() != KafkaError._PARTITION_EOF and not error.retriable():
                raise Transient(f"the changelog cannot be read: {error.str()}")
            return False  # a broker that is away: the clock falls silent, which the board shows
        key, value = message.key(), message.value()
        if message.topic() == TICKS:
            if isinstance(value, bytes):
                self._tick(self._codec.decode(value, Tick), message.timestamp()[1])
        elif isinstance(key, bytes) and key.startswith(_PREFIX):
            change = unpack_change(value) if isinstance(value, bytes) else None
            self._on_change(key, change)
            found = None if change is None else entry(change)
            if found is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = found
        return True

    def _tick(self, tick: Tick, written_ms: int) -> None:
        if self.time is None or tick.now >= self.time.now:
            self.time = BusinessTime(now=tick.now, written_at=datetime.fromtimestamp(written_ms / 1000, UTC))
