"""The billing store on SQLite and on PostgreSQL, the same tests for both."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL

from streams.sinks.billing import SqlBillingStore
from tests.billing import postgres


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[URL]:
    """A server on which databases may be created; skips what needs it when there is none."""
    with ExitStack() as stack:
        url = postgres.given()
        if url is None:
            try:
                url = stack.enter_context(postgres.server()).url
            except postgres.Unavailable as error:
                pytest.skip(str(error))
        yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_url: URL) -> Iterator[tuple[Engine, str]]:
    """A migrated database, from which each test gets a copy."""
    admin = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    name = f"curfew_{uuid.uuid4().hex[:12]}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    store = SqlBillingStore(_shown(postgres_url.set(database=name)))
    store.migrate()
    store.dispose()
    yield admin, name
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty, migrated billing store."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'billing.sqlite'}"
        store = SqlBillingStore(url)
        store.migrate()
        store.dispose()
        yield url
        return
    server: URL = request.getfixturevalue("postgres_url")
    admin, template = request.getfixturevalue("postgres_template")
    name = f"{template}_{uuid.uuid4().hex[:8]}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    yield _shown(server.set(database=name))
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def open_store(store_url: str) -> Iterator[Callable[[], SqlBillingStore]]:
    """Opens the same database again, as another process would; everything is closed after the test."""
    with ExitStack() as stack:

        def open_one() -> SqlBillingStore:
            store = SqlBillingStore(store_url)
            stack.callback(store.dispose)
            return store

        yield open_one


@pytest.fixture
def store(open_store: Callable[[], SqlBillingStore]) -> SqlBillingStore:
    return open_store()


@pytest.fixture
def database(store_url: str) -> Iterator[Engine]:
    """The same database without the store, to look at it and to break it."""
    engine = create_engine(store_url)
    yield engine
    engine.dispose()
