"""Open the database of the billing store, and say in plain words what is wrong with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event, exc
from sqlalchemy.engine import URL, make_url

from streams.core.errors import CurfewError, Fatal, Misconfigured, Transient

#: A second process (a report, a migration) may hold the write lock for a moment; without waiting, every overlap of two
#: transactions would be an error. Longer than a full chunk takes, shorter than the session timeout of the group (10 s).
SQLITE_BUSY_MS = 5_000
#: SQLite's own default is 2. Change ids fall anywhere into the indexes, so with a million changes nearly every row of a
#: transaction would be a page read from the file again.
SQLITE_CACHE_MIB = 64
#: A writer that is stuck (by SIGSTOP, say) holds the fence row; without this limit its successor waits for ever.
POSTGRES_IDLE_IN_TRANSACTION_MS = 30_000
#: The successor's wait for the stuck writer: it then reports Transient and tries again, instead of hanging silently.
POSTGRES_LOCK_TIMEOUT_MS = 10_000
#: A database host that swallows packets; without this limit the handler hangs for the two minutes of TCP.
POSTGRES_CONNECT_TIMEOUT_S = 10

#: Execution option: this transaction only reads, so on SQLite it must not take the write lock.
READ_ONLY = "curfew_read_only"


def parse(url: str) -> URL:
    """The URL with the driver that is installed; refuses other databases with :class:`Misconfigured`."""
    try:
        parsed = make_url(url)
    except exc.ArgumentError as error:
        raise Misconfigured(
            "the billing store's URL cannot be read: use sqlite:////directory/billing.sqlite or "
            "postgresql://user:password@host:5432/database"
        ) from error
    if parsed.drivername in {"postgres", "postgresql", "postgresql+psycopg"}:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername in {"sqlite", "sqlite+pysqlite"} and parsed.database not in {None, "", ":memory:"}:
        return parsed
    raise Misconfigured(
        f"the billing store cannot live at {describe(parsed)}: use a SQLite file or PostgreSQL "
        "(an in-memory database would forget who was billed)"
    )


def describe(url: URL) -> str:
    """Where the database is, for messages: the file, or the URL without its password."""
    if url.get_backend_name() == "sqlite":
        return f"the SQLite file {url.database}"
    return url.set(query={}).render_as_string(hide_password=True)


def open_engine(url: URL, sqlite_cache_mib: int = SQLITE_CACHE_MIB) -> Engine:
    """An engine that commits durably; nothing is connected before the first use."""
    if url.get_backend_name() == "postgresql":
        settings = {
            "timezone": "UTC",
            "lock_timeout": POSTGRES_LOCK_TIMEOUT_MS,
            "idle_in_transaction_session_timeout": POSTGRES_IDLE_IN_TRANSACTION_MS,
        }
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        given = url.query.get("options")
        options = f"{given} {options}" if isinstance(given, str) else options
        return create_engine(
            url.difference_update_query(["options"]),
            # Of a server that was restarted a report or a page would be told once, and only then have it again.
            pool_pre_ping=True,
            connect_args={"connect_timeout": POSTGRES_CONNECT_TIMEOUT_S, "options": options},
        )
    engine = create_engine(url, connect_args={"timeout": SQLITE_BUSY_MS / 1000})
    event.listen(engine, "do_connect", _make_directory)
    event.listen(engine, "connect", partial(_configure_sqlite, cache_mib=sqlite_cache_mib))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _make_directory(_dialect: Any, _record: Any, cargs: tuple[Any, ...], _cparams: Any) -> None:
    Path(cargs[0]).parent.mkdir(parents=True, exist_ok=True)


def _configure_sqlite(connection: sqlite3.Connection, _record: Any, cache_mib: int) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late: see _begin_sqlite
    connection.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_MS}")
    # A reader (report, reconciliation) must not stop the night's writing.
    connection.execute("PRAGMA journal_mode = WAL")
    # NORMAL loses the newest commits when the power fails, and those are already acknowledged: FULL.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA cache_size = -{cache_mib * 1024}")


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that reads before it writes fails with "locked" at once when another one wrote in between,
    # whatever the busy timeout is. Taking the lock first makes the second writer wait instead.
    read_only = connection.get_execution_options().get(READ_ONLY)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


@contextmanager
def explained(url: URL) -> Iterator[None]:
    """Turn errors of the database into Transient (wait and try again) or Fatal (stop), saying where and what to do."""
    try:
        yield
    except exc.DBAPIError as error:
        raise _explain(error.orig, url) from error
    except (sqlite3.Error, psycopg.Error, OSError, exc.TimeoutError) as error:
        raise _explain(error, url) from error


def _explain(error: BaseException | None, url: URL) -> CurfewError:
    return _explain_sqlite(error, url) if url.get_backend_name() == "sqlite" else _explain_postgres(error, url)


def _explain_sqlite(error: BaseException | None, url: URL) -> CurfewError:
    directory = Path(url.database or "").absolute().parent
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code: the low byte of the extended one
    match code:
        case sqlite3.SQLITE_FULL:
            advice = f"no space is left on the disk of {directory}: free some there"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            advice = "another process keeps the database locked: end it, or let it finish its transaction"
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            advice = f"it cannot be opened for writing: check that {directory} exists and who may write there"
        case sqlite3.SQLITE_IOERR:
            advice = f"reading or writing failed: check the disk of {directory}, and that it is not full"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return Fatal(
                f"billing store {describe(url)} is damaged ({error}): restore it from a backup, then start again"
            )
        case _ if isinstance(error, OSError):
            advice = f"check that {directory} exists and who may write there"
        case _:
            return _unexpected(error, url)
    return Transient(
        f"billing store {describe(url)} cannot be used now ({error}): {advice}; nothing is lost, it is tried again"
    )


#: Classes of SQLSTATE that pass by waiting or by the operator's hand: connection, rolled back, resources, locked,
#: operator intervention (restart), system (I/O); 25006 is a standby that was asked to write during a failover.
POSTGRES_TRANSIENT = ("08", "25006", "25P03", "40", "53", "55P03", "57", "58")


def _explain_postgres(error: BaseException | None, url: URL) -> CurfewError:
    state = getattr(error, "sqlstate", None)
    lost = state is None and isinstance(
        error, psycopg.OperationalError | psycopg.InterfaceError | OSError | exc.TimeoutError
    )
    if not lost and not (state or "").startswith(POSTGRES_TRANSIENT):
        return _unexpected(error, url)
    match state:
        case "53100":
            advice = "no space is left on the database server's disk: free some there"
        case "55P03" | "40001" | "40P01":
            advice = "another transaction holds what this one needs: see pg_stat_activity if it lasts"
        case _:
            advice = "check that the server runs, that this host may reach it, and the user's rights"
    text = " ".join(str(error).split())  # libpq answers in several lines
    return Transient(
        f"billing store {describe(url)} cannot be used now ({text}): {advice}; nothing is lost, it is tried again"
    )


def _unexpected(error: BaseException | None, url: URL) -> Fatal:
    text = " ".join(str(error).split())
    missing = "no such table" in text or getattr(error, "sqlstate", None) in {"42P01", "42703"}
    remedy = (
        "its tables are not there: run the migrations first (curfew billing migrate)"
        if missing
        else "this should not happen: report it"
    )
    return Fatal(f"billing store {describe(url)} refused a statement ({text}): {remedy}")
