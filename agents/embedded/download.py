"""Download locked artifacts: in parallel, checked, and safe when two processes do it at once.

A file appears under its name only when its checksum was right, so an interrupted run is resumed by running again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import requests  # as jgo does, so that certificates and proxies are found in one way
from requests.adapters import HTTPAdapter
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from urllib3.util.retry import Retry

from agents.embedded.errors import StackError
from agents.embedded.lockfile import Artifact, LockedArtifact

PARALLEL_DOWNLOADS = 8  # more gains nothing on 90 small files and makes repositories throttle
RETRIES = 3  # one dropped connection among 90 files must not fail the run
CONNECT_TIMEOUT_SECONDS = 10.0  # without it a firewall that drops packets hangs the start for minutes
READ_TIMEOUT_SECONDS = 60.0  # silence of the server, not the length of the download
CHUNK_BYTES = 1 << 18

Report = Callable[[str], None]


def say(line: str) -> None:
    """Report progress to the person at the terminal; stdout stays free for results."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def exclusive(path: Path, report: Report) -> Iterator[None]:
    """Hold a lock file, so that two processes do not download or unpack the same thing at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"waiting for another process that fills {path.parent} …")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Downloader:
    """Fetches artifacts from the repositories, tried in order, into a directory of Maven's own layout."""

    def __init__(self, directory: Path, repositories: Sequence[str], report: Report = say) -> None:
        self._directory = directory
        self._repositories = [url.rstrip("/") for url in repositories]
        self._report = report
        self._session = requests.Session()
        retry = Retry(total=RETRIES, backoff_factor=0.3, status_forcelist=(429, 500, 502, 503, 504))
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=PARALLEL_DOWNLOADS, max_retries=retry))

    def place(self, artifact: Artifact) -> Path:
        return self._directory / artifact.path

    def missing(self, entries: Iterable[LockedArtifact]) -> list[LockedArtifact]:
        """Those that are not there, or there with other bytes than locked."""
        return [
            entry
            for entry in entries
            if not self.place(entry.artifact).is_file() or sha256_of(self.place(entry.artifact)) != entry.sha256
        ]

    def fetch(self, entries: Sequence[LockedArtifact]) -> None:
        """Download the entries. StackError when one cannot be had or has the wrong checksum."""
        self._fetch_all([(entry.artifact, entry.sha256) for entry in entries])

    def fetch_unlocked(self, artifacts: Sequence[Artifact]) -> tuple[LockedArtifact, ...]:
        """Download artifacts whose checksums nobody pinned yet and return them with the checksums found."""
        self._fetch_all([(artifact, None) for artifact in artifacts])
        return tuple(
            LockedArtifact(artifact=artifact, sha256=sha256_of(self.place(artifact))) for artifact in artifacts
        )

    def _fetch_all(self, wanted: Sequence[tuple[Artifact, str | None]]) -> None:
        if not wanted:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        terminal = sys.stderr.isatty()
        self._report(f"downloading {len(wanted)} file(s) to {self._directory}")
        with (
            Progress(*columns, console=Console(stderr=True), disable=not terminal, transient=True) as progress,
            ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool,
        ):
            bar = progress.add_task(f"{len(wanted)} files", total=None)
            futures = [
                pool.submit(self._fetch_one, artifact, sha256, lambda count: progress.advance(bar, count))
                for artifact, sha256 in wanted
            ]
            try:
                for done, future in enumerate(futures, start=1):
                    future.result()
                    progress.update(bar, description=f"{done} of {len(wanted)} files")
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        self._report(f"downloaded {len(wanted)} file(s)")

    def _fetch_one(self, artifact: Artifact, sha256: str | None, advance: Callable[[int], None]) -> None:
        failures = []
        for repository in self._repositories:
            url = f"{repository}/{artifact.path}"
            try:
                self._fetch_url(url, artifact, sha256, advance)
            except requests.RequestException as error:
                failures.append(f"{url} ({_in_short(error)})")
            except OSError as error:
                raise StackError(
                    f"The artifact {artifact} cannot be stored: {error}.",
                    where=str(self._directory),
                    remedy="make the directory writable, free some disk space, or set CURFEW_CACHE_DIR",
                ) from error
            else:
                return
        raise StackError(
            f"The artifact {artifact} cannot be downloaded.",
            where="; ".join(failures) or "no repository is configured",
            remedy=f"connect to the network, or name a mirror in CURFEW_MAVEN_REPO, or copy the cache directory"
            f" {self._directory.parent} from a machine that has it; then run the same command again"
            " (finished files are kept)",
        )

    def _fetch_url(self, url: str, artifact: Artifact, sha256: str | None, advance: Callable[[int], None]) -> None:
        target = self.place(artifact)
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        timeout = (CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)
        with self._session.get(url, stream=True, timeout=timeout) as response:
            response.raise_for_status()
            handle, partial = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
            try:
                with os.fdopen(handle, "wb") as file:
                    for chunk in response.iter_content(CHUNK_BYTES):
                        file.write(chunk)
                        digest.update(chunk)
                        advance(len(chunk))
                if sha256 is not None and digest.hexdigest() != sha256:
                    raise StackError(
                        f"The artifact {artifact} has the wrong checksum and was thrown away:"
                        f" SHA-256 {digest.hexdigest()}, the lock says {sha256}.",
                        where=url,
                        remedy="run again in case the transfer was damaged; if it stays, do not trust that repository"
                        " and name another one in CURFEW_MAVEN_REPO",
                    )
                os.replace(partial, target)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(partial)


def _in_short(error: Exception) -> str:
    """The cause without the nesting of urllib3, which fills a terminal."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP status {response.status_code}"
    reason = getattr(error.args[0], "reason", error) if error.args else error
    return str(reason).rpartition(": ")[2]
