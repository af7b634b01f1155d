"""Changes per second of ``persist`` against bare loops of the very same statements; ``python -m tests.billing.bench``.

The statements and parameters of a real run are recorded and then sent through the bare driver to a second, equal
database: once as they were (many rows per call), once one row per call, in the same transactions.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import URL, make_url

from streams.sinks.billing import SqlBillingStore
from tests.billing import postgres
from tests.billing.makers import EVENING, LONG_AGO, at, plan, sealed

CHANGES = 5_000
PER_TRANSACTION = 500
ROUNDS = 3


def prepared(url: str) -> SqlBillingStore:
    store = SqlBillingStore(url)
    store.migrate()
    store.load_plans((plan(number) for number in range(CHANGES)), occurred_at=LONG_AGO)
    return store


def persist(store: SqlBillingStore) -> float:
    """Seconds to persist all changes."""
    results = [sealed(number) for number in range(CHANGES)]
    fence = store.take_fence("persistence", 0)
    began = time.perf_counter()
    for first in range(0, CHANGES, PER_TRANSACTION):
        store.persist(results[first : first + PER_TRANSACTION], now=at(EVENING), fence=fence)
    return time.perf_counter() - began


def recorded(store: SqlBillingStore) -> list[Any]:
    """What one whole run sends to the driver: (statement, parameters, many) and "commit"."""
    log: list[Any] = []
    engine = store._database._engine

    def on_statement(_c: Any, _cursor: Any, statement: str, parameters: Any, _x: Any, many: bool) -> None:
        # SQLAlchemy says "many" for its own multi-row INSERT too, which is one statement with one set of parameters.
        log.append((statement, parameters, many and isinstance(parameters, list)))

    def on_commit(_c: Any) -> None:
        log.append("commit")

    event.listen(engine, "before_cursor_execute", on_statement)
    event.listen(engine, "commit", on_commit)
    persist(store)
    return log


def replayed(url: str, log: list[Any], *, one_by_one: bool) -> float:
    """Seconds to send the recorded statements through the bare driver."""
    store = prepared(url)
    store.take_fence("persistence", 0)
    raw = store._database._engine.raw_connection()
    cursor = raw.cursor()
    began = time.perf_counter()
    for entry in log:
        if entry == "commit":
            raw.commit()
            continue
        statement, parameters, many = entry
        if not many:
            cursor.execute(statement, parameters)
        elif one_by_one:
            for row in parameters:
                cursor.execute(statement, row)
        else:
            cursor.executemany(statement, parameters)
        if cursor.description is not None:
            cursor.fetchall()
    took = time.perf_counter() - began
    raw.close()
    store.dispose()
    return took


def measure(new_database: Callable[[], str]) -> dict[str, float]:
    """Medians over alternating rounds."""
    store = prepared(new_database())
    log = recorded(store)
    store.dispose()
    seconds: dict[str, list[float]] = {"persist": [], "bare_many": [], "bare_one_by_one": []}
    for _ in range(ROUNDS):
        store = prepared(new_database())
        seconds["persist"].append(persist(store))
        store.dispose()
        seconds["bare_many"].append(replayed(new_database(), log, one_by_one=False))
        seconds["bare_one_by_one"].append(replayed(new_database(), log, one_by_one=True))
    rate = {name: CHANGES / statistics.median(took) for name, took in seconds.items()}
    return {
        **{f"{name}_changes_per_s": round(value) for name, value in rate.items()},
        "ratio_to_bare_many": round(rate["persist"] / rate["bare_many"], 2),
        "ratio_to_bare_one_by_one": round(rate["persist"] / rate["bare_one_by_one"], 2),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        print("sqlite", json.dumps(measure(lambda: f"sqlite:///{Path(directory) / uuid.uuid4().hex}.sqlite")))
    if len(sys.argv) > 1:
        on_postgres(make_url(sys.argv[1]))
    else:
        with postgres.server() as server:
            on_postgres(server.url)


def on_postgres(url: URL) -> None:
    admin = create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    names: list[str] = []

    def new_database() -> str:
        names.append(f"bench_{uuid.uuid4().hex[:12]}")
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {names[-1]}"))
        return url.set(database=names[-1]).render_as_string(hide_password=False)

    print("postgresql", json.dumps(measure(new_database)))
    with admin.connect() as connection:
        for name in names:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


if __name__ == "__main__":
    main()
