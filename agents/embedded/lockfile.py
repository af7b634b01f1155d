"""Lock files: which jars make up one version, with their checksums.

One line per artifact, `sha256  group:artifact:version[:classifier]:extension`; lines that begin with `#` are comments.
A lock names no host: the repository is a setting of the machine that downloads, the checksum belongs to the project.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath

from agents.embedded.errors import StackError

REGISTRY_VERSION = "3.3.3"

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Artifact:
    """One file in a Maven repository."""

    group: str
    name: str
    version: str
    classifier: str = ""
    extension: str = "jar"

    def __str__(self) -> str:
        parts = [self.group, self.name, self.version, self.classifier, self.extension]
        return ":".join(part for part in parts if part)

    @property
    def path(self) -> PurePosixPath:
        """Place below the root of any Maven repository."""
        suffix = f"-{self.classifier}" if self.classifier else ""
        file_name = f"{self.name}-{self.version}{suffix}.{self.extension}"
        return PurePosixPath(*self.group.split("."), self.name, self.version, file_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedArtifact:
    """An artifact and the SHA-256 (64 hex digits) that its bytes must have."""

    artifact: Artifact
    sha256: str


def parse_artifact(text: str) -> Artifact:
    """Read `group:artifact:version[:classifier]:extension`; ValueError when it is something else."""
    parts = text.split(":")
    if len(parts) not in (4, 5) or not all(parts):
        raise ValueError(f"expected group:artifact:version[:classifier]:extension, got {text!r}")
    group, name, version = parts[:3]
    return Artifact(
        group=group, name=name, version=version, classifier=parts[3] if len(parts) == 5 else "", extension=parts[-1]
    )


def parse(text: str, origin: str) -> tuple[LockedArtifact, ...]:
    """Read a lock; `origin` is only for the message of the StackError that a bad line raises."""
    entries = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        sha256, _, coordinates = line.partition("  ")
        try:
            if not _SHA256.fullmatch(sha256):
                raise ValueError(f"expected 64 hex digits, got {sha256!r}")
            entries.append(LockedArtifact(artifact=parse_artifact(coordinates.strip()), sha256=sha256))
        except ValueError as error:
            raise StackError(
                f"A line of a lock file is not readable: {error}",
                where=f"{origin}, line {number}",
                remedy="restore the file from version control; a lock in the cache directory may simply be deleted",
            ) from error
    return tuple(entries)


def render(entries: Iterable[LockedArtifact], comment: str) -> str:
    """The text of a lock; sorted, so that two resolutions of the same set are the same file."""
    lines = [f"{entry.sha256}  {entry.artifact}" for entry in sorted(entries, key=lambda entry: entry.artifact)]
    return "\n".join([f"# {comment}", *lines, ""])


def kafka_lock_name(version: str) -> str:
    return f"jars-kafka-{version}.lock"


def committed(name: str) -> tuple[LockedArtifact, ...] | None:
    """The lock of this name that comes with the package, or None."""
    resource = files("agents.embedded").joinpath(name)
    return parse(resource.read_text("utf-8"), str(resource)) if resource.is_file() else None


def cached(path: Path) -> tuple[LockedArtifact, ...] | None:
    """A lock written on this machine for a version without a committed one, or None."""
    return parse(path.read_text("utf-8"), str(path)) if path.is_file() else None
