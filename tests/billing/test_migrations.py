"""The migrations: they make what the statements expect, once, whoever comes first."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL

from streams.sinks.billing import SqlBillingStore
from streams.sinks.billing.tables import metadata


def test_migrations_make_exactly_the_tables_that_the_statements_use(database: Engine) -> None:
    """Alembic finds no difference between the migrated database and tables.py."""
    with database.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})

        assert compare_metadata(context, metadata) == []


def test_migrating_twice_changes_nothing(store: SqlBillingStore, database: Engine) -> None:
    """Every worker migrates at its start."""
    store.migrate()

    with database.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["0002"]


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database that nobody has migrated."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'new' / 'billing.sqlite'}"
        return
    server: URL = request.getfixturevalue("postgres_url")
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("CREATE DATABASE curfew_empty"))
    yield server.set(database="curfew_empty").render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE curfew_empty WITH (FORCE)"))
    admin.dispose()


def _migrate(url: str) -> None:
    store = SqlBillingStore(url)
    store.migrate()
    store.dispose()


def test_processes_that_start_at_once_migrate_once(empty_url: str) -> None:
    """Six workers begin on an empty database in the same moment: one makes the tables, the others wait and go on."""
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_migrate, args=(empty_url,)) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert [worker.exitcode for worker in workers] == [0] * 6
    store = SqlBillingStore(empty_url)
    assert store.counts().services == 0
    store.dispose()
