"""From a version to files on this machine: the jars of Kafka and the unpacked registry.

Settings from the environment: `CURFEW_CACHE_DIR` (default `$XDG_CACHE_HOME/curfew`, else `~/.cache/curfew`) and
`CURFEW_MAVEN_REPO`, the URL of a repository to use instead of the ones that jgo is configured with.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

from jgo.config import GlobalSettings
from jgo.maven import MavenContext

from agents.embedded import lockfile
from agents.embedded.download import Downloader, Report, exclusive, say
from agents.embedded.errors import StackError
from agents.embedded.lockfile import Artifact, LockedArtifact

# The broker alone lacks the command line tools (StorageTool needs none, console consumer and the like do).
KAFKA_ROOTS = ("org.apache.kafka:kafka_2.13:{version}", "org.apache.kafka:kafka-tools:{version}")
REGISTRY_LOCK = f"registry-{lockfile.REGISTRY_VERSION}.lock"


def cache_dir() -> Path:
    explicit = os.environ.get("CURFEW_CACHE_DIR")
    if explicit:
        return Path(explicit).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache").absolute() / "curfew"


def repositories() -> dict[str, str]:
    """Name → URL, in the order in which they are tried: ours from the environment, else those of jgo."""
    mirror = os.environ.get("CURFEW_MAVEN_REPO")
    if mirror:
        return {"mirror": mirror.rstrip("/")}
    return {**GlobalSettings.load().repositories, **MavenContext().remote_repos}


def kafka_jars(version: str, report: Report = say) -> tuple[Path, ...]:
    """The class path of one Kafka version; downloads what is missing. StackError when that fails."""
    downloader = Downloader(cache_dir() / "maven", list(repositories().values()), report)
    locked = lockfile.committed(lockfile.kafka_lock_name(version))
    if locked is None:
        locked = _locked_on_first_use(version, downloader, report)
    if downloader.missing(locked):
        with exclusive(cache_dir() / "download.lock", report):
            downloader.fetch(downloader.missing(locked))  # asked again: the other process may have fetched them
    return tuple(downloader.place(entry.artifact) for entry in locked)


def registry_home(report: Report = say) -> Path:
    """The directory with the unpacked registry; downloads and unpacks it once."""
    locked = lockfile.committed(REGISTRY_LOCK)
    assert locked is not None, "the package lacks its registry lock"
    (archive,) = locked
    home = cache_dir() / f"registry-{archive.artifact.version}-{archive.sha256[:12]}"
    if home.is_dir():
        return home
    downloader = Downloader(cache_dir() / "maven", list(repositories().values()), report)
    with exclusive(cache_dir() / "download.lock", report):
        if not home.is_dir():
            downloader.fetch(downloader.missing(locked))
            _unpack(downloader.place(archive.artifact), home)
    return home


def _unpack(archive: Path, home: Path) -> None:
    """Unpack beside the target and rename, so that a directory of that name is always complete."""
    scratch = Path(tempfile.mkdtemp(dir=home.parent, prefix=f".{home.name}."))
    try:
        with tarfile.open(archive) as tar:
            # Python 3.11 has filters since 3.11.4; before, the archive's checksum has to be enough
            tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
            tar.extractall(scratch)
        os.replace(scratch, home)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    archive.unlink()  # 158 MB that nobody reads again


def _locked_on_first_use(version: str, downloader: Downloader, report: Report) -> tuple[LockedArtifact, ...]:
    path = cache_dir() / lockfile.kafka_lock_name(version)
    known = lockfile.cached(path)
    if known is not None:
        return known
    report(
        f"no checksums of Kafka {version} come with this package: resolving it now, and what arrives this first time"
        f" is trusted from then on ({path})"
    )
    with exclusive(cache_dir() / "download.lock", report):
        known = lockfile.cached(path)
        if known is not None:
            return known
        entries = downloader.fetch_unlocked(resolve_kafka(version))
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_text(lockfile.render(entries, f"Kafka {version}, trusted on first use"), "utf-8")
        os.replace(scratch, path)
        return entries


def resolve_kafka(version: str) -> tuple[Artifact, ...]:
    """Ask the repository which jars a Kafka version needs. StackError when it does not know or does not answer."""
    context = MavenContext(repo_cache=cache_dir() / "poms", remote_repos=repositories())
    roots = [context.create_dependency(root.format(version=version)) for root in KAFKA_ROOTS]
    try:
        inputs, transitive = context.resolver.resolve(roots)
    except Exception as error:  # jgo raises RuntimeError, requests its own family, the XML parser another one
        raise StackError(
            f"Kafka {version} cannot be resolved: {str(error).splitlines()[0][:300]}",
            where=", ".join(repositories().values()),
            remedy="check the version number and the network, or name a mirror in CURFEW_MAVEN_REPO; versions with"
            " committed checksums need no resolution",
        ) from error
    artifacts = {
        Artifact(
            group=found.groupId,
            name=found.artifactId,
            version=found.version,
            classifier=found.classifier or "",
            extension=found.type or "jar",
        )
        for found in [*inputs, *transitive]
    }
    return tuple(sorted(artifacts | _logging_binding(artifacts)))


def _logging_binding(artifacts: set[Artifact]) -> set[Artifact]:
    """Kafka 4 declares Log4j but no binding of SLF4J to it, and without one the broker logs nothing at all."""
    return {
        replace(artifact, name="log4j-slf4j-impl")
        for artifact in artifacts
        if artifact.group == "org.apache.logging.log4j" and artifact.name == "log4j-core"
    }
