"""Brings rows of data sources from their own topics to where events are enriched: the worker ``sources``.

Every source with a topic has a consumer group of its own, ``curfew-source-<name>-v<version>``: a new source, or one
whose rows no longer fit, reads its topic from the beginning. It keeps nothing: per batch of records the rows are made
durable, then the offsets are committed. Repeated rows replace themselves.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer

from agents.events import MAX_RECORD_BYTES
from agents.source_rows import ROWS, SHARED
from streams.codec import Codec
from streams.core.errors import Fatal, Poison, Transient
from streams.core.sources import DataSource, Format, SourceRow, Unusable, row_of
from streams.kafka import dead_letters
from streams.kafka.catalogue import Catalogue
from streams.kafka.chunks import Record
from streams.kafka.partitioner import PARTITIONER
from streams.settings import Settings

APP: Final = "sources"
SOURCE: Final = "source"
#: Records of one source that are made durable together.
BATCH: Final = 500
#: How long one source is listened to before it is the next one's turn; with dozens of them a row still takes no second.
POLL_S: Final = 0.05
IDLE_S: Final = 0.2
RETRY_S: Final = 1.0
FLUSH_S: Final = 30.0
#: A value of Confluent's JSON Schema format begins with a zero byte and four bytes of schema id.
_JSON_HEADER: Final = 5
#: A topic that is not there is said once in so many seconds, not at every poll.
TELL_EVERY_S: Final = 30.0

log = structlog.get_logger(__name__)


class SourceFeeds:
    """Follows the configuration and feeds rows until SIGTERM; ``run`` returns the exit code."""

    def __init__(self, settings: Settings, codec: Codec, catalogue: Catalogue, *, instance: str = "1") -> None:
        self._settings = settings
        self._codec = codec
        self._catalogue = catalogue
        self._instance = instance
        self._version: int | None = None
        self._feeds: dict[str, _Feed] = {}
        self._stop = threading.Event()
        self._producer = Producer(
            settings.kafka(
                **{
                    "client.id": f"curfew-sources-{instance}",
                    "enable.idempotence": True,
                    "compression.type": "lz4",
                    "linger.ms": 5,
                    "partitioner": PARTITIONER,
                    "allow.auto.create.topics": False,
                    "delivery.timeout.ms": int(FLUSH_S * 1000),
                    "error_cb": lambda error: None,
                }
            )
        )

    def run(self) -> int:
        """Until SIGTERM or SIGINT; call it in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        log.info("worker.started", app=APP, instance=self._instance)
        try:
            while not self._stop.is_set():
                self._follow()
                for feed in self._feeds.values():
                    self._turn(feed)
                if not self._feeds:
                    self._stop.wait(IDLE_S)
        finally:
            for feed in self._feeds.values():
                feed.close()
            self._catalogue.stop()
        log.info("worker.stopped", app=APP, instance=self._instance)
        return 0

    def _follow(self) -> None:
        """Open and close feeds as the configuration says."""
        version = self._catalogue.version(SOURCE)
        if version == self._version:
            return
        wanted = {feed_of(one): one for one in self._catalogue.all(SOURCE).values() if one.topic is not None}
        for group in [group for group, feed in self._feeds.items() if wanted.get(group) != feed.source]:
            self._feeds.pop(group).close()
        for group, source in wanted.items():
            if group not in self._feeds:
                self._feeds[group] = _Feed(self._settings, self._codec, source, group, self._instance)
                log.info("sources.feeds", source=source.name, topic=source.topic and source.topic.name, group=group)
        self._version = version

    def _turn(self, feed: _Feed) -> None:
        """One batch of one source."""
        messages = feed.poll()
        while messages and not self._stop.is_set():
            try:
                self._write(list(feed.rows(messages)))
                feed.commit(messages)
                return
            except Transient as error:
                log.warning("sources.waits", source=feed.source.name, error=str(error))
                self._stop.wait(RETRY_S)

    def _write(self, records: list[tuple[str, Any, bytes | None, list[tuple[str, bytes]]]]) -> None:
        failures: list[str] = []

        def on_delivery(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failures.append(error.str())

        for topic, key, value, headers in records:
            while True:
                try:
                    self._producer.produce(topic, key=key, value=value, headers=headers, on_delivery=on_delivery)  # type: ignore[arg-type]
                    break
                except BufferError:
                    self._producer.poll(0.1)
                except KafkaException as error:
                    raise Fatal(f"a row cannot be written to {topic}: {error.args[0].str()}") from error
        left = self._producer.flush(FLUSH_S)
        if left or failures:
            raise Transient(f"Kafka did not take {left + len(failures)} rows: {(failures or ['no answer'])[0]}")


def feed_of(source: DataSource) -> str:
    """The consumer group of a source's feed."""
    return f"curfew-source-{source.name}-v{source.version}"


class _Feed:
    """One source's topic."""

    def __init__(self, settings: Settings, codec: Codec, source: DataSource, group: str, instance: str) -> None:
        assert source.topic is not None
        self.source = source
        self._columns = _avro(codec) if source.topic.format is Format.AVRO else _json
        self._target = ROWS if source.local else SHARED
        self._encode: Callable[[SourceRow], bytes] = codec.encoder(self._target, SourceRow)
        self._told_at = float("-inf")
        self._consumer = Consumer(
            settings.kafka(
                **{
                    "group.id": group,
                    "client.id": f"curfew-sources-{instance}",
                    "enable.auto.commit": False,
                    "auto.offset.reset": "earliest",
                    "allow.auto.create.topics": False,
                    "error_cb": lambda error: None,
                }
            )
        )
        self._consumer.subscribe([source.topic.name])

    def poll(self) -> list[Message]:
        """The next records; errors of the client are told now and then."""
        found = []
        for message in self._consumer.consume(BATCH, POLL_S):
            error = message.error()
            if error is None:
                found.append(message)
            elif error.code() != KafkaError._PARTITION_EOF and time.monotonic() - self._told_at > TELL_EVERY_S:
                self._told_at = time.monotonic()
                log.warning("sources.kafka", source=self.source.name, error=error.str())
        return found

    def rows(self, messages: list[Message]) -> Iterator[tuple[str, Any, bytes | None, list[tuple[str, bytes]]]]:
        """(topic, key, value, headers) of what these records mean: rows, and dead letters of those that mean none."""
        for message in messages:
            try:
                row = self._row(message)
                key = row.account_id if row.account_id is not None else f"{row.source}/{row.key}"
                encoded = None if row.fields is None and self._target == SHARED else self._encode(row)
                if encoded is not None and len(encoded) > MAX_RECORD_BYTES:
                    raise Poison("too_large", f"{len(encoded)} bytes, at most {MAX_RECORD_BYTES}")
                yield self._target, key, encoded, []
            except (Poison, Unusable) as error:
                where = message.topic() or "", message.partition() or 0, message.offset() or 0
                poison = error if isinstance(error, Poison) else Poison("invalid", str(error))
                record = Record(*where, _bytes(message.key()), _bytes(message.value()), message.headers() or [], 0)  # type: ignore[arg-type]
                value, headers = dead_letters.envelope(record, poison.at(*where), APP)
                log.warning("sources.dead_letter", source=self.source.name, error=str(poison))
                yield dead_letters.topic(APP), record.key, value, headers

    def _row(self, message: Message) -> SourceRow:
        source, value = self.source, _bytes(message.value())
        assert source.topic is not None
        key = _text(message) if source.topic.key_in == "record" else None
        if value is not None:
            return row_of(source, self._columns(value), key)
        if key is None or source.account_column not in (None, source.key_column):
            raise Poison("no_value", "a tombstone removes a row only where the record's key alone says which and whose")
        account_id = key if source.local else None
        return SourceRow(source=source.name, key=key, account_id=account_id, version=source.version)

    def commit(self, messages: list[Message]) -> None:
        """Say that these are done; a refused commit only means that they come again."""
        with suppress(KafkaException):
            for message in {(one.topic(), one.partition()): one for one in messages}.values():
                self._consumer.commit(message=message, asynchronous=False)

    def close(self) -> None:
        self._consumer.close()


def _bytes(part: str | bytes | None) -> bytes | None:
    return part.encode() if isinstance(part, str) else part


def _text(message: Message) -> str:
    key = _bytes(message.key())
    try:
        if key:
            return key.decode()
    except UnicodeDecodeError:
        pass
    raise Poison("wrong_key", f"the record's key is {key!r}, it has to be the row's key as text")


def _avro(codec: Codec) -> Callable[[bytes], dict[str, Any]]:
    def columns(value: bytes) -> dict[str, Any]:
        datum = codec.decode_any(value).datum
        if not isinstance(datum, dict):
            raise Poison("wrong_type", "the value is no Avro record")
        return datum

    return columns


def _json(value: bytes) -> dict[str, Any]:
    """Plain JSON, or the registry's JSON Schema format, which puts a zero byte and a schema id in front."""
    text = value[_JSON_HEADER:] if value[:1] == b"\0" else value
    try:
        columns = json.loads(text, parse_float=Decimal)
        json.dumps(columns, default=str, ensure_ascii=False).encode()  # halves of characters have no encoding
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise Poison("not_json", str(error) or type(error).__name__) from error
    if not isinstance(columns, dict):
        raise Poison("wrong_type", f"the value is a JSON {type(columns).__name__}, not an object")
    return columns
