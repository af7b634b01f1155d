"""Finds rows of data sources while events are enriched; :mod:`agents.sources.rows` has put them where they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from streams.core.parameters import Present
from streams.core.rows import source_key
from streams.core.sources import DataSource, SourceRow, present
from streams.kafka.store import Overlay

#: Bytes in front of a stored row: its offset in ``sources.rows``, big-endian.
OFFSET_BYTES = 8


def kept(decode: Callable[[bytes], SourceRow], stored: bytes | None) -> SourceRow | None:
    """The row that is stored."""
    return None if stored is None else decode(stored[OFFSET_BYTES:])


class SharedRows(Protocol):
    """The rows that are read whole, under the kind ``source_row`` and ``<source>/<key>``."""

    def get(self, kind: str, id: str) -> object | None: ...


class Finder:
    """Finds the row of a source for one chunk, each stored row decoded at most once."""

    def __init__(
        self,
        sources: Mapping[str, DataSource],
        rows: Overlay,
        decode: Callable[[bytes], SourceRow],
        shared: SharedRows,
    ) -> None:
        self._sources = sources
        self._rows = rows
        self._decode = decode
        self._shared = shared
        self._found: dict[tuple[str, str], Present | None] = {}

    def __contains__(self, kind: str) -> bool:
        return kind in self._sources

    def __call__(self, name: str, key: str) -> Present | None:
        """The row of this key, or None when it is missing."""
        try:
            return self._found[name, key]
        except KeyError:
            source = self._sources[name]
            row: object | None
            if source.local:
                row = kept(self._decode, self._rows.get(source_key(name, key)))
            else:
                row = self._shared.get("source_row", f"{name}/{key}")
            found = self._found[name, key] = present(source, row if isinstance(row, SourceRow) else None)
            return found
