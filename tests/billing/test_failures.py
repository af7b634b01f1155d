"""What the billing store does when the world breaks: full disks, locks, lost servers, kill -9."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Semaphore, Thread
from typing import TypeAlias, TypeVar

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.engine import URL

from streams.core.errors import Fatal, Misconfigured, Poison, Transient
from streams.core.plan_change.messages import Acknowledgement
from streams.sinks.billing import Counts, Split, SqlBillingStore
from streams.sinks.billing import engine as billing_engine
from tests.billing import postgres
from tests.billing.makers import EVENING, LONG_AGO, MIDNIGHT, at, closing, plan, releasing, sealed

Open = Callable[[], SqlBillingStore]
T = TypeVar("T")
TWO_PARTS = Split(before=timedelta(hours=2), at=EVENING, partition=0)
Answers: TypeAlias = list[Acknowledgement | Poison | None]


def load(store: SqlBillingStore, count: int) -> None:
    store.load_plans((plan(number) for number in range(count)), occurred_at=LONG_AGO)


# -- kill -9 --------------------------------------------------------------------------------------------------------


def _die_at(url: str, step: int, split: Split | None) -> None:
    """Persist (in two parts with ``split``), close and release; kill this process before statement (or COMMIT, or look
    at the clock) ``step``."""
    done = 0

    def passing(*_: object, **__: object) -> None:
        nonlocal done
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1

    store = SqlBillingStore(url)
    event.listen(Engine, "before_cursor_execute", passing)
    event.listen(Engine, "commit", passing)

    def now() -> object:
        passing()
        return EVENING

    store.persist([sealed(number) for number in range(20)], now=now, split=split)  # type: ignore[arg-type]
    if split is not None:
        finished = store.finish(0, at=MIDNIGHT - split.before, limit=20, now=now)  # type: ignore[arg-type]
        store.forget([one.result.change_id for one in finished])
    store.close([closing(20)], now=now)  # type: ignore[arg-type]
    store.release([releasing(number) for number in range(20)], now=now)  # type: ignore[arg-type]
    os._exit(0)


def _consistent(counts: Counts) -> bool:
    """Each of the three transactions is there as a whole or not at all."""
    persisted = (counts.persisted, counts.fees, counts.tasks, counts.memberships - counts.services)
    whole = persisted in {(0, 0, 0, counts.waiting), (20, 20, 20, 20)} and counts.waiting in {0, 20}
    return whole and counts.missed in {0, 1} and counts.released in {0, 20}


@pytest.mark.faults
@pytest.mark.parametrize("split", [None, TWO_PARTS])
def test_kill_9_before_every_single_statement_leaves_all_or_nothing(
    open_store: Open, store_url: str, split: Split | None
) -> None:
    """The process dies at each step in turn; what it leaves is whole, and the work done again completes it."""
    survivor = open_store()
    load(survivor, 21)
    fork = multiprocessing.get_context("fork")
    killed = 0
    while True:
        child = fork.Process(target=_die_at, args=(store_url, killed, split))
        child.start()
        child.join()
        assert _consistent(survivor.counts()), f"after a kill at step {killed}: {survivor.counts()}"
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        killed += 1

    assert killed > 15  # three transactions and their stamps were really walked through
    counts = survivor.counts()
    assert (counts.persisted, counts.missed, counts.released, counts.unconfirmed) == (20, 1, 20, 0)
    assert all(one.rows_match for one in survivor.outcomes([f"c{number}" for number in range(20)]).values())


def test_a_commit_whose_time_was_never_read_is_confirmed_by_its_redelivery(store: SqlBillingStore) -> None:
    """Died between COMMIT and the clock: nobody was told, so the time of the second look is the honest one."""
    load(store, 1)

    def die() -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.persist([sealed(0)], now=die)  # type: ignore[arg-type]
    assert store.counts().unconfirmed == 1

    (ack,) = store.close([closing(0)], now=at(MIDNIGHT))
    assert isinstance(ack, Acknowledgement)
    assert (ack.kind.value, ack.committed_at, ack.late) == ("persisted", MIDNIGHT, True)


# -- the disk -------------------------------------------------------------------------------------------------------


def _fill(database: Engine, store: SqlBillingStore) -> Callable[[], None]:
    """Make the database's disk full for inserts of memberships; returns what frees it."""
    if database.dialect.name == "postgresql":
        with database.begin() as connection:
            connection.execute(
                text(
                    "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
                    "$$ BEGIN RAISE 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$"
                )
            )
            connection.execute(
                text("CREATE TRIGGER full_disk BEFORE INSERT ON membership FOR EACH ROW EXECUTE FUNCTION full_disk()")
            )

        def free() -> None:
            with database.begin() as connection:
                connection.execute(text("DROP TRIGGER full_disk ON membership"))

        return free

    def limit(connection: sqlite3.Connection, pages: int) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    used = database.connect().execute(text("PRAGMA page_count")).scalar_one()
    store.dispose()  # the limit belongs to a connection, so the store gets new ones
    own = store._database._engine

    def listener(connection: sqlite3.Connection, _record: object) -> None:
        limit(connection, used + 2)

    event.listen(own, "connect", listener)

    def free_sqlite() -> None:
        event.remove(own, "connect", listener)
        store.dispose()

    return free_sqlite


def test_a_full_disk_is_waited_for_and_nothing_is_lost(
    store: SqlBillingStore, database: Engine, store_url: str
) -> None:
    """The error says where space is missing, never shows a password; nothing is half written; then it goes on."""
    load(store, 200)
    results = [sealed(number) for number in range(200)]
    free = _fill(database, store)

    for _ in range(2):
        with pytest.raises(Transient, match="free some there") as caught:
            store.persist(results, now=at(EVENING))
    assert store.counts().persisted == 0
    where = Path(store_url.removeprefix("sqlite:///")).parent if "sqlite" in store_url else "database server"
    assert str(where) in str(caught.value)

    free()
    assert all(isinstance(answer, Acknowledgement) for answer in store.persist(results, now=at(EVENING)))
    assert store.counts().persisted == 200


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB; needs root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("cannot mount a small file system here: needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_sqlite_on_a_disk_that_is_really_full(small_disk: Path) -> None:
    """Not a limit of SQLite's own but ENOSPC, met in the write-ahead log as well as in the file."""
    store = SqlBillingStore(f"sqlite:///{small_disk / 'billing.sqlite'}")
    try:
        store.migrate()
        load(store, 1000)
        results = [sealed(number) for number in range(1000)]
        ballast = small_disk / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(4096)) > 0:
                pass

        for _ in range(2):
            with pytest.raises(Transient, match=str(small_disk)):
                store.persist(results, now=at(EVENING))
        ballast.unlink()

        assert all(isinstance(answer, Acknowledgement) for answer in store.persist(results, now=at(EVENING)))
        assert store.counts().persisted == 1000
    finally:
        store.dispose()


# -- locks and lost databases ---------------------------------------------------------------------------------------


def test_a_database_locked_by_another_process_is_waited_for(
    open_store: Open, store_url: str, database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Someone's open transaction (a forgotten shell) makes the chunk wait, with a word about who can end it."""
    monkeypatch.setattr(billing_engine, "SQLITE_BUSY_MS", 50)
    monkeypatch.setattr(billing_engine, "POSTGRES_LOCK_TIMEOUT_MS", 50)
    store = SqlBillingStore(store_url)
    load(store, 1)
    held = store.take_fence("persistence", 0)

    with database.connect() as other:
        if database.dialect.name == "sqlite":
            other.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            other.execute(text("SELECT * FROM fence FOR UPDATE"))
        with pytest.raises(Transient, match=r"another (process|transaction)"):
            store.persist([sealed(0)], now=at(EVENING), fence=held)

    assert store.persist([sealed(0)], now=at(EVENING), fence=held)[0] is not None
    store.dispose()


def test_a_restarted_postgresql_is_used_again(postgres_url: URL) -> None:
    """Stopped as in a crash, in the middle of the night: Transient while it is away, then the same store goes on."""
    if postgres.given() is not None:
        pytest.skip("the given server is not ours to stop")
    with postgres.server() as server:
        store = SqlBillingStore(server.url.render_as_string(hide_password=False))
        store.migrate()
        load(store, 2)
        store.persist([sealed(0)], now=at(EVENING))

        server.stop(signal.SIGQUIT)
        for _ in range(2):
            with pytest.raises(Transient, match="check that the server runs"):
                store.persist([sealed(1)], now=at(EVENING))
        server.start()

        for _ in range(2):
            (ack,) = store.persist([sealed(1)], now=at(EVENING))
            assert isinstance(ack, Acknowledgement)
        assert store.counts().persisted == 2
        store.dispose()


def _restart(server: postgres.Server) -> None:
    """`pg_ctl restart -m immediate`: no transaction is finished, and the log is replayed at the start."""
    server.stop(signal.SIGQUIT)
    server.start()


def _patiently(work: Callable[[], T]) -> T:
    """What a lane does with a chunk: again, until the database is there."""
    while True:
        with suppress(Transient):
            return work()


def _all_there_once(store: SqlBillingStore, count: int, answers: Answers) -> None:
    acknowledged = [one.change_id for one in answers if isinstance(one, Acknowledgement) and one.kind == "persisted"]
    assert sorted(acknowledged) == sorted(f"c{number}" for number in range(count))
    found = store.counts()
    assert (found.persisted, found.missed, found.unconfirmed) == (count, 0, 0)
    assert (found.fees, found.tasks, found.memberships, found.options) == (count, count, 2 * count, 2 * count)
    assert all(one.rows_match for one in store.outcomes([f"c{number}" for number in range(count)]).values())


@pytest.fixture
def own_server(postgres_url: URL) -> Iterator[tuple[postgres.Server, SqlBillingStore]]:
    """A PostgreSQL that the test may crash, with a migrated billing store."""
    if postgres.given() is not None:
        pytest.skip("the given server is not ours to stop")
    with postgres.server() as server:
        store = SqlBillingStore(server.url.render_as_string(hide_password=False))
        store.migrate()
        yield server, store
        store.dispose()


@pytest.mark.faults
@pytest.mark.parametrize("split", [None, TWO_PARTS])
def test_postgresql_restarted_before_every_single_statement_leaves_all_or_nothing(
    own_server: tuple[postgres.Server, SqlBillingStore], split: Split | None
) -> None:
    """In the middle of each transaction in turn, before its COMMIT, and between COMMIT and the clock."""
    server, store = own_server
    chunk, crashed = 20, 0
    steps = iter(range(10_000))
    crash_at: int | None = None

    def passing(*_: object, **__: object) -> None:
        nonlocal crash_at
        if crash_at is not None and next(steps) == crash_at:
            crash_at = None
            _restart(server)

    event.listen(store._database._engine, "before_cursor_execute", passing)
    event.listen(store._database._engine, "commit", passing)
    answers: Answers = []
    while True:
        first = crashed * chunk
        store.load_plans((plan(number) for number in range(first, first + chunk)), occurred_at=LONG_AGO)
        fence = store.take_fence("persistence", 0)
        results = [sealed(number) for number in range(first, first + chunk)]
        steps, crash_at = iter(range(10_000)), crashed
        told = _patiently(partial(store.persist, results, now=at(EVENING), fence=fence, split=split))
        if split is not None:
            assert told == [None] * chunk
            due = MIDNIGHT - split.before
            done = _patiently(partial(store.finish, 0, at=due, limit=chunk, now=at(due), fence=fence))
            _patiently(partial(store.forget, [one.result.change_id for one in done], fence=fence))
            told = [one.answer for one in done]
        answers += told
        crashed += 1
        if crash_at is not None:  # there are not so many statements
            crash_at = None
            break

    assert crashed > 8  # a transaction and its stamp were really walked through
    _all_there_once(store, crashed * chunk, answers)


@pytest.mark.faults
def test_chunks_that_are_persisted_while_postgresql_restarts_are_there_once(
    own_server: tuple[postgres.Server, SqlBillingStore],
) -> None:
    """Three crashes at moments of their own choosing, on four partitions at once: nothing lost, nothing twice."""
    server, store = own_server
    partitions, chunks, chunk, restarts = 4, 15, 40, 3
    total = partitions * chunks * chunk
    load(store, total)
    answers: list[Answers] = [[] for _ in range(partitions)]
    progress = Semaphore(0)

    def work(partition: int) -> None:
        fence = store.take_fence("persistence", partition)
        for number in range(chunks):
            first = (partition * chunks + number) * chunk
            results = [sealed(one) for one in range(first, first + chunk)]
            answers[partition] += _patiently(partial(store.persist, results, now=at(EVENING), fence=fence))
            progress.release()

    threads = [Thread(target=work, args=(partition,)) for partition in range(partitions)]
    for thread in threads:
        thread.start()
    for _ in range(restarts):
        for _ in range(partitions * chunks // (restarts + 1)):
            assert progress.acquire(timeout=60)
        _restart(server)
    for thread in threads:
        thread.join()

    _all_there_once(store, total, [one for some in answers for one in some])


def test_a_connection_that_was_cut_is_replaced(store: SqlBillingStore, database: Engine) -> None:
    """The server ended our idle connections: nobody hears of it."""
    if database.dialect.name == "sqlite":
        pytest.skip("a SQLite file has no connections to cut")
    load(store, 1)
    with database.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )

    assert isinstance(store.persist([sealed(0)], now=at(EVENING))[0], Acknowledgement)


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    """Messages go into logs."""
    store = SqlBillingStore("postgresql://curfew:s3cret@127.0.0.1:1/billing?application_name=s3cret")

    with pytest.raises(Transient) as caught:
        store.counts()

    assert "127.0.0.1:1/billing" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file lies where the directory should be: transient, since an operator moves it away."""
    (tmp_path / "data").write_text("in the way")
    store = SqlBillingStore(f"sqlite:///{tmp_path / 'data' / 'billing.sqlite'}")

    with pytest.raises(Transient, match=str(tmp_path / "data")):
        store.migrate()

    (tmp_path / "data").unlink()
    store.migrate()
    assert store.counts().services == 0


def test_a_file_that_is_no_database_stops_the_process(tmp_path: Path) -> None:
    """Waiting does not repair it, and writing over it would destroy what may be a damaged billing store."""
    file = tmp_path / "billing.sqlite"
    file.write_bytes(b"this is not a database file, it only looks like one" * 100)
    before = file.read_bytes()

    with pytest.raises(Fatal, match="restore it from a backup"):
        SqlBillingStore(f"sqlite:///{file}").migrate()
    assert file.read_bytes() == before


def test_tables_that_are_not_there_say_that_migrations_have_to_run(tmp_path: Path) -> None:
    """A statement against an empty database is our mistake or the operator's, not one of the world."""
    with pytest.raises(Fatal, match="run the migrations first"):
        SqlBillingStore(f"sqlite:///{tmp_path / 'billing.sqlite'}").counts()


@pytest.mark.parametrize("url", ["mysql://host/billing", "sqlite://", "sqlite:///:memory:", "billing.sqlite"])
def test_other_databases_are_refused_when_the_store_is_made(url: str) -> None:
    """The message names the two that work."""
    with pytest.raises(Misconfigured, match=r"PostgreSQL|postgresql://"):
        SqlBillingStore(url)
