"""Notices that this process was stopped (SIGSTOP, a paused virtual machine, a laptop's lid) for too long."""

from __future__ import annotations

import threading
import time

#: Twice per second is far below half a session and costs nothing.
INTERVAL_S = 0.5


class StallWatch:
    """``stalled`` is True for ever once the process slept longer than ``limit_s``: its group may have moved on."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._last = time.monotonic()
        self.longest_s = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stall-watch", daemon=True)
        self._thread.start()

    @property
    def stalled(self) -> bool:
        self._note(time.monotonic())
        return self.longest_s > self._limit_s

    @property
    def reason(self) -> str:
        """For the log, once it is :attr:`stalled`."""
        return f"this process was stopped for {self.longest_s:.0f} s, longer than half a session"

    def _note(self, now: float) -> None:
        self.longest_s = max(self.longest_s, now - self._last)

    def _run(self) -> None:
        while not self._stopping.wait(INTERVAL_S):
            now = time.monotonic()
            self._note(now)
            self._last = now

    def stop(self) -> None:
        self._stopping.set()
