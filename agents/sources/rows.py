"""Rows of data sources in the events worker: kept with their account, found when an event is enriched.

A stored row is the record as it came, behind its offset in ``sources.rows``. Only a record with a higher offset
replaces it, so a chunk that is done again never shows an older row; a removed row stays as its offset without fields.
"""

from __future__ import annotations

from typing import Protocol

from agents.events.limits import check_size
from agents.sources.finder import OFFSET_BYTES
from streams.codec import Codec
from streams.core.errors import Poison
from streams.core.rows import source_key
from streams.core.sources import SourceRow
from streams.kafka.chunks import Batch, Record
from streams.kafka.runtime import Runtime

ROWS = "sources.rows"


class Ports(Protocol):
    """What this agent needs of the outside."""

    @property
    def codec(self) -> Codec: ...


def attach(runtime: Runtime, ports: Ports) -> None:
    """Register the keeper of source rows with the events app's ``runtime``."""
    runtime.agent("sources", topics=[ROWS], handler=SourceRows(ports).rows)


class SourceRows:
    """The handler: the newest row of each key stays."""

    def __init__(self, ports: Ports) -> None:
        self._decode = ports.codec.decoder(SourceRow)

    def rows(self, batch: Batch) -> None:
        """Keep what came."""
        changed: dict[bytes, bytes] = {}
        for record in batch.records:
            try:
                check_size(record)
                row = self._decode(record.value)
                _check(record, row)
            except Poison as error:
                batch.dead_letter(record, error)
                continue
            key = source_key(row.source, row.key)
            known = changed.get(key) or batch.rows.get(key)
            if known is None or record.offset > int.from_bytes(known[:OFFSET_BYTES], "big"):
                changed[key] = record.offset.to_bytes(OFFSET_BYTES, "big") + (record.value or b"")
        for key, value in changed.items():
            batch.rows.put(key, value)


def _check(record: Record, row: SourceRow) -> None:
    if row.account_id is None or record.key != row.account_id.encode():
        raise Poison("wrong_key", f"the key is {record.key!r}, for this row it must be {row.account_id!r}")
