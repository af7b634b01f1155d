"""Downloads are checked, resumable, safe for two processes, and say what to do when there is no network."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agents.embedded import StackError, jars, lockfile
from agents.embedded.download import Downloader
from agents.embedded.lockfile import Artifact, LockedArtifact

VERSION = "0.0.1"


class Repository:
    """A Maven repository on loopback. `files` maps path → bytes, `asked` counts the requests for each path."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        repository = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                repository.asked[self.path] += 1
                body = repository.files.get(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                """Keep the output of the tests readable."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def add(self, name: str, content: bytes) -> LockedArtifact:
        """Offer an artifact and return what a lock would say of it."""
        artifact = Artifact(group="org.example", name=name, version=VERSION)
        self.files[f"/{artifact.path}"] = content
        return LockedArtifact(artifact=artifact, sha256=hashlib.sha256(content).hexdigest())

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def repository() -> Iterator[Repository]:
    server = Repository()
    yield server
    server.close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory, named in the environment."""
    monkeypatch.setenv("CURFEW_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def quiet(_line: str) -> None:
    """Reports are not wanted here."""


def write_lock(cache: Path, entries: list[LockedArtifact]) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    cache.joinpath(lockfile.kafka_lock_name(VERSION)).write_text(lockfile.render(entries, "test"), "utf-8")


def test_locked_files_arrive_in_the_cache(cache: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """CURFEW_MAVEN_REPO names the repository, CURFEW_CACHE_DIR the place."""
    monkeypatch.setenv("CURFEW_MAVEN_REPO", repository.url + "/")
    write_lock(cache, [repository.add("one", b"1" * 100_000), repository.add("two", b"2")])

    found = jars.kafka_jars(VERSION, quiet)

    assert [path.read_bytes() for path in found] == [b"1" * 100_000, b"2"]
    assert all(path.is_relative_to(cache) for path in found)


def test_wrong_bytes_are_refused_and_thrown_away(tmp_path: Path, repository: Repository) -> None:
    """Neither the file nor a part of it stays, so the next run cannot take it for a good one."""
    entry = repository.add("one", b"good")
    repository.files[f"/{entry.artifact.path}"] = b"evil"
    downloader = Downloader(tmp_path, [repository.url], quiet)

    with pytest.raises(StackError, match="wrong checksum") as raised:
        downloader.fetch([entry])

    assert hashlib.sha256(b"evil").hexdigest() in str(raised.value)
    assert repository.url in raised.value.where
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_damaged_file_in_the_cache_is_fetched_again(tmp_path: Path, repository: Repository) -> None:
    """The checksum is verified at every start, not only after a download."""
    entry = repository.add("one", b"good")
    downloader = Downloader(tmp_path, [repository.url], quiet)
    downloader.fetch([entry])
    downloader.place(entry.artifact).write_bytes(b"bad")

    assert downloader.missing([entry]) == [entry]
    downloader.fetch(downloader.missing([entry]))
    assert downloader.place(entry.artifact).read_bytes() == b"good"


def test_running_again_fetches_only_what_is_missing(
    cache: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted download is resumed by the same command."""
    monkeypatch.setenv("CURFEW_MAVEN_REPO", repository.url)
    first, second = repository.add("one", b"1"), repository.add("two", b"2")
    write_lock(cache, [first, second])
    body = repository.files.pop(f"/{second.artifact.path}")
    with pytest.raises(StackError, match=r"org\.example:two:0\.0\.1:jar cannot be downloaded"):
        jars.kafka_jars(VERSION, quiet)
    repository.files[f"/{second.artifact.path}"] = body

    jars.kafka_jars(VERSION, quiet)

    assert repository.asked == {f"/{first.artifact.path}": 1, f"/{second.artifact.path}": 2}


def test_a_second_repository_is_asked_when_the_first_has_not_got_it(tmp_path: Path, repository: Repository) -> None:
    """As Maven does with several configured repositories."""
    empty = Repository()
    entry = repository.add("one", b"1")
    downloader = Downloader(tmp_path, [empty.url, repository.url], quiet)

    downloader.fetch([entry])

    empty.close()
    assert downloader.missing([entry]) == []
    assert sum(empty.asked.values()) == 1


def test_two_processes_at_once_fetch_each_file_once(
    cache: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock in the cache directory serialises them; the second finds everything there."""
    monkeypatch.setenv("CURFEW_MAVEN_REPO", repository.url)
    write_lock(cache, [repository.add(f"jar{number}", bytes([number]) * 50_000) for number in range(20)])
    program = f"from agents.embedded.jars import kafka_jars; print(len(kafka_jars('{VERSION}')))"

    def run(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, range(2)))

    assert [(result.returncode, result.stdout) for result in results] == [(0, "20\n")] * 2
    assert set(repository.asked.values()) == {1}


def test_without_a_network_the_message_names_artifact_place_and_remedy(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new user without a network learns what was wanted, from where, and what to do."""
    monkeypatch.setenv("CURFEW_MAVEN_REPO", "http://127.0.0.1:9/maven")  # the discard port: nobody listens
    artifact = Artifact(group="org.example", name="one", version=VERSION)
    write_lock(cache, [LockedArtifact(artifact=artifact, sha256="0" * 64)])

    with pytest.raises(StackError) as raised:
        jars.kafka_jars(VERSION, quiet)

    assert "org.example:one:0.0.1:jar cannot be downloaded" in raised.value.what
    assert "http://127.0.0.1:9/maven/org/example/one/0.0.1/one-0.0.1.jar" in raised.value.where
    assert "onnection refused" in raised.value.where
    assert "CURFEW_MAVEN_REPO" in raised.value.remedy
    assert str(cache) in raised.value.remedy


def test_the_command_prints_that_message_and_no_traceback(cache: Path, tmp_path: Path) -> None:
    """`curfew dev start` with an empty cache and a dead mirror ends with 1 and three readable lines."""
    environment = {**os.environ, "CURFEW_CACHE_DIR": str(cache), "CURFEW_MAVEN_REPO": "http://127.0.0.1:9"}

    result = subprocess.run(
        [sys.executable, "-m", "agents.cli.dev", "start", "--data-dir", str(tmp_path / "data")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )

    assert result.returncode == 1
    assert "error: The artifact " in result.stderr
    assert "remedy: connect to the network" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_version_is_resolved_and_then_trusted(
    cache: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trust on first use: the checksums seen first are written down, and other bytes are refused later."""
    monkeypatch.setenv("CURFEW_MAVEN_REPO", repository.url)
    for name in ("kafka_2.13", "kafka-tools"):
        artifact = Artifact(group="org.apache.kafka", name=name, version=VERSION)
        pom = (
            f"<project><modelVersion>4.0.0</modelVersion><groupId>org.apache.kafka</groupId>"
            f"<artifactId>{name}</artifactId><version>{VERSION}</version></project>"
        )
        repository.files[f"/{artifact.path}"] = name.encode()
        repository.files[f"/{artifact.path.with_suffix('.pom')}"] = pom.encode()
    reports: list[str] = []

    (tools, broker) = jars.kafka_jars(VERSION, reports.append)

    assert (tools.read_bytes(), broker.read_bytes()) == (b"kafka-tools", b"kafka_2.13")
    assert any("trusted from then on" in line for line in reports)
    broker.unlink()
    repository.files["/" + str(broker.relative_to(cache / "maven"))] = b"something else"
    with pytest.raises(StackError, match="wrong checksum"):
        jars.kafka_jars(VERSION, quiet)
