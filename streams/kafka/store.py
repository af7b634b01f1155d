"""One store per app and partition: the local copy of a changelog partition.

A store is never ahead of its changelog: :meth:`Store.write` takes the rows of one chunk after their changelog records
are durable. It carries a stamp (cluster, topic, position, time) so that a stale or foreign directory is wiped instead
of trusted. Keys that begin with ``\\x00`` are the store's own.
"""

from __future__ import annotations

import shutil
import time
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog

from streams.core.errors import Poison

#: RocksDB by default takes a 2 GiB block cache and 3 × 64 MiB buffers **per partition**; a worker with 64 partitions
#: would not fit into any machine.
BLOCK_CACHE_BYTES = 16 << 20
WRITE_BUFFER_BYTES = 4 << 20
WRITE_BUFFERS = 2
#: RocksDB keeps a file per 4 MiB flushed; without a bound a large store meets the limit of open files.
MAX_OPEN_FILES = 256

_ABSENT = object()
_STAMP_KEY = b"\x00stamp"
_FIRST_ROW = b"\x01"
#: A row this near to Kafka's limit for one record would be refused when the changelog is written.
MAX_ROW_BYTES = 1_000_000

Rows = Iterable[tuple[bytes, bytes | None]]
log = structlog.get_logger(__name__)


class Store(Protocol):
    """What a chunk needs of the rows of its partition."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key begins with ``prefix`` and is not before ``start``, in key order."""
        ...

    def write(self, rows: Rows, position: int | None) -> None:
        """Apply ``rows`` (``None`` deletes) and, unless it is None, the changelog position, in one atomic step."""
        ...

    @property
    def position(self) -> int:
        """Changelog offset from which this store must be read on; 0 for an empty store."""
        ...

    def close(self) -> None: ...


class Reads(Protocol):
    """What an overlay is laid over: a store, or another overlay."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]: ...


class Stamp(msgspec.Struct, frozen=True):
    """Whose changelog this is a copy of, and how far."""

    cluster_id: str
    topic_id: str
    position: int
    written_at: float  # Unix time, seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The changelog partition that a store copies."""

    cluster_id: str
    topic_id: str
    topic: str
    partition: int
    #: A copy older than this may have missed tombstones that compaction already removed; its rows would rise again. The
    #: manifest has every changelog keep them longer (delete.retention.ms): reading up to the end takes time, too.
    tombstones_kept_s: float = 24 * 3600.0


class MemoryStore:
    """A sorted dictionary; for tests and for apps whose rows may be read again from Kafka at every start."""

    def __init__(self) -> None:
        self._rows: dict[bytes, bytes] = {}
        self._keys: list[bytes] | None = None  # sorted only when someone scans
        self._position = 0

    @property
    def position(self) -> int:
        return self._position

    def get(self, key: bytes) -> bytes | None:
        return self._rows.get(key)

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        if self._keys is None:
            self._keys = sorted(self._rows)
        found = []
        for index in range(bisect_left(self._keys, max(prefix, start)), len(self._keys)):
            key = self._keys[index]
            if not key.startswith(prefix):
                break
            found.append((key, self._rows[key]))
        return iter(found)

    def write(self, rows: Rows, position: int | None) -> None:
        for key, value in rows:
            if value is None:
                if self._rows.pop(key, None) is not None:
                    self._keys = None
            else:
                if self._keys is not None and key not in self._rows:
                    insort(self._keys, key)
                self._rows[key] = value
        if position is not None:
            self._position = position

    def close(self) -> None:
        self._rows.clear()
        self._keys = None


class RocksStore:
    """RocksDB in ``directory``; opened by one process at a time (RocksDB's own lock says so)."""

    def __init__(self, directory: Path, origin: Origin) -> None:
        self._origin = origin
        self._directory = directory
        self._db = self._open()
        stamp = self._stamp()
        reason = self._unusable(stamp)
        if reason:
            log.warning("store.wiped", directory=str(directory), reason=reason)
            self._db.close()
            shutil.rmtree(directory)
            self._db, stamp = self._open(), None
        self._position = 0
        if stamp is not None:
            self._position = stamp.position
        else:
            # From the first moment on: rows of a worker that was killed before it saved a position belong to this
            # changelog and to no other.
            self.write((), 0)

    def _open(self) -> Any:
        from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options, Rdict

        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(WRITE_BUFFER_BYTES)
        options.set_max_write_buffer_number(WRITE_BUFFERS)
        options.set_max_open_files(MAX_OPEN_FILES)
        options.set_compression_type(DBCompressionType.lz4())
        tables = BlockBasedOptions()
        tables.set_block_cache(Cache(BLOCK_CACHE_BYTES))
        tables.set_bloom_filter(10, False)
        options.set_block_based_table_factory(tables)
        self._directory.mkdir(parents=True, exist_ok=True)
        return Rdict(str(self._directory), options)

    def _stamp(self) -> Stamp | None:
        raw = self._db.get(_STAMP_KEY)
        return msgspec.msgpack.decode(raw, type=Stamp) if raw is not None else None

    def _unusable(self, stamp: Stamp | None) -> str | None:
        if stamp is None:
            return None if next(iter(self._db.keys()), None) is None else "nothing says which changelog it copies"
        if (stamp.cluster_id, stamp.topic_id) != (self._origin.cluster_id, self._origin.topic_id):
            return f"it copies another changelog (cluster {stamp.cluster_id}, topic id {stamp.topic_id})"
        age = time.time() - stamp.written_at
        if age > self._origin.tombstones_kept_s:
            return f"it is {age / 3600:.0f} h old: tombstones of that time may be gone from the changelog"
        return None

    @property
    def position(self) -> int:
        return self._position

    def get(self, key: bytes) -> bytes | None:
        return self._db.get(key)  # type: ignore[no-any-return]

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        for key, value in self._db.items(from_key=max(prefix, start) or _FIRST_ROW):
            if not key.startswith(prefix):
                return
            yield key, value

    def write(self, rows: Rows, position: int | None) -> None:
        from rocksdict import WriteBatch

        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in rows:
            if value is None:
                delete(key)
            else:
                put(key, value)
        if position is not None:
            stamp = Stamp(self._origin.cluster_id, self._origin.topic_id, position, time.time())
            put(_STAMP_KEY, msgspec.msgpack.encode(stamp))
            self._position = position
        self._db.write(batch)

    def close(self) -> None:
        self._db.close()


class Overlay:
    """The rows that one chunk wrote, laid over the store, or that one decision wrote, over those of its chunk; thrown
    away if the chunk has to be decided again."""

    __slots__ = ("_store", "_writes")

    def __init__(self, store: Reads) -> None:
        self._store = store
        self._writes: dict[bytes, bytes | None] = {}

    @property
    def writes(self) -> Mapping[bytes, bytes | None]:
        """Rows in the order in which they were last written; ``None`` is a deletion."""
        return self._writes

    def clear(self) -> None:
        """The writes have been applied to the store; whoever kept the overlay goes on with it."""
        self._writes.clear()

    def get(self, key: bytes) -> bytes | None:
        found = self._writes.get(key, _ABSENT)  # most keys are not here, and an exception for each would cost more
        return self._store.get(key) if found is _ABSENT else found  # type: ignore[return-value]

    def put(self, key: bytes, value: bytes) -> None:
        """Raises :class:`streams.core.errors.Poison` (``too_large``) for a row that the changelog would refuse."""
        if len(value) > MAX_ROW_BYTES:
            raise Poison("too_large", f"{len(value)} bytes in row {key!r}, at most {MAX_ROW_BYTES}")
        self._writes.pop(key, None)  # so that the order is the one of the last write
        self._writes[key] = value

    def delete(self, key: bytes) -> None:
        self._writes.pop(key, None)
        self._writes[key] = None

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Rows under ``prefix``, from ``start`` on, in key order, the overlay's writes included."""
        own = sorted((k, v) for k, v in self._writes.items() if k.startswith(prefix) and k >= start)
        position = 0
        for key, value in self._store.scan(prefix, start):
            while position < len(own) and own[position][0] < key:
                if own[position][1] is not None:
                    yield own[position]  # type: ignore[misc]
                position += 1
            if position < len(own) and own[position][0] == key:
                continue
            yield key, value
        for key, written in own[position:]:
            if written is not None:
                yield key, written
