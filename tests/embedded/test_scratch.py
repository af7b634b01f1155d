"""Programs that empty a directory empty their own only."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.embedded.scratch import claim, release
from streams.core.errors import Misconfigured


def test_a_directory_with_somebodys_data_is_refused(tmp_path: Path) -> None:
    """A data directory of real workers has a billing store of the same name in it."""
    (tmp_path / "billing.sqlite").write_text("all our customers")

    with pytest.raises(Misconfigured, match="is not empty and not of an earlier demo"):
        claim(tmp_path, "demo")
    assert [path.name for path in tmp_path.iterdir()] == ["billing.sqlite"]


def test_its_own_is_taken_again_after_a_crash_and_left_empty(tmp_path: Path) -> None:
    """The marker stays until everything else has been deleted."""
    directory = tmp_path / "new"
    claim(directory, "demo")
    (directory / "billing.sqlite").touch()
    claim(directory, "demo")

    (directory / "billing.sqlite").unlink()
    release(directory, "demo")
    assert list(directory.iterdir()) == []
