"""Reads everything that the board shows, each source in a thread of its own, again and again.

A source that takes minutes (the ledger of millions) must not hold up the countdown, and one that fails is told in its
panels while the others go on.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import structlog
from confluent_kafka import KafkaException

from agents.board.memory import Memory
from streams.core.errors import CurfewError

#: After a failure (no broker, no such topic yet) the next try is so much later than usual.
RETRY_S: Final = 5.0
#: How long :meth:`Reading.stop` waits for what is under way; the threads end with the process in any case.
STOP_S: Final = 5.0

log = structlog.get_logger(__name__)


class Source(Protocol):
    """Reads for one or more panels; used from one thread."""

    #: The panels that it fills, and the seconds from one reading to the next.
    panels: Sequence[str]
    every_s: float

    def read(self) -> Mapping[str, Mapping[str, Any]]:
        """Panel → its data; raises when it cannot be read."""

    def close(self) -> None:
        """Leave; nothing stays behind in Kafka."""


class Reading:
    """Start it, look into ``memory`` at any time, stop it."""

    def __init__(self, memory: Memory, sources: Sequence[Source]) -> None:
        self._memory = memory
        self._stop = threading.Event()
        self._wake = {source: threading.Event() for source in sources}
        self._threads = [
            threading.Thread(target=self._every, args=(source,), name=f"board-{source.panels[0]}", daemon=True)
            for source in sources
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def soon(self) -> None:
        """Read everything again now: somebody has just changed something."""
        for wake in self._wake.values():
            wake.set()

    def stop(self) -> None:
        self._stop.set()
        self.soon()
        for thread in self._threads:
            thread.join(STOP_S)

    def _every(self, source: Source) -> None:
        told = ""
        wake = self._wake[source]
        try:
            while True:
                wake.clear()  # before the question whether to stop, which would be lost otherwise
                if self._stop.is_set():
                    break
                try:
                    for panel, data in source.read().items():
                        self._memory.put(panel, data)
                    wait, told = source.every_s, ""
                except Exception as error:  # whatever it is: a thread that ends would leave its last figures standing
                    problem = str(error) or repr(error)
                    if problem != told:
                        known = isinstance(error, CurfewError | KafkaException | OSError)
                        log.warning("board.cannot_read", panels=source.panels, error=problem, exc_info=not known)
                    for panel in source.panels:
                        self._memory.fail(panel, problem)
                    wait, told = max(RETRY_S, source.every_s), problem
                wake.wait(wait)
        finally:
            source.close()
