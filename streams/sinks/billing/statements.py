"""Statements compiled once, whose many rows go to the driver directly.

A change is about seven rows. Adapting each parameter of each row in the layers of SQLAlchemy costs more than the
database itself, so the statements are SQLAlchemy's and their parameters are picked here, once per row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeAlias

from sqlalchemy import Connection, Executable, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.sql.compiler import SQLCompiler

from streams.sinks.billing.tables import Instant, Money, instant_text, money_text

#: Parameters of one row by name.
Row: TypeAlias = Mapping[str, Any]

_DIALECTS: dict[str, Dialect] = {
    "sqlite": SQLiteDialect_pysqlite(paramstyle="qmark"),
    "postgresql": PGDialect_psycopg(paramstyle="format"),  # type: ignore[no-untyped-call]
}


@dataclass(frozen=True, slots=True)
class _Prepared:
    sql: str
    pick: Callable[[Row], tuple[Any, ...]]


def run_many(connection: Connection, statement: Executable, rows: Sequence[Row]) -> int:
    """Execute ``statement`` once per row (not at all for no rows); returns how many rows it inserted or updated.

    All rows have the same keys, which are the names of the statement's parameters or, for an INSERT, of its columns.
    """
    if not rows:
        return 0
    prepared = _prepare(statement, connection.dialect.name, tuple(rows[0]))
    return connection.exec_driver_sql(prepared.sql, [prepared.pick(row) for row in rows]).rowcount


@lru_cache(maxsize=64)
def insert_new(table: Table, dialect: str) -> Executable:
    """INSERT that leaves out, in silence, what any unique key already has."""
    construct: Any = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement: Executable = construct(table).on_conflict_do_nothing()
    return statement


@lru_cache(maxsize=64)
def _prepare(statement: Executable, dialect: str, names: tuple[str, ...]) -> _Prepared:
    compiled = statement.compile(dialect=_DIALECTS[dialect], column_keys=list(names))  # type: ignore[attr-defined]
    assert isinstance(compiled, SQLCompiler)
    assert compiled.positiontup is not None
    order = tuple(compiled.positiontup)
    if dialect == "postgresql":  # the driver takes instants and decimals as they are
        return _Prepared(compiled.string, itemgetter(*order))
    adapters = [(index, _adapter(compiled.binds[name].type)) for index, name in enumerate(order)]
    adapted = [(index, adapt) for index, adapt in adapters if adapt is not None]
    values = itemgetter(*order)

    def pick(row: Row) -> tuple[Any, ...]:
        found = list(values(row))
        for index, adapt in adapted:
            found[index] = adapt(found[index])
        return tuple(found)

    return _Prepared(compiled.string, pick)


def _adapter(type_: object) -> Callable[[Any], Any] | None:
    return instant_text if isinstance(type_, Instant) else money_text if isinstance(type_, Money) else None
