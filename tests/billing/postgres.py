"""A PostgreSQL of our own for the tests: temporary directory, unix socket, no port; or the one that a URL names."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy.engine import URL, make_url

#: An existing server; its user must be allowed to create databases.
URL_VARIABLE = "CURFEW_TEST_DATABASE_URL"
DEADLINE_S = 120.0


class Unavailable(Exception):
    """There is no PostgreSQL here; the message says how to get one."""


def programs() -> Path:
    """The directory with initdb and postgres, the newest version that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("initdb")
    if found:
        return found[-1].parent
    if on_path:
        return Path(on_path).parent
    raise Unavailable(f"no PostgreSQL: install the package postgresql, or set {URL_VARIABLE}")


class Server:
    """postgres as a child process. As root it runs as the user ``postgres``, since it refuses to run as root."""

    def __init__(self, directory: Path) -> None:
        self._programs = programs()
        self._directory = directory
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(directory, self._user)
        self._run(
            "initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D", str(self._data)
        )

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(command, user=self._user, cwd="/", capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Unavailable(f"{program} failed: {done.stderr.strip()}")

    def start(self) -> None:
        """Start and wait until it answers."""
        settings = {"listen_addresses": "", "unix_socket_directories": str(self._directory)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._programs / "postgres"), "-D", str(self._data), *options],
                user=self._user, cwd="/", stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                psycopg.connect(host=str(self._directory), user="postgres", dbname="postgres").close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise Unavailable(f"postgres did not start: {error}") from error
                time.sleep(0.02)  # between two looks at the condition

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: clean, clients are cut off; SIGQUIT: at once, as in a crash."""
        self._process.send_signal(how)
        self._process.wait(DEADLINE_S)

    @property
    def url(self) -> URL:
        return URL.create("postgresql+psycopg", "postgres", database="postgres", query={"host": str(self._directory)})


@contextmanager
def server() -> Iterator[Server]:
    """A running server; everything of it is gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="curfew-pg-"))  # not below pytest's, which only we may enter
    try:
        started = Server(directory)
        started.start()
        try:
            yield started
        finally:
            started.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def given() -> URL | None:
    """The server named from outside, if any."""
    url = os.environ.get(URL_VARIABLE)
    return make_url(url).set(drivername="postgresql+psycopg") if url else None
