"""How many may do something at once, where that number changes while some do it. Belongs to one event loop."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from typing import TypeAlias

_Turn: TypeAlias = "asyncio.Future[None]"


class Slots:
    """Like ``asyncio.Semaphore``, first come, first served, but ``width`` may be set at any time: a wider one lets more
    in at once, a narrower one nobody until enough have left. Who waits may say until when."""

    __slots__ = ("_look_at", "_taken", "_timer", "_waiting", "_width")

    def __init__(self, width: int) -> None:
        self._width = width
        self._taken = 0
        #: With the monotonic second at which each gives up.
        self._waiting: deque[tuple[_Turn, float]] = deque()
        #: One timer for all of them, since nearly everybody gets a slot in time: when it looks who has to give up.
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = float("inf")

    @property
    def width(self) -> int:
        return self._width

    @width.setter
    def width(self, width: int) -> None:
        self._width = width
        self._let_in()

    async def acquire(self, until: float = float("inf")) -> None:
        """Wait for a slot; :meth:`release` gives it back. Raises TimeoutError at ``until`` (``time.monotonic``)."""
        if self._taken < self._width and not self._waiting:
            self._taken += 1
            return
        turn: _Turn = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, until))
        if until < self._look_at:
            self._look(until)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with suppress(ValueError):  # it was passed over already
                    self._waiting.remove((turn, until))
            elif turn.exception() is None:  # the slot came in the same moment
                self.release()
            raise

    def release(self) -> None:
        """Give a slot back."""
        self._taken -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._taken < self._width:
            turn, _ = self._waiting.popleft()
            if not turn.done():
                self._taken += 1
                turn.set_result(None)

    def _look(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._look_at = at
        self._timer = asyncio.get_running_loop().call_later(at - time.monotonic(), self._send_away)

    def _send_away(self) -> None:
        self._timer, self._look_at = None, float("inf")
        now = time.monotonic()
        for turn, until in self._waiting:
            if until <= now and not turn.done():
                turn.set_exception(TimeoutError())
        self._waiting = deque(one for one in self._waiting if not one[0].done())
        next_at = min((until for _, until in self._waiting), default=float("inf"))
        if next_at < float("inf"):
            self._look(next_at)
