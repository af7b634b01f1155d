"""The delivery bench, small: that it runs, counts rightly and leaves nothing. How fast it is, no test says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REQUESTS, ROUNDS = 400, 2
#: On a machine that is busy with other tests; alone it takes about a minute.
TIMEOUT_S = 500


@pytest.mark.faults
@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_a_small_run_delivers_each_webhook_once_and_leaves_nothing(tmp_path: Path) -> None:
    """Both sides, latency, and five pairs with a silent endpoint; nothing is lost or sent twice."""
    directory = tmp_path / "bench"
    command = (sys.executable, "-m", "agents.cli.main", "bench", "delivery")
    small = ("--requests", str(REQUESTS), "--rounds", str(ROUNDS), "--fan-out", "2", "--seconds", "1")

    run = subprocess.run(
        [*command, *small, "--data-dir", str(directory), "--json"],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip

    assert run.stdout, run.stderr[-4000:]
    report: dict[str, Any] = json.loads(run.stdout)
    assert run.returncode == (0 if report["holds"] else 1)
    assert "still running" not in run.stderr
    assert [report[name] for name in ("repeated", "lost", "ledger_difference")] == [0, 0, 0]
    assert len(report["ratios"]) == ROUNDS
    assert set(report["webhooks_per_second"]) == {"curfew", "aiohttp_loop"}
    assert report["queue_to_attempt_ms"]["p99"] >= report["queue_to_attempt_ms"]["p50"] > 0
    assert [set(pair) for pair in report["silent_endpoint"]["pairs"]] == [{"well", "silent", "kept"}] * 5
    assert [path.name for path in directory.iterdir()] == []
