"""Bring the tables of the billing store to the newest revision (Alembic; the scripts are package data)."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, text

#: Any fixed number: the key of PostgreSQL's advisory lock, so that of two workers that start at once one migrates
#: and the other waits, instead of both creating the same tables.
MIGRATION_LOCK = 0x0C0FFEE

SCRIPTS = Path(__file__).parent / "migrations"


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Migrate in one transaction, under a lock; does nothing when the tables are new enough."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    # SQLite: BEGIN IMMEDIATE is the lock (see engine.py).
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # Waiting for another migration is right here, however long it takes.
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def revision(connection: Connection) -> str | None:
    """The newest migration that this database has had; None before the first."""
    return MigrationContext.configure(connection).get_current_revision()
