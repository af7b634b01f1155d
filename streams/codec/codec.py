"""Confluent wire format ⇄ wire dataclasses: a zero byte, four bytes of schema id (big-endian), the Avro body.

The hot path asks nobody: ids and resolved readers are looked up once per topic and per id and then bound in closures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeVar, cast

import msgspec
from fastavro import schemaless_reader, schemaless_writer

from streams.codec.convert import from_datum, name_branches, to_datum
from streams.codec.reader import compile_reader
from streams.codec.schemas import LocalSchemas, parse
from streams.codec.shape import check_shape
from streams.codec.subjects import subject_of
from streams.codec.writer import compile_writer
from streams.core.errors import Fatal, Poison
from streams.ports import SchemaIds

MAGIC = 0
HEADER = 5  # the zero byte and the id

T = TypeVar("T")
Parsed = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A value as its writer wrote it, for tools: ``datum`` in fastavro's types, ``schema`` the writer's, parsed."""

    name: str
    schema_id: int
    schema: Parsed
    datum: Any


class Codec:
    """Encode and decode wire dataclasses; not thread-safe on the first use of a schema, harmless when raced."""

    def __init__(self, ids: SchemaIds, schemas: LocalSchemas | None = None) -> None:
        self.schemas = schemas or LocalSchemas()
        self._ids = ids
        self._encoders: dict[tuple[str, type], Callable[[Any], bytes]] = {}
        self._decoders: dict[type, Callable[[bytes | None], Any]] = {}
        self._writers: dict[int, Parsed] = {}
        self._datum_writers: dict[tuple[str, str], tuple[bytes, Callable[[Any], Any]]] = {}

    def encode(self, topic: str, obj: object) -> bytes:
        """The value for ``topic``; raises Misconfigured when the topic's subject has no such schema, Transient when the
        registry is down, Fatal when the object does not fit its schema."""
        cls = type(obj)
        encoder = self._encoders.get((topic, cls))
        if encoder is None:
            encoder = self._encoders[topic, cls] = self.encoder(topic, cls)
        return encoder(obj)

    def decode(self, value: bytes | None, cls: type[T]) -> T:
        """``value`` as the newest ``cls``, whatever version wrote it; raises Poison (``no_value``, ``not_avro``,
        ``unknown_schema_id``, ``wrong_type``, ``undecodable``, ``invalid``), or Transient when the registry is down."""
        decoder = self._decoders.get(cls)
        if decoder is None:
            decoder = self._decoders[cls] = self.decoder(cls)
        found: T = decoder(value)
        return found

    def encoder(self, topic: str, cls: type[T]) -> Callable[[T], bytes]:
        """``encode`` bound to a topic and a class. The registry is first asked when it is first called."""
        local = self.schemas.newest(self.schemas.name_of(cls))
        check_shape(cls, local)
        write, prefix = compile_writer(local.parsed) or fastavro_writer(local.parsed), b""

        def encode(obj: T) -> bytes:
            nonlocal prefix
            if not prefix:
                prefix = self._prefix(topic, local.raw)
            try:
                return prefix + write(obj)
            except Exception as error:
                raise Fatal(
                    f"a {local.name} for {topic} does not fit its schema: {error!r}; the object is {obj!r}"
                ) from error

        return encode

    def decoder(self, cls: type[T]) -> Callable[[bytes | None], T]:
        """``decode`` bound to a class."""
        local = self.schemas.newest(self.schemas.name_of(cls))
        check_shape(cls, local)
        build, readers = from_datum(cls, local.parsed), dict[bytes, tuple[Parsed, Parsed | None]]()
        compiled = compile_reader(cls, local.parsed)

        def decode(value: bytes | None) -> T:
            head = value[:HEADER] if value is not None else b""
            reader = readers.get(head)
            if reader is None:
                reader = readers[head] = self._reader(_schema_id(value), local.name, local.raw, local.parsed)
            assert value is not None  # _schema_id refused it otherwise
            if compiled is not None and reader[1] is None:  # written with the newest version
                try:
                    obj, end = compiled(value, HEADER)
                    if end == len(value):
                        return cast("T", obj)
                except Exception:  # read again below, where it is told what is wrong with it
                    pass
            datum = _read(value, *reader)
            try:
                return build(datum)
            except (msgspec.ValidationError, ValueError, TypeError) as error:
                raise Poison("invalid", f"not a valid {local.name}: {error}") from error

        return decode

    def decode_any(self, value: bytes | None) -> Decoded:
        """As its writer wrote it, without a class; raises Poison and Transient like ``decode``."""
        schema_id = _schema_id(value)
        assert value is not None
        writer = self._writer(schema_id)
        datum = _read(value, writer, None)
        return Decoded(name=str(writer.get("name")), schema_id=schema_id, schema=writer, datum=datum)

    def encode_datum(self, topic: str, name: str, datum: Any) -> bytes:
        """For tools: a datum in fastavro's types by the newest schema ``name``; raises ValueError or TypeError."""
        local = self.schemas.newest(name)
        bound = self._datum_writers.get((topic, name))
        if bound is None:
            bound = self._datum_writers[topic, name] = self._prefix(topic, local.raw), name_branches(local.parsed)
        prefix, named = bound
        out = BytesIO()
        out.write(prefix)
        schemaless_writer(out, local.parsed, named(datum))
        return out.getvalue()

    def _prefix(self, topic: str, raw: dict[str, Any]) -> bytes:
        return bytes((MAGIC,)) + self._ids.id_for(subject_of(topic), raw).to_bytes(4, "big")

    def _writer(self, schema_id: int) -> Parsed:
        writer = self._writers.get(schema_id)
        if writer is None:
            writer = self._writers[schema_id] = parse(self._ids.schema_for(schema_id))
        return writer

    def _reader(self, schema_id: int, name: str, raw: dict[str, Any], parsed: Parsed) -> tuple[Parsed, Parsed | None]:
        writer = self._writer(schema_id)
        if writer.get("name") != name:
            raise Poison("wrong_type", f"schema id {schema_id} is {writer.get('name')}, not {name}")
        # resolving a schema with itself costs half of the speed
        return writer, (None if writer == parsed else parsed)


def fastavro_writer(parsed: Parsed) -> Callable[[Any], bytes]:
    """Object → body, for every schema: by way of a datum."""
    convert = to_datum(parsed)

    def write(obj: Any) -> bytes:
        out = BytesIO()
        schemaless_writer(out, parsed, convert(obj))
        return out.getvalue()

    return write


def fastavro_reader(cls: type[T], parsed: Parsed) -> Callable[[bytes], T]:
    """Body → object, for every schema: by way of a datum; raises errors of fastavro and msgspec."""
    build = from_datum(cls, parsed)
    return lambda body: build(schemaless_reader(BytesIO(body), parsed, None))


def _schema_id(value: bytes | None) -> int:
    if value is None:
        raise Poison("no_value", "a tombstone, where a value is needed")
    if len(value) < HEADER or value[0] != MAGIC:
        raise Poison(
            "not_avro", f"begins with {value[:HEADER].hex() or 'nothing'}, not with a zero byte and a schema id"
        )
    return int.from_bytes(value[1:HEADER], "big")


def _read(value: bytes, writer: Parsed, reader: Parsed | None) -> Any:
    source = BytesIO(value)
    source.seek(HEADER)
    try:
        datum = schemaless_reader(source, writer, reader)
    except Exception as error:  # whatever fastavro raises on garbage: the record is the cause
        why = f"{type(error).__name__}: {error}"
        raise Poison("undecodable", f"the bytes are no {writer.get('name')} ({why})") from error
    if source.tell() != len(value):
        raise Poison("undecodable", f"{len(value) - source.tell()} bytes are left over after the record")
    return datum
