"""Runs handlers without Kafka: the real Batch over the real overlay and memory store, and crashes where you like.

A handler sees exactly what a worker gives it; only the four phases are shorter, since "durable" means "in this object".
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

from streams.kafka.chunks import Batch, Handler, Headers, Opener, Output, Record
from streams.kafka.store import MemoryStore, Overlay
from streams.tracing import OFF, Tracer

Outputs = list[Output]


class Lane:
    """One partition of one app: a store, the app's memory, and everything that has left it so far (``sent``)."""

    def __init__(self, app: str, *, partition: int = 0, open: Opener | None = None) -> None:
        self.app = app
        self.partition = partition
        self.store = MemoryStore()
        self.memory: dict[str, Any] = {}
        self.sent: Outputs = []
        self.now: datetime | None = None
        self.tracer: Tracer = OFF
        #: Rows of each slice of the last chunk: where it could break off.
        self.written: list[int] = []
        self._open = open
        self._offset = 0
        self.reopen()

    def reopen(self) -> None:
        """What a restart does: memory is gone and built again from the rows."""
        self.memory.clear()
        if self._open is not None:
            self._open(self._batch("", []))

    def run(self, handler: Handler, topic: str, records: Sequence[tuple[str | None, bytes | None]]) -> Outputs:
        """Hand (key, value) pairs to ``handler`` as one chunk; returns what left because of it."""
        return self.replay(handler, self.chunk(topic, records))

    def chunk(
        self, topic: str, records: Sequence[tuple[str | None, bytes | None]], headers: Sequence[Headers] = ()
    ) -> list[Record]:
        """Records with the next offsets; ``headers``: those of each."""
        made = []
        for (key, value), found in zip(records, headers or [()] * len(records), strict=True):
            self._offset += 1
            raw = None if key is None else key.encode()
            made.append(Record(topic, self.partition, self._offset, raw, value, list(found), 0))
        return made

    def replay(
        self,
        handler: Handler,
        records: list[Record],
        *,
        crash_after_outputs: int | None = None,
        crash_after_rows: int | None = None,
        crash_in_slice: int = 1,
    ) -> Outputs:
        """Run a chunk (again). ``crash_after_outputs``: so many outputs of that slice become durable, then the process
        is gone: no row of the slice is written and memory is lost. ``crash_after_rows``: all of its outputs, and so
        many of its rows, in their order."""
        batch, before = self._batch(records[0].topic, records), len(self.sent)
        self.written = []
        for number, _ in enumerate(_steps(handler, batch), 1):
            if crash_after_outputs is not None and number == crash_in_slice:
                self.sent += batch.outputs[:crash_after_outputs]
                self.reopen()
                return self.sent[before:]
            self.sent += batch.outputs
            batch.outputs.clear()
            if crash_after_rows is not None and number == crash_in_slice:
                self.store.write(list(batch.rows.writes.items())[:crash_after_rows], None)
                self.reopen()
                return self.sent[before:]
            self.written.append(len(batch.rows.writes))
            self.store.write(batch.rows.writes.items(), None)
            batch.rows.clear()
        return self.sent[before:]

    def _batch(self, topic: str, records: list[Record]) -> Batch:
        return Batch(
            app=self.app,
            topic=topic,
            partition=self.partition,
            records=records,
            rows=Overlay(self.store),
            now=self.now,
            memory=self.memory,
            tracer=self.tracer,
        )


def _steps(handler: Handler, batch: Batch) -> Iterator[None]:
    """Run the handler; yields wherever everything so far has to become durable."""
    result = handler(batch)
    if inspect.isawaitable(result):

        async def wait() -> None:
            await result

        asyncio.run(wait())
    elif isinstance(result, AsyncIterator):
        steps = result

        async def step() -> bool:
            return await anext(steps, True) is None

        with asyncio.Runner() as runner:
            while runner.run(step()):
                yield
    elif result is not None:
        yield from result
    yield


def values(outputs: Outputs, topic: str, decode: Callable[[bytes | None], Any]) -> list[Any]:
    """The decoded values that went to ``topic``, in order."""
    return [decode(output.value) for output in outputs if output.topic == topic]
