"""One Apicurio Registry (it speaks the Confluent API below /apis/ccompat/v7) with its data in a file of H2.

The data is on disk because every Avro record carries a schema id: ids that change with a restart make old records
unreadable.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from agents.embedded.java import cache_options, start_java
from agents.embedded.lockfile import REGISTRY_VERSION

API_PATH = "/apis/ccompat/v7"


def url(port: int) -> str:
    """What a Confluent-compatible client takes as `url`."""
    return f"http://127.0.0.1:{port}{API_PATH}"


class Registry:
    """The files of one registry in `directory` and the way to start it. Owns no process."""

    def __init__(self, directory: Path, home: Path) -> None:
        self._directory = directory
        self._home = home
        self._password_file = directory / "registry.password"
        self.log = directory / "registry.log"

    def start(
        self, port: int, heap_mib: int, keep_open: Sequence[int], train_into: Path | None = None
    ) -> subprocess.Popen[bytes]:
        data = self._directory / "registry"
        data.mkdir(exist_ok=True)
        arguments = [
            f"-Xmx{heap_mib}m",
            *cache_options(f"registry-{REGISTRY_VERSION}", train_into),
            "-XX:TieredStopAtLevel=1",  # starts a second earlier; nobody needs a fast registry here
            f"-Dquarkus.http.port={port}",
            "-Dquarkus.http.host=127.0.0.1",
            # Health and metrics cannot be switched off in this build. Their port is 9000 on all interfaces by default,
            # so a second registry on the machine would not start; 0 is any free one.
            "-Dquarkus.management.host=127.0.0.1",
            "-Dquarkus.management.port=0",
            "-Dquarkus.log.level=WARN",
            # With it, one in 2,000 answers to a path that it does not have is logged and never sent; now one in 30,000.
            # Confluent's deserializers ask for one of those (associations), and wait for ever unless given a timeout.
            "-Dquarkus.http.access-log.enabled=false",
            "-jar",
            str(self._home / "quarkus-run.jar"),
        ]
        environment = {
            "QUARKUS_OTEL_SDK_DISABLED": "true",
            "APICURIO_STORAGE_KIND": "sql",
            "APICURIO_STORAGE_SQL_KIND": "h2",
            # H2 answers a commit half a second before it writes it: a kill -9 in between takes a schema id back that
            # records already carry. A delay of 0 writes first.
            "APICURIO_DATASOURCE_URL": f"jdbc:h2:file:{data / 'registry'};WRITE_DELAY=0",
            "APICURIO_DATASOURCE_USERNAME": "curfew",
            "APICURIO_DATASOURCE_PASSWORD": self._password(),  # not an argument: those are visible to every user
        }
        return start_java(arguments, log=self.log, cwd=data, environment=environment, keep_open=keep_open)

    def answers(self, port: int, timeout_seconds: float) -> bool:
        try:
            with urllib.request.urlopen(f"{url(port)}/subjects", timeout=timeout_seconds) as response:
                return bool(response.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def _password(self) -> str:
        """The password of the H2 file, drawn once per data directory, readable by its owner only."""
        if not self._password_file.exists():
            scratch = self._password_file.with_suffix(".tmp")
            scratch.unlink(missing_ok=True)
            with open(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(24))
            os.replace(scratch, self._password_file)
        return self._password_file.read_text("utf-8")
