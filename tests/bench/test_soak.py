"""The soak: that it notices growth, and that a few nights of it hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agents.bench.soak import LEAST_NIGHTS, growth_per_night


def test_growth_is_the_slope_as_a_share_of_the_beginning() -> None:
    """Two MiB more each night on a hundred are two percent, a single high night is not growth of every night."""
    assert growth_per_night([100.0, 102.0, 104.0, 106.0]) == pytest.approx(0.02)
    assert growth_per_night([100.0, 100.0, 104.0, 100.0, 100.0]) == pytest.approx(0.0)


@pytest.mark.faults
@pytest.mark.kafka
@pytest.mark.timeout(900)
def test_nights_in_a_row_lose_nothing_and_leave_nothing(tmp_path: Path) -> None:
    """Each service that can change its plan does so every night, and all of them are persisted in time."""
    directory = tmp_path / "soak"
    command = (sys.executable, "-m", "agents.cli.main", "bench", "soak")

    run = subprocess.run(
        [*command, "--minutes", "0", "--accounts", "100", "--data-dir", str(directory), "--json"],
        capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip

    report = json.loads(run.stdout)
    assert "still running" not in run.stderr
    assert report["nights"] == LEAST_NIGHTS
    assert report["persisted"] == report["changes"] > 500
    assert [report[name] for name in ("missed", "ledger_difference", "left_pending", "restarts")] == [0, 0, 0, []]
    assert not list(directory.glob("*"))
