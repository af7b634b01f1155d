"""Alembic's entry: runs the scripts on the connection that ``migrate.py`` has opened and locked."""

from alembic import context

from streams.sinks.billing.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite can do DDL in a transaction; without this a crash in the middle would leave half of the tables.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
