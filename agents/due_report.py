"""Tells the clock when a partition wants its next tick; the virtual clock would pass by the instant otherwise."""

from __future__ import annotations

from datetime import datetime

from streams.codec import Codec
from streams.core.clock import NextDue
from streams.kafka.chunks import Batch
from streams.topics import DUE

_REPORTED = "reported"


class DueReport:
    """One for all partitions of a worker: what was told last is in the memory of each."""

    def __init__(self, codec: Codec) -> None:
        self._encode = codec.encoder(DUE, NextDue)

    def tell(self, batch: Batch, due: datetime | None) -> None:
        """Report ``due`` (None: nothing is waited for) if it is not what was reported last."""
        if _REPORTED in batch.memory and batch.memory[_REPORTED] == due:
            return
        batch.memory[_REPORTED] = due
        report = NextDue(group=batch.app, partition=batch.partition, due=due)
        batch.emit(DUE, key=f"{batch.app}/{batch.partition}", value=self._encode(report))
