"""What the topics say and what the billing store says, side by side in a scratch database.

A million changes do not fit into the memory of a small machine twice; SQLite keeps them in a file without a name, which
is gone when the process is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: (change id, revision, hash, deadline, service id, partition, offset)
OutcomeRow: TypeAlias = tuple[str, int, str, int, str, int, int]
#: (change id, revision, hash, deadline, service id, detail)
LetterRow: TypeAlias = tuple[str, int, str, int, str, str]
#: (change id, kind, revision, service id)
AcknowledgementRow: TypeAlias = tuple[str, str, int, str]
#: (change id, deadline, missed, revision, hash, service id, released); revision and hash are None if nothing is there
DecisionRow: TypeAlias = tuple[str, int, bool, int | None, str | None, str, bool]


def milliseconds(at: datetime) -> int:
    """An instant as the scratch database keeps it; all that survives an Avro timestamp."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


def instant(value: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=value)


class Found(NamedTuple):
    """One row of an answer; ``deadline`` in milliseconds, None where only an acknowledgement is known."""

    change_id: str
    service_id: str
    revision: int | None
    deadline: int | None
    detail: str


_TABLES = """
CREATE TABLE outcome (
    change_id TEXT, revision INTEGER, hash TEXT, deadline INTEGER, service_id TEXT, partition INTEGER, position INTEGER,
    times INTEGER DEFAULT 1, PRIMARY KEY (change_id, revision, hash)
) WITHOUT ROWID;
CREATE TABLE letter (
    change_id TEXT, revision INTEGER, hash TEXT, deadline INTEGER, service_id TEXT, detail TEXT,
    times INTEGER DEFAULT 1, PRIMARY KEY (change_id, revision, hash)
) WITHOUT ROWID;
CREATE TABLE acknowledgement (
    change_id TEXT, kind TEXT, revision INTEGER, service_id TEXT, PRIMARY KEY (change_id, kind, revision)
) WITHOUT ROWID;
CREATE TABLE decision (
    change_id TEXT, deadline INTEGER, missed INTEGER, revision INTEGER, hash TEXT, service_id TEXT, released INTEGER,
    PRIMARY KEY (change_id, deadline)
) WITHOUT ROWID;
"""

# An outcome that was written more often than it was put aside has been redriven, or will be looked at again. Persisted,
# or acknowledged as missed, it is no riddle any more. After a deadline that was missed with an older revision, a late
# outcome may still be expected: the store's decision of then says nothing about it.
_DEAD = """
CREATE VIEW dead AS
SELECT l.change_id, l.service_id, l.revision, l.deadline, l.detail, l.hash
FROM letter l
WHERE l.times >= coalesce((
        SELECT o.times FROM outcome o WHERE o.change_id = l.change_id AND o.revision = l.revision AND o.hash = l.hash
    ), 0)
    AND NOT EXISTS (
        SELECT 1 FROM acknowledgement a WHERE a.change_id = l.change_id AND a.revision = l.revision
    )
    AND NOT EXISTS (
        SELECT 1 FROM decision d WHERE d.change_id = l.change_id AND d.hash IS NOT NULL AND d.revision >= l.revision
    )
    AND NOT EXISTS (
        SELECT 1 FROM decision d WHERE d.change_id = l.change_id AND d.deadline = l.deadline AND d.missed
        AND NOT EXISTS (
            SELECT 1 FROM acknowledgement a
            WHERE a.change_id = l.change_id AND a.kind = 'missed' AND a.revision < l.revision
        )
    )
"""

# A decision counts if something stands behind it: "persisted" without an outcome is what a deleted row leaves. An older
# revision whose newer one is persisted is obsolete.
_UNDECIDED = """
SELECT o.change_id, o.service_id, o.revision, o.deadline, 'sealed in record ' || o.partition || '@' || o.position
FROM outcome o
WHERE NOT EXISTS (
        SELECT 1 FROM decision d WHERE d.change_id = o.change_id AND d.deadline = o.deadline
        AND (d.missed OR d.hash IS NOT NULL)
    )
    AND NOT EXISTS (
        SELECT 1 FROM decision d WHERE d.change_id = o.change_id AND d.hash IS NOT NULL AND d.revision > o.revision
    )
    AND NOT EXISTS (
        SELECT 1 FROM acknowledgement a WHERE a.change_id = o.change_id AND a.revision = o.revision
    )
    AND NOT EXISTS (
        SELECT 1 FROM dead l WHERE l.change_id = o.change_id AND l.revision = o.revision AND l.hash = o.hash
    )
"""
_OVERDUE = f"{_UNDECIDED} AND o.deadline <= ?"

# Where the topic still has the outcome, the decision has to be that of its deadline.
_ABSENT = """
SELECT a.change_id, a.service_id, a.revision, a.deadline, 'acknowledged as ' || a.kind
FROM (
    SELECT *, (
        SELECT max(o.deadline) FROM outcome o WHERE o.change_id = acknowledgement.change_id
        AND o.revision = acknowledgement.revision
    ) AS deadline
    FROM acknowledgement
) a
WHERE NOT EXISTS (
    SELECT 1 FROM decision d WHERE d.change_id = a.change_id AND CASE a.kind
        WHEN 'persisted' THEN d.hash IS NOT NULL
        WHEN 'missed' THEN d.missed AND d.deadline = coalesce(a.deadline, d.deadline)
        ELSE d.released
    END
)
"""

_OTHER_HASH = """
SELECT d.change_id, d.service_id, d.revision, d.deadline,
    'the topic has ' || substr(o.hash, 1, 12) || '…, the store ' || substr(d.hash, 1, 12) || '…'
FROM decision d JOIN outcome o ON o.change_id = d.change_id AND o.revision = d.revision
WHERE d.hash IS NOT NULL
GROUP BY d.change_id, d.deadline
HAVING max(o.hash = d.hash) = 0
"""

_PERSISTED = """
SELECT d.change_id, d.service_id, d.revision, d.deadline,
    EXISTS (SELECT 1 FROM outcome o WHERE o.change_id = d.change_id AND o.revision = d.revision)
FROM decision d WHERE d.hash IS NOT NULL
"""


class SideBySide:
    """The three tables, and the questions to them; use it as a context manager."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("")
        self._db.executescript(_TABLES + _DEAD)

    def __enter__(self) -> SideBySide:
        return self

    def __exit__(self, *exc: object) -> None:
        self._db.close()

    def add_outcomes(self, rows: Iterable[OutcomeRow]) -> None:
        """Sealed outcomes of the topic; of equal ones the last position is kept."""
        self._db.executemany(
            "INSERT INTO outcome VALUES (?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT DO UPDATE "
            "SET partition = excluded.partition, position = excluded.position, times = times + 1",
            rows,
        )

    def add_letters(self, rows: Iterable[LetterRow]) -> None:
        """Outcomes among the dead letters; of equal ones the last detail is kept."""
        self._db.executemany(
            "INSERT INTO letter VALUES (?, ?, ?, ?, ?, ?, 1) ON CONFLICT DO UPDATE "
            "SET detail = excluded.detail, times = times + 1",
            rows,
        )

    def add_acknowledgements(self, rows: Iterable[AcknowledgementRow]) -> None:
        self._db.executemany("INSERT OR IGNORE INTO acknowledgement VALUES (?, ?, ?, ?)", rows)

    def add_decisions(self, rows: Iterable[DecisionRow]) -> None:
        self._db.executemany("INSERT OR REPLACE INTO decision VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def dead(self) -> Iterator[Found]:
        """Outcomes among the dead letters that were neither persisted nor given up since, whatever their deadline."""
        yield from self._found("SELECT change_id, service_id, revision, deadline, detail FROM dead")

    def overdue(self, now: datetime) -> Iterator[Found]:
        """Outcomes whose deadline is not after ``now``, of which the store knows nothing, nor says that it does."""
        yield from self._found(_OVERDUE, milliseconds(now))

    def waiting(self, now: datetime | None) -> int:
        """How many outcomes are not decided and need not be."""
        everything = f"SELECT count(*) FROM ({_UNDECIDED} AND o.deadline > ?)"
        return self._count(everything, 0 if now is None else milliseconds(now))

    def absent(self) -> Iterator[Found]:
        """What was acknowledged and is not there."""
        yield from self._found(_ABSENT)

    def other_hash(self) -> Iterator[Found]:
        """Persisted outcomes that are none of those that were sealed for their revision.

        A hook that ran twice may leave two outcomes of one revision in the topic; the store keeps the first, and that
        is no difference.
        """
        yield from self._found(_OTHER_HASH)

    def persisted(self) -> Iterator[tuple[Found, bool]]:
        """Every persisted change, and whether the topic has an outcome of its revision."""
        for change_id, service_id, revision, deadline, in_topic in self._db.execute(_PERSISTED):
            yield Found(change_id, service_id, revision, deadline, ""), bool(in_topic)

    def counts(self) -> tuple[int, int, int]:
        """Changes with an outcome in the topic, persisted changes, and missed deadlines."""
        return (
            self._count("SELECT count(DISTINCT change_id) FROM outcome"),
            self._count("SELECT count(*) FROM decision WHERE hash IS NOT NULL"),
            self._count("SELECT count(*) FROM decision WHERE missed"),
        )

    def _found(self, query: str, *parameters: Any) -> Iterator[Found]:
        for row in self._db.execute(query, parameters):
            yield Found(*row)

    def _count(self, query: str, *parameters: Any) -> int:
        row: Sequence[int] = self._db.execute(query, parameters).fetchone()
        return row[0]
