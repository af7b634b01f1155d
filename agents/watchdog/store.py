"""Asks the billing store before the alarm: it alone decides what is persisted, an acknowledgement only tells of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import select

from agents.watchdog.book import settled
from streams.core.watch import Tracked
from streams.settings import Settings
from streams.sinks.billing.database import Database
from streams.sinks.billing.tables import commit_mark, outcome

#: Changes of one deadline that are asked for. More of them unacknowledged are no lost acknowledgements but a lost
#: night, and the store has better to do then.
MOST: Final = 20_000
#: Ids in one statement.
SLICE: Final = 500


class StoreCheck:
    """Reads outcomes by change id. Every method may raise Transient when the database does not answer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database: Database | None = None

    def persisted(self, changes: Sequence[Tracked]) -> list[Tracked]:
        """Those of ``changes`` that the store has, as facts."""
        if not self._there():
            return []
        found: list[Tracked] = []
        for at in range(0, len(changes), SLICE):
            wanted = {change.change_id: change for change in changes[at : at + SLICE]}
            for change_id, revision, committed_at in self._outcomes(list(wanted)):
                change = wanted[change_id]
                if revision == change.revision and committed_at is not None and change.deadline_at is not None:
                    late = committed_at >= change.deadline_at
                    found.append(settled(change, revision, late, committed_at))
        return found

    def _outcomes(self, change_ids: list[str]) -> list[tuple[str, int, datetime | None]]:
        assert self._database is not None
        statement = (
            select(outcome.c.change_id, outcome.c.revision, commit_mark.c.committed_at)
            .join_from(outcome, commit_mark, commit_mark.c.id == outcome.c.mark_id)
            .where(outcome.c.change_id.in_(change_ids))
        )
        with self._database.reading() as connection:
            return [(row.change_id, row.revision, row.committed_at) for row in connection.execute(statement)]

    def _there(self) -> bool:
        if self._database is None:
            # Asked for a SQLite file that is not there, the driver would make an empty one.
            file = self._settings.data_dir / "billing.sqlite"
            if self._settings.database_url is None and not file.exists():
                return False
            self._database = Database(self._settings.billing_store_url)
        return True

    def close(self) -> None:
        if self._database is not None:
            self._database.dispose()
