"""Records of other people's topics → rows of data sources, or dead letters: what one feed makes of what it has read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Final

import structlog
from confluent_kafka import Message

from agents.events.limits import MAX_RECORD_BYTES
from agents.sources.rows import ROWS
from streams.codec import Codec
from streams.core.errors import Poison
from streams.core.sources import DataSource, Format, SourceRow, Unusable, row_of
from streams.kafka import dead_letters
from streams.kafka.chunks import Output, Record
from streams.topics import SHARED

APP: Final = "sources"
#: A value of Confluent's JSON Schema format begins with a zero byte and four bytes of schema id.
_JSON_HEADER: Final = 5

log = structlog.get_logger(__name__)


class Reader:
    """Reads the records of one source that has a topic. ``on_dead`` gets the reason of each that is put aside."""

    def __init__(self, codec: Codec, source: DataSource, on_dead: Callable[[str], None]) -> None:
        assert source.topic is not None
        self._source, self._topic, self._on_dead = source, source.topic, on_dead
        self._columns = _avro(codec) if source.topic.format is Format.AVRO else _json
        self._target = ROWS if source.local else SHARED
        self._encode: Callable[[SourceRow], bytes] = codec.encoder(self._target, SourceRow)

    def outputs(self, messages: list[Message]) -> Iterator[Output]:
        """The rows that these records mean, and dead letters of those that mean none. Raises Transient where the
        registry cannot say how to read a record: then none of them is done."""
        for message in messages:
            try:
                yield self._output(message)
            except (Poison, Unusable) as error:
                where = message.topic() or "", message.partition() or 0, message.offset() or 0
                poison = error if isinstance(error, Poison) else Poison("invalid", str(error))
                record = Record(*where, _bytes(message.key()), _bytes(message.value()), message.headers() or [], 0)  # type: ignore[arg-type]
                value, headers = dead_letters.envelope(record, poison.at(*where), APP)
                log.warning("sources.dead_letter", source=self._source.name, error=str(poison))
                self._on_dead(poison.reason)
                yield Output(dead_letters.topic(APP), dead_letters.key_of(record), value, headers, -1)

    def _output(self, message: Message) -> Output:
        row = self._row(message)
        key = row.account_id if row.account_id is not None else f"{row.source}/{row.key}"
        value = None if row.fields is None and self._target == SHARED else self._encode(row)
        if value is not None and len(value) > MAX_RECORD_BYTES:
            raise Poison("too_large", f"{len(value)} bytes, at most {MAX_RECORD_BYTES}")
        return Output(self._target, key, value, None, -1)

    def _row(self, message: Message) -> SourceRow:
        source, value = self._source, _bytes(message.value())
        key = _text(message) if self._topic.key_in == "record" else None
        if value is not None:
            return row_of(source, self._columns(value), key)
        if key is None or source.account_column not in (None, source.key_column):
            raise Poison("no_value", "a tombstone removes a row only where the record's key alone says which and whose")
        account_id = key if source.local else None
        return SourceRow(source=source.name, key=key, account_id=account_id, version=source.version)


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
