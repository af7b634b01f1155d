"""The whole of it: one night, all workers, a real Kafka, as a person would run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.kafka_io import wait_until_ended

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.timeout(600)]

QUICK = (sys.executable, "-m", "agents.cli.main", "demo", "--quick", "--format", "json")
#: On a machine that is busy with other tests; alone it takes less than a minute.
TIMEOUT_S = 560


def test_a_quick_night_holds_in_every_check_and_leaves_nothing(tmp_path: Path) -> None:
    """Exit code 0, every check of the report holds, data and processes are gone."""
    directory = tmp_path / "demo"

    run = subprocess.run(
        [*QUICK, "--data-dir", str(directory)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )

    assert run.returncode == 0, run.stderr[-4000:] + run.stdout[-4000:]
    report: dict[str, Any] = json.loads(run.stdout)
    assert report["holds"] is True
    assert {check["name"] for check in report["checks"] if check["holds"]} >= {
        "every change ends as the script wants it",
        "orders, acknowledgements and billing store agree",
        "published = delivered + pending + dead + filtered + discarded",
        "nothing is left running",
    }
    assert report["changes"]["effective"] >= 300
    assert report["missed"] == 0
    assert report["slack_min"] > 0
    assert report["webhooks"]["delivered"] > 0
    assert len(report["zones"]) >= 12
    assert [path.name for path in directory.iterdir()] == []


def test_an_interrupted_demo_stops_everything(tmp_path: Path) -> None:
    """SIGINT while the workers are starting: none of them, nor Kafka, is there a moment later."""
    directory = tmp_path / "demo"
    process = subprocess.Popen(
        [*QUICK, "--data-dir", str(directory)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        _wait_for(directory / "logs" / "dispatch.log", process)
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGINT)

        assert process.wait(TIMEOUT_S / 2) != 0
        wait_until_ended(children)
        assert len(children) >= 8
    finally:
        process.kill()


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIMEOUT_S / 2
    while not path.exists():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.1)
