"""What the watchdog reads: ticks, replies, acknowledgements, findings; into the book, with the offsets it reached."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, TypeVar

import msgspec
import structlog
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from agents.watchdog.book import Book
from streams.codec import Codec
from streams.core.clock import Tick
from streams.core.errors import Misconfigured, Poison, Transient
from streams.core.events import Finding
from streams.core.ids import instant_text
from streams.core.plan_change.machine import Change
from streams.core.plan_change.messages import Acknowledgement, Reply
from streams.core.plan_change.rows import CHANGE, unpack_change
from streams.core.watch import Tracked, of_acknowledgement, of_change, of_finding, of_reply
from streams.kafka.scan import Scanner, Span, Spans
from streams.topics import ACKNOWLEDGEMENTS, FINDINGS, REPLIES, TICKS

CHANGELOG: Final = "plan-changes-store-changelog"
#: The group whose progress on the ticks says whether the scheduler lives; only asked for, never joined.
SCHEDULER: Final = "plan-changes"
#: Records of one transaction of the book. More, and a stop in a long catch-up loses more work.
CHUNK: Final = 2_000
#: Several clocks may write, so the last tick need not be the highest.
LOOK_BACK: Final = 100
TIMEOUT_S: Final = 10.0

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Reader:
    """Reads what has come since the last time; :attr:`now` is the highest tick, None before the first.

    ``second_part``: how long before the deadline the persister begins the second part of outcomes, if it has two
    (setting ``second_part_hours``): nothing is acknowledged before, so nothing is expected before.
    """

    def __init__(
        self, config: dict[str, Any], codec: Codec, book: Book, *, second_part: timedelta | None = None
    ) -> None:
        self._config = config
        self._book = book
        self._second_part = second_part
        self._tick = codec.decoder(Tick)
        reply, acknowledgement, finding = (codec.decoder(cls) for cls in (Reply, Acknowledgement, Finding))
        self._reads: dict[str, Callable[[bytes | None], Tracked | None]] = {
            REPLIES: lambda value: of_reply(reply(value)),  # type: ignore[arg-type]  # the loop loses the types
            FINDINGS: lambda value: of_finding(finding(value)),  # type: ignore[arg-type]
            ACKNOWLEDGEMENTS: lambda value: of_acknowledgement(acknowledgement(value)),  # type: ignore[arg-type]
        }
        self._tick_positions: dict[int, int] = {}
        self._group: Consumer | None = None
        self.now: datetime | None = None
        self.unreadable = 0
        self.records = 0

    def read(self, alive: Callable[[], None] = lambda: None) -> None:
        """Read everything that is there now; raises Transient when Kafka or the registry does not answer.

        Ticks come first: what had been persisted when the clock showed an instant is then known when it is judged.
        """
        try:
            with Scanner(self._config) as scanner:
                self._ticks(scanner)
                if self._book.fact("seeded") is None:
                    self._seed(scanner, alive)
                for topic in self._reads:
                    self._facts(scanner, topic, alive)
        except KafkaException as error:
            raise Transient(f"cannot read Kafka: {error.args[0].str()}") from error

    def scheduler_progress(self) -> tuple[int, int]:
        """(ticks that the scheduler has handled, ticks that there are), summed over the partitions."""
        if self._group is None:
            self._group = Consumer({**self._config, "group.id": SCHEDULER, "enable.auto.commit": False})
        partitions = [TopicPartition(TICKS, number) for number in self._tick_positions]
        try:
            committed = self._group.committed(partitions, timeout=TIMEOUT_S)
        except KafkaException as error:
            raise Transient(f"cannot ask how far {SCHEDULER} is: {error.args[0].str()}") from error
        return sum(max(0, one.offset) for one in committed), sum(self._tick_positions.values())

    def close(self) -> None:
        if self._group is not None:
            self._group.close()

    def _ticks(self, scanner: Scanner) -> None:
        spans = _existing(scanner, TICKS)
        wanted = {
            number: Span(max(span.start, self._tick_positions.get(number, span.end - LOOK_BACK)), span.end)
            for number, span in spans.items()
        }
        for message in scanner.read(TICKS, wanted):
            found = self._decoded(message, self._tick)
            if found is not None and (self.now is None or found.now > self.now):
                self.now = found.now
        self._tick_positions = {number: span.end for number, span in spans.items()}

    def _facts(self, scanner: Scanner, topic: str, alive: Callable[[], None]) -> None:
        spans = self._unread(scanner, topic)
        reached = {number: span.start for number, span in spans.items()}
        now = self.now or datetime.now(UTC)
        for chunk in _chunks(scanner.read(topic, spans)):
            facts = []
            for message in chunk:
                reached[message.partition() or 0] = (message.offset() or 0) + 1
                fact = self._decoded(message, self._reads[topic])
                if fact is not None:
                    facts.append(self._expected(fact))
            with self._book.page():
                self._book.add(facts, now)
                self._book.reached(topic, reached)
            self.records += len(chunk)
            alive()
        # By the end of the span and not by the last record: compaction and transactions leave gaps.
        with self._book.page():
            self._book.reached(topic, {number: span.end for number, span in spans.items()})

    def _seed(self, scanner: Scanner, alive: Callable[[], None]) -> None:
        """A book that begins knows nothing of orders older than the topic of replies. The scheduler's changelog has
        them all, so it is read, this once: later on, what is watched and what watches share no rows."""
        added, now = 0, self.now or datetime.now(UTC)
        for chunk in _chunks(scanner.read(CHANGELOG, scanner.spans(CHANGELOG))):
            facts = [of_change(change) for message in chunk if (change := _change_of(message)) is not None]
            with self._book.page():
                self._book.add(facts, now)
            added += len(facts)
            alive()
        with self._book.page():
            self._book.note("seeded", instant_text(now))
        log.info("watchdog.book_begun", rows_of_the_scheduler=added)

    def _unread(self, scanner: Scanner, topic: str) -> Spans:
        known, spans = self._book.positions(topic), Spans()
        for number, span in _existing(scanner, topic).items():
            begin = known.get(number, span.start)
            if begin > span.end:
                log.warning("watchdog.topic_made_again", topic=topic, partition=number, read=begin, end=span.end)
                begin = span.start
            if number in known and begin < span.start:
                log.error(
                    "watchdog.records_lost",
                    topic=topic,
                    partition=number,
                    records=span.start - begin,
                    remedy="it was away for longer than the topic keeps records: compare with curfew plan-changes list",
                )
            spans[number] = Span(max(begin, span.start), span.end)
        return spans

    def _expected(self, fact: Tracked) -> Tracked:
        if self._second_part is None or fact.due_at is None or fact.deadline_at is None:
            return fact
        return replace(fact, due_at=max(fact.due_at, fact.deadline_at - self._second_part))

    def _decoded(self, message: Message, decode: Callable[[bytes | None], T]) -> T | None:
        value = message.value()
        try:
            return decode(value if isinstance(value, bytes) else None)
        except Poison as error:  # its reader puts it aside; here it is only counted
            self.unreadable += 1
            where = error.at(message.topic() or "", message.partition() or 0, message.offset() or 0)
            log.warning("watchdog.unreadable", error=str(where))
            return None


def cluster_id(config: dict[str, Any]) -> str:
    """Kafka's name for the cluster; raises Transient when nobody answers."""
    consumer = Consumer({**config, "group.id": "curfew-watchdog"})
    try:
        metadata: Any = consumer.list_topics(timeout=TIMEOUT_S)
        return str(metadata.cluster_id)
    except KafkaException as error:
        raise Transient(f"cannot ask Kafka for its cluster: {error.args[0].str()}") from error
    finally:
        consumer.close()


def _change_of(message: Message) -> Change | None:
    key, value = message.key(), message.value()
    if not (isinstance(key, bytes) and isinstance(value, bytes) and key.startswith(CHANGE.encode())):
        return None
    try:
        return unpack_change(value)
    except msgspec.DecodeError as error:  # rows are the scheduler's own business and may be of another version
        log.warning("watchdog.unreadable_row", key=key.decode(errors="replace"), error=str(error))
        return None


def _existing(scanner: Scanner, topic: str) -> Spans:
    spans = scanner.spans(topic)
    if not spans:
        raise Misconfigured(f"no such topic: {topic}. Create it with: curfew topics apply")
    return spans


def _chunks(messages: Iterator[Message]) -> Iterable[list[Message]]:
    while chunk := list(islice(messages, CHUNK)):
        yield chunk


class SchedulerPulse:
    """How long the scheduler has not moved although there were ticks, in seconds of the machine's clock.

    Kept in the book, so that two runs of ``--once`` are two looks.
    """

    def __init__(self, book: Book) -> None:
        self._book = book

    def silent_s(self, handled: int, ticks: int) -> float:
        """Seconds since it last made progress, or had nothing to do."""
        wall = time.time()
        before, since = (self._book.fact("scheduler") or f"-1 {wall}").split(" ")
        if handled >= ticks or handled != int(before):
            since = str(wall)
        with self._book.page():
            self._book.note("scheduler", f"{handled} {since}")
        return max(0.0, wall - float(since))
