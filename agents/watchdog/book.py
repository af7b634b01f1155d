"""The watchdog's memory: one SQLite file with the open changes, how far topics were read, and what was said to whom.

A file and not a compacted topic: offsets and rows change in one transaction, so a restart goes on exactly where it
stopped, also for an order whose reply has left its topic long ago; and what guards Kafka must not need Kafka to know
what it has said. Nor is the fleet in memory then: a million open
changes cost the cache below.
"""

from __future__ import annotations

import fcntl
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from agents.watchdog.sendings import SENDING_TABLE, Sendings
from streams.core.errors import Misconfigured
from streams.core.watch import Standing, Tracked, merge
from streams.core.watch_rules import Alarm, Deadline, Level, Limits, Pulse

#: What is settled is kept for as long as its facts may come again (the topics keep a week): forgotten sooner, a reply
#: that is sent again would look like a change that nobody has persisted.
KEEP: Final = timedelta(days=8)
#: SQLite's own default bound for variables of a statement.
IN_ONE_QUERY: Final = 500
#: SQLite's cache, in KiB: a third of the file of a million rows, and the bound of this process's memory.
CACHE_KIB: Final = 32 * 1024
#: Pages of the write-ahead log (4 KiB each) before they go into the file. Services come in no order, so a chunk touches
#: as many pages as it has rows; with the default of 1,000 each would be written to its place again and again.
WAL_PAGES: Final = 20_000
#: In PRAGMA user_version; a file with another one is put aside, and the topics are read again.
SCHEMA_VERSION: Final = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS change (
    service_id TEXT PRIMARY KEY, account_id TEXT NOT NULL, change_id TEXT NOT NULL, revision INTEGER NOT NULL,
    sequence INTEGER NOT NULL, standing INTEGER NOT NULL,
    start_at INTEGER, deadline_at INTEGER, due_at INTEGER, settled_at INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tally (
    deadline_at INTEGER, standing INTEGER, due_minute INTEGER, start_at INTEGER, n INTEGER NOT NULL,
    PRIMARY KEY (deadline_at, standing, due_minute, start_at)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS persisted (minute INTEGER PRIMARY KEY, n INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS position (
    topic TEXT, partition INTEGER, next INTEGER NOT NULL, PRIMARY KEY (topic, partition)
);
CREATE TABLE IF NOT EXISTS alarm (
    deadline_at INTEGER PRIMARY KEY, level INTEGER NOT NULL, said INTEGER NOT NULL, said_at INTEGER, clear_since INTEGER
);
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_UNSETTLED = (Standing.OPEN, Standing.STUCK)


class Book(Sendings):
    """Open with :meth:`open`; one process at a time, one thread at a time. Writes happen in :meth:`page` only."""

    def __init__(self, connection: sqlite3.Connection, lock: Any) -> None:
        super().__init__(connection)
        self._lock = lock

    @classmethod
    def open(cls, directory: Path) -> Book:
        """The book in ``directory``; raises Misconfigured when another watchdog has it."""
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "watchdog.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise Misconfigured(
                f"a watchdog is running on {directory}: ask its health endpoint, or give this one another data_dir"
            ) from None
        path = directory / "watchdog.sqlite"
        connection = _connect(path)
        if _version(connection) not in (0, SCHEMA_VERSION):
            connection.close()
            path.replace(path.with_suffix(".old"))
            connection = _connect(path)
        connection.executescript(_SCHEMA + SENDING_TABLE)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        return cls(connection, lock)

    def close(self) -> None:
        self._db.close()
        self._lock.close()

    @contextmanager
    def page(self) -> Iterator[None]:
        """One transaction: all of it or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # -- what was read ----------------------------------------------------------------------------------------------

    def belongs_to(self, cluster: str) -> None:
        """Begin anew when the book was kept for another cluster: its offsets and changes mean nothing here."""
        known = self.fact("cluster")
        if known not in (None, cluster):
            with self.page():
                for table in ("change", "tally", "persisted", "position", "alarm", "sending", "fact"):
                    self._db.execute(f"DELETE FROM {table}")
        if known != cluster:
            with self.page():
                self.note("cluster", cluster)

    def positions(self, topic: str) -> dict[int, int]:
        """Partition → the offset to read next."""
        return dict(self._db.execute("SELECT partition, next FROM position WHERE topic = ?", (topic,)))

    def reached(self, topic: str, positions: Mapping[int, int]) -> None:
        rows = [(topic, partition, offset) for partition, offset in positions.items()]
        self._db.executemany("INSERT OR REPLACE INTO position VALUES (?, ?, ?)", rows)

    def add(self, facts: Sequence[Tracked], now: datetime) -> None:
        """Merge facts into the rows; one about a deadline that was forgotten long ago makes no row any more."""
        wanted = list({fact.service_id for fact in facts})
        known = {
            row[0]: _tracked(row)
            for at in range(0, len(wanted), IN_ONE_QUERY)
            for row in self._select("service_id", wanted[at : at + IN_ONE_QUERY])
        }
        before = dict(known)
        for fact in facts:
            row = known.get(fact.service_id)
            if row is None and fact.deadline_at is not None and fact.deadline_at < now - KEEP:
                continue
            known[fact.service_id] = merge(row, fact)
        changed = [row for id, row in known.items() if row is not before.get(id)]
        # In the order of the tree, so that neighbours share a page.
        values = sorted(map(_values, changed))
        self._db.executemany(f"INSERT OR REPLACE INTO change VALUES ({', '.join('?' * 10)})", values)
        self._count([before[row.service_id] for row in changed if row.service_id in before], -1)
        self._count(changed, +1)

    def _count(self, rows: Sequence[Tracked], step: int) -> None:
        """Keep the tallies in step with the rows: a look at a million rows every few seconds would take seconds."""
        tally = Counter(
            (_ms(row.deadline_at), int(row.standing), _minute(row.due_at), _ms(row.start_at))
            for row in rows
            if row.deadline_at is not None and row.start_at is not None and row.due_at is not None
        )
        self._db.executemany(
            "INSERT INTO tally VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
            [(*key, step * count) for key, count in tally.items()],
        )
        minutes = Counter(_minute(row.settled_at) for row in rows if row.settled_at is not None)
        self._db.executemany(
            "INSERT INTO persisted VALUES (?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
            [(minute, step * count) for minute, count in minutes.items()],
        )

    def _select(self, column: str, values: Sequence[str]) -> Iterable[Any]:
        marks = ", ".join("?" * len(values))
        return self._db.execute(f"SELECT * FROM change WHERE {column} IN ({marks})", values)

    def forget(self, now: datetime) -> None:
        """Drop what is settled and was said, and is older than :data:`KEEP`; what is not settled stays."""
        before = _ms(now - KEEP)
        done = (Standing.ENDED, Standing.PERSISTED, Standing.LATE)
        self._db.execute("DELETE FROM change WHERE deadline_at < ? AND standing IN (?, ?, ?)", (before, *done))
        self._db.execute(
            "DELETE FROM tally WHERE n = 0 OR (deadline_at < ? AND standing IN (?, ?, ?))", (before, *done)
        )
        # Of these only an acknowledgement is known: their replies had left the topic before this book began.
        self._db.execute("DELETE FROM change WHERE deadline_at IS NULL AND settled_at < ?", (before,))
        self._db.execute("DELETE FROM persisted WHERE minute < ?", (before // 60_000,))
        self._db.execute("DELETE FROM alarm WHERE deadline_at < ? AND level = ?", (before, Level.OK))
        self._db.execute("DELETE FROM sending WHERE state <> 'pending' AND next_at < ?", (before / 1000,))

    # -- what is judged ---------------------------------------------------------------------------------------------

    def deadlines(self, now: datetime, limits: Limits) -> list[Deadline]:
        """All deadlines with changes that are not settled, or with an alarm that has not ended, the nearest first."""
        marks: dict[str, int] = {standing.name.lower(): standing for standing in Standing}
        marks |= {"due": _minute(now - limits.overdue_after), "ok": Level.OK}
        rows = self._db.execute(_DEADLINES, marks).fetchall()
        found, ahead = [], 0
        for deadline, opened, stuck, overdue, missed, persisted, late, ended, start, due in rows:
            ahead += opened
            found.append(
                Deadline(
                    deadline_at=_instant(deadline),
                    open=opened,
                    stuck=stuck,
                    overdue=overdue,
                    ahead=ahead,
                    missed=missed,
                    persisted=persisted,
                    late=late,
                    ended=ended,
                    first_start_at=_maybe(start),
                    first_due_at=None if due is None else _instant(due * 60_000),
                )
            )
        return found

    def persisted_since(self, since: datetime, now: datetime) -> int:
        """Commits of the minutes from that of ``since`` to that of ``now``."""
        query = "SELECT coalesce(sum(n), 0) FROM persisted WHERE minute BETWEEN ? AND ?"
        return int(self._db.execute(query, (_minute(since), _minute(now))).fetchone()[0])

    def pulse(self, now: datetime, limits: Limits) -> Pulse:
        """The rates; what the machine's clock measures is the caller's to add."""
        return Pulse(
            persisted=self.persisted_since(now - limits.rate_window, now),
            persisted_lately=self.persisted_since(now - limits.stalled_after, now),
        )

    def unsettled(self, deadline: datetime, limit: int, standings: Sequence[Standing] = _UNSETTLED) -> list[Tracked]:
        """Changes of a deadline that are open, those due first in front, at most ``limit``. Reads every row."""
        marks = ", ".join("?" * len(standings))
        query = (
            f"SELECT * FROM change WHERE deadline_at = ? AND standing IN ({marks}) ORDER BY due_at, service_id LIMIT ?"
        )
        return [_tracked(row) for row in self._db.execute(query, (_ms(deadline), *standings, limit))]

    # -- what was said ----------------------------------------------------------------------------------------------

    def alarm(self, deadline: datetime) -> Alarm:
        query = "SELECT level, said, said_at, clear_since FROM alarm WHERE deadline_at = ?"
        row = self._db.execute(query, (_ms(deadline),)).fetchone()
        if row is None:
            return Alarm(deadline_at=deadline)
        level, said, said_at, clear_since = row
        times = {"said_at": _maybe(said_at), "clear_since": _maybe(clear_since)}
        return Alarm(deadline_at=deadline, level=Level(level), said=said, **times)

    def keep_alarm(self, alarm: Alarm) -> None:
        row = (_ms(alarm.deadline_at), alarm.level, alarm.said, _maybe_ms(alarm.said_at), _maybe_ms(alarm.clear_since))
        self._db.execute("INSERT OR REPLACE INTO alarm VALUES (?, ?, ?, ?, ?)", row)

    # -- odds and ends ----------------------------------------------------------------------------------------------

    def fact(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def note(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, value))


_DEADLINES = """
SELECT deadline_at,
    coalesce(sum(n) FILTER (WHERE standing IN (:open, :stuck)), 0) AS open,
    coalesce(sum(n) FILTER (WHERE standing = :stuck), 0),
    coalesce(sum(n) FILTER (WHERE standing IN (:open, :stuck) AND due_minute <= :due), 0),
    coalesce(sum(n) FILTER (WHERE standing = :missed), 0) AS missed,
    coalesce(sum(n) FILTER (WHERE standing = :persisted), 0),
    coalesce(sum(n) FILTER (WHERE standing = :late), 0),
    coalesce(sum(n) FILTER (WHERE standing = :ended), 0),
    min(start_at) FILTER (WHERE n > 0 AND standing IN (:open, :stuck)),
    min(due_minute) FILTER (WHERE n > 0 AND standing IN (:open, :stuck))
FROM tally GROUP BY deadline_at
HAVING open > 0 OR missed > 0 OR deadline_at IN (SELECT deadline_at FROM alarm WHERE level <> :ok)
ORDER BY deadline_at
"""


def settled(row: Tracked, revision: int, late: bool, committed_at: datetime) -> Tracked:
    """The fact that the billing store has an outcome of ``revision`` for this change."""
    standing = Standing.LATE if late else Standing.PERSISTED
    return replace(row, revision=revision, sequence=-1, standing=standing, settled_at=committed_at)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    # What the power takes from the end of the file is read again: offsets go with it.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
    return connection


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _tracked(row: Any) -> Tracked:
    service_id, account_id, change_id, revision, sequence, standing, start, deadline, due, settled_at = row
    return Tracked(
        service_id=service_id, account_id=account_id, change_id=change_id, revision=revision, sequence=sequence,
        standing=Standing(standing), start_at=_maybe(start), deadline_at=_maybe(deadline), due_at=_maybe(due),
        settled_at=_maybe(settled_at),
    )  # fmt: skip


def _values(row: Tracked) -> tuple[Any, ...]:
    instants = (row.start_at, row.deadline_at, row.due_at, row.settled_at)
    fields = (row.service_id, row.account_id, row.change_id, row.revision, row.sequence, int(row.standing))
    return (*fields, *(_maybe_ms(at) for at in instants))


def _ms(at: datetime) -> int:
    return int((at - _EPOCH) / timedelta(milliseconds=1))


def _minute(at: datetime) -> int:
    return _ms(at) // 60_000


def _maybe_ms(at: datetime | None) -> int | None:
    return None if at is None else _ms(at)


def _instant(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)


def _maybe(ms: int | None) -> datetime | None:
    return None if ms is None else _instant(ms)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
