"""Changes per second of ``persist`` against bare loops: ``python -m tests.billing.bench [URL of a PostgreSQL]``.

``curfew bench midnight`` measures the same on its own database. Without a URL a PostgreSQL of this machine is started.
"""

from __future__ import annotations

import json
import sys
import tempfile
import uuid
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url

from agents.bench.persist import measure
from tests.billing import postgres


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
