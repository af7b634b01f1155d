"""The attempts of one partition that are under way in this worker, and who writes what has ended.

Chunks go side by side and their attempts end all mixed up, so each chunk would have a few results at a time, and pay a
round trip and a request for every partition of results for them. So one chunk at a time writes whatever has ended,
whichever chunk it belongs to. A chunk is done when all of its attempts are written; if it was the one that writes,
another goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Generic, TypeVar

#: What has ended waits so long for more, or until there is so much of it, while more is under way. A kill meanwhile
#: costs these attempts too.
GATHER_S: Final = 0.05
ENOUGH: Final = 256

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Waiting:
    """A chunk that waits for ``left`` attempts."""

    left: int = 0
    woken: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True, eq=False)
class Running(Generic[T]):
    """An attempt, what it brings, and the chunks that have asked for it. ``taken``: its result is being written."""

    attempt_id: str
    traceparent: str | None
    ended: asyncio.Future[T]
    chunks: list[Waiting] = field(default_factory=list)
    taken: bool = False


class UnderWay(Generic[T]):
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._running: dict[str, Running[T]] = {}
        self._ended: list[Running[T]] = []
        self._some, self._enough = asyncio.Event(), asyncio.Event()
        self._writer: Waiting | None = None
        self._idle: list[Waiting] = []

    def get(self, attempt_id: str) -> Running[T] | None:
        return self._running.get(attempt_id)

    def begin(self, attempt_id: str, traceparent: str | None) -> Running[T]:
        """Whoever calls this sets ``ended``, or calls :meth:`give_up`."""
        running: Running[T] = Running(attempt_id, traceparent, asyncio.get_running_loop().create_future())
        running.ended.add_done_callback(partial(self._note, running))
        self._running[attempt_id] = running
        return running

    def give_up(self, attempt_ids: Iterable[str]) -> None:
        """These were not begun, and may be begun anew."""
        for attempt_id in attempt_ids:
            running = self._running.pop(attempt_id)
            running.ended.cancel()
            self._release(running)
        if self._writer is not None and not self._writer.left:
            self._some.set()  # it waits for nothing any more
            self._enough.set()

    def wait_for(self, chunk: Waiting, running: Running[T]) -> None:
        """``chunk`` is not done before ``running`` is written."""
        running.chunks.append(chunk)
        chunk.left += 1

    async def turn(self, chunk: Waiting) -> bool:
        """Wait until it is this chunk's turn to write, or nothing is left to wait for, which returns False."""
        while chunk.left and self._writer is not chunk:
            if self._writer is None:
                self._writer = chunk
                break
            self._idle.append(chunk)
            chunk.woken.clear()
            try:
                await chunk.woken.wait()
            finally:
                self._idle.remove(chunk)
        return chunk.left > 0

    def leave(self, chunk: Waiting) -> None:
        """``chunk`` writes no more."""
        if self._writer is chunk:
            self._writer = None
        if self._writer is None and self._idle:
            self._idle[0].woken.set()

    async def take(self) -> list[Running[T]]:
        """What has ended, for the chunk whose turn it is; :meth:`written` or :meth:`put_back` has to follow."""
        await self._some.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                await self._enough.wait()
        self._some.clear()
        self._enough.clear()
        found, self._ended = self._ended, []
        for running in found:
            running.taken = True
        return found

    def put_back(self, found: list[Running[T]]) -> None:
        """They could not be made durable."""
        for running in found:
            running.taken = False
        self._ended[:0] = found
        self._some.set()

    def written(self, found: Iterable[Running[T]]) -> None:
        """They are durable."""
        for running in found:
            del self._running[running.attempt_id]
            self._release(running)

    def _note(self, running: Running[T], ended: asyncio.Future[T]) -> None:
        if ended.cancelled():
            return
        self._ended.append(running)
        self._some.set()
        if len(self._ended) >= min(ENOUGH, len(self._running)):
            self._enough.set()

    def _release(self, running: Running[T]) -> None:
        for chunk in running.chunks:
            chunk.left -= 1
            if not chunk.left:
                chunk.woken.set()
