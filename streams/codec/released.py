"""``schemas/released.lock``: the hashes of schema files that are in use somewhere and must never change again."""

from __future__ import annotations

import hashlib
from pathlib import Path

from streams.codec.schemas import SCHEMA_ROOT

LOCK = SCHEMA_ROOT / "released.lock"


def released(lock: Path = LOCK) -> dict[str, str]:
    """Path below ``schemas/`` → SHA-256 (hex) of the released file; empty when nothing has been released."""
    if not lock.exists():
        return {}
    lines = [line.split() for line in lock.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    return {path: digest for digest, path in lines}


def changed(root: Path = SCHEMA_ROOT, lock: Path = LOCK) -> list[str]:
    """Released files that are no longer what was released, or are gone."""
    return [path for path, digest in released(lock).items() if _digest(root / path) != digest]


def release(root: Path = SCHEMA_ROOT, lock: Path = LOCK) -> list[str]:
    """Add every schema file that is not in the lock yet, and say which; entries are never changed or removed."""
    known = released(lock)
    files = sorted(path.relative_to(root).as_posix() for path in (root / "avro").glob("*/*.avsc"))
    added = [path for path in files if path not in known]
    if added:
        entries = known | {path: _digest(root / path) for path in added}
        lines = [f"{digest}  {path}" for path, digest in sorted(entries.items())]
        lock.write_text("# Released schema files; `curfew schemas release` adds to it.\n" + "\n".join(lines) + "\n")
    return added


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
