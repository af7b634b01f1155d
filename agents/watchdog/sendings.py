"""Notices on their way: one row per notice and channel, so that what a process did not send, the next one does."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

SENDING_TABLE: Final = """
CREATE TABLE IF NOT EXISTS sending (
    notice_id TEXT, channel TEXT, message TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL,
    next_at REAL NOT NULL, error TEXT, PRIMARY KEY (notice_id, channel)
);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """One notice on its way through one channel; ``message`` is what the channel renders."""

    notice_id: str
    channel: str
    message: dict[str, Any]
    attempts: int


class Sendings:
    """The part of the book that holds them; write inside a page of the book."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def queue(self, notice_id: str, channels: Iterable[str], message: Mapping[str, Any]) -> None:
        """Have a notice sent through ``channels``; one that is known already stays as it is."""
        rows = [(notice_id, channel, json.dumps(message)) for channel in channels]
        self._db.executemany("INSERT OR IGNORE INTO sending VALUES (?, ?, ?, 'pending', 0, 0, NULL)", rows)

    def sendings(self, wall: float) -> list[Sending]:
        """What is to be sent at ``wall`` (Unix seconds)."""
        query = (
            "SELECT notice_id, channel, message, attempts FROM sending WHERE state = 'pending' AND next_at <= ? "
            "ORDER BY next_at LIMIT 100"
        )
        return [
            Sending(notice_id=id, channel=channel, message=json.loads(message), attempts=attempts)
            for id, channel, message, attempts in self._db.execute(query, (wall,))
        ]

    def attempted(self, sending: Sending, *, state: str, next_at: float, error: str | None) -> None:
        """``state``: sent, pending (again at ``next_at``) or given_up."""
        self._db.execute(
            "UPDATE sending SET state = ?, attempts = ?, next_at = ?, error = ? WHERE notice_id = ? AND channel = ?",
            (state, sending.attempts + 1, next_at, error, sending.notice_id, sending.channel),
        )

    def sending_counts(self) -> dict[str, dict[str, int]]:
        """Channel → state → notices, of the last days."""
        found: dict[str, dict[str, int]] = {}
        for channel, state, count in self._db.execute("SELECT channel, state, count(*) FROM sending GROUP BY 1, 2"):
            found.setdefault(channel, {})[state] = count
        return found

    def last_error(self) -> str | None:
        """Why the newest notice that could not be sent (yet) was not."""
        query = "SELECT channel, error FROM sending WHERE error IS NOT NULL ORDER BY next_at DESC LIMIT 1"
        row = self._db.execute(query).fetchone()
        return None if row is None else f"{row[0]}: {row[1]}"
