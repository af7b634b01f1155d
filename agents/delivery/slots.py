"""How many may do something at once, where that number changes while some do it. Belongs to one event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress


class Slots:
    """Like ``asyncio.Semaphore``, first come, first served, but ``width`` may be set at any time: a wider one lets more
    in at once, a narrower one nobody until enough have left."""

    __slots__ = ("_taken", "_waiting", "_width")

    def __init__(self, width: int) -> None:
        self._width = width
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def width(self) -> int:
        return self._width

    @width.setter
    def width(self, width: int) -> None:
        self._width = width
        self._let_in()

    async def acquire(self) -> None:
        """Wait for a slot; :meth:`release` gives it back."""
        if self._taken < self._width and not self._waiting:
            self._taken += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with suppress(ValueError):  # it was passed over already
                    self._waiting.remove(turn)
            else:  # the slot came in the same moment
                self.release()
            raise

    def release(self) -> None:
        """Give a slot back."""
        self._taken -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._taken < self._width:
            turn = self._waiting.popleft()
            if not turn.cancelled():
                self._taken += 1
                turn.set_result(None)
