"""What was read last, panel by panel: written by the reading threads, shown by the pages."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """``data`` is what a panel shows, as plain JSON values, None before the first reading; ``read_at`` is when.

    ``problem`` says why it could not be read since; the figures are then those of ``read_at``.
    """

    data: Mapping[str, Any] | None = None
    read_at: datetime | None = None
    problem: str | None = None


class Memory:
    """The last look at every panel, and details that pages of single things need; safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looks: dict[str, Look] = {}
        self._details: dict[str, Mapping[str, Any]] = {}

    def look(self, panel: str) -> Look:
        with self._lock:
            return self._looks.get(panel, Look())

    def put(self, panel: str, data: Mapping[str, Any]) -> None:
        """What a panel shows from now on."""
        with self._lock:
            self._looks[panel] = Look(data=data, read_at=datetime.now(UTC))

    def fail(self, panel: str, problem: str) -> None:
        """It could not be read; what was read before stays, and the panel says of when it is."""
        with self._lock:
            self._looks[panel] = replace(self._looks.get(panel, Look()), problem=problem)

    def keep(self, kind: str, details: Mapping[str, Any]) -> None:
        """Replace all single things of a kind (changes that wait, dead letters)."""
        with self._lock:
            self._details[kind] = details

    def detail(self, kind: str, name: str) -> Any | None:
        with self._lock:
            return self._details.get(kind, {}).get(name)

    def details(self, kind: str) -> Mapping[str, Any]:
        """All single things of a kind."""
        with self._lock:
            return self._details.get(kind, {})
