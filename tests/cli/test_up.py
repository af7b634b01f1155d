"""`curfew up`, as far as it can refuse before any worker is started."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from tests.cli.curfew import runner


def test_a_second_one_on_a_data_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two would take each other's partitions for ever; the message names the process and the remedy."""
    monkeypatch.setenv("CURFEW_DATA_DIR", str(tmp_path))
    with (tmp_path / "up.lock").open("w") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = runner(monkeypatch, capsys)("up")

    assert done.code != 0
    assert "runs here already (process 4711" in done.err
    assert "CURFEW_DATA_DIR" in done.err
    assert not (tmp_path / "logs").exists()
