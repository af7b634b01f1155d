"""Transactions of the billing store: fenced, repeated when they lost a race, stamped with the time after COMMIT."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from threading import Lock
from typing import TypeVar

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects import postgresql, sqlite

from streams.core.errors import Transient
from streams.sinks.billing import migrate
from streams.sinks.billing.engine import READ_ONLY, SQLITE_CACHE_MIB, describe, explained, open_engine, parse
from streams.sinks.billing.port import Fence, Fenced, Now
from streams.sinks.billing.tables import commit_mark, fence
from streams.sinks.billing.write import RacedError

Answer = TypeVar("Answer")

#: Two writers without a fence may decide the same change at once; the loser reads and decides again. More often than
#: this means that something writes in a loop, and repeating for ever would hide it.
MAX_RACES = 10
#: Transactions that PostgreSQL may usefully run at once for one process: one per partition of the topics.
POSTGRES_PARALLEL = 4


class Database:
    """The database behind the billing store; its URL says which. Connects at the first use."""

    def __init__(self, url: str, sqlite_cache_mib: int = SQLITE_CACHE_MIB) -> None:
        self._url = parse(url)
        self._engine = open_engine(self._url, sqlite_cache_mib)
        self._reading = self._engine.execution_options(**{READ_ONLY: True})
        one_writer = self._url.get_backend_name() == "sqlite"
        self.parallel = 1 if one_writer else POSTGRES_PARALLEL
        # Threads that queue here do not have to find out by polling the file's lock, in which some would starve.
        self._writing: AbstractContextManager[object] = Lock() if one_writer else nullcontext()

    def __str__(self) -> str:
        return describe(self._url)

    def migrate(self) -> None:
        with explained(self._url), self._writing:
            migrate.upgrade(self._engine)

    def dispose(self) -> None:
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view, which no writer waits for."""
        with explained(self._url), self._reading.begin() as connection:
            yield connection

    def write(self, work: Callable[[Connection], Answer], held: Fence | None = None) -> Answer:
        """Run ``work`` in one transaction, all or nothing; when it raises RacedError, again on what is there by then.

        Raises Transient, Fatal, or :class:`Fenced` when ``held`` is not the newest fence.
        """
        for _ in range(MAX_RACES):
            try:
                with explained(self._url), self._writing, self._engine.begin() as connection:
                    if held is not None:
                        _check(connection, held)
                    return work(connection)
            except RacedError:
                continue
        raise Transient(
            f"billing store {self}: lost {MAX_RACES} races in a row against another writer; it is tried again"
        )

    def stamp(self, marks: Collection[int], now: Now) -> dict[int, datetime]:
        """The commit time of each mark: read from ``now`` here, after the COMMIT, for those that have none yet."""
        if not marks:
            return {}
        committed_at = now()
        wanted = sorted(marks)

        def write(connection: Connection) -> dict[int, datetime]:
            unstamped = commit_mark.c.id.in_(wanted) & commit_mark.c.committed_at.is_(None)
            connection.execute(update(commit_mark).where(unstamped).values(committed_at=committed_at))
            rows = connection.execute(select(commit_mark).where(commit_mark.c.id.in_(wanted)))
            return {row.id: row.committed_at for row in rows}

        return self.write(write)

    def take_fence(self, group: str, partition: int) -> Fence:
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        first = dialect.insert(fence).values(group=group, partition=partition, epoch=1)
        statement = first.on_conflict_do_update(
            index_elements=[fence.c.group, fence.c.partition], set_={"epoch": fence.c.epoch + 1}
        ).returning(fence.c.epoch)
        epoch = self.write(lambda connection: int(connection.execute(statement).scalar_one()))
        return Fence(group=group, partition=partition, epoch=epoch)


def _check(connection: Connection, held: Fence) -> None:
    """The row stays locked until COMMIT (PostgreSQL): a newer writer waits for this transaction, then shuts us out."""
    statement = (
        select(fence.c.epoch).where(fence.c.group == held.group, fence.c.partition == held.partition).with_for_update()
    )
    newest = connection.execute(statement).scalar_one_or_none()
    if newest != held.epoch:
        raise Fenced(
            f"partition {held.partition} of {held.group} has a newer writer in the billing store (epoch {newest}, this "
            f"process has {held.epoch}): stop this process; the newer one does its work"
        )
