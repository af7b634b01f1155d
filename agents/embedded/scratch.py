"""A directory that a program may empty: its own, and no other."""

from __future__ import annotations

from pathlib import Path

from streams.core.errors import Misconfigured


def claim(directory: Path, owner: str) -> None:
    """Make ``directory`` the scratch of ``owner``, by a marker in it.

    Raises Misconfigured for one that has anything in it and no marker: the data directory of real workers has the same
    names in it, and would lose its billing store.
    """
    marker = directory / f".curfew-{owner}"
    if directory.is_dir() and any(directory.iterdir()) and not marker.exists():
        raise Misconfigured(
            f"{directory} is not empty and not of an earlier {owner}: give another --data-dir, or empty it yourself"
        )
    directory.mkdir(parents=True, exist_ok=True)
    marker.touch()


def release(directory: Path, owner: str) -> None:
    """Take the marker away, when everything else of ``owner`` has been deleted."""
    (directory / f".curfew-{owner}").unlink(missing_ok=True)
