"""The midnight bench, small: that it runs, counts rightly and leaves nothing. How fast it is, no test says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agents.bench import orders

CHANGES = 500
#: On a machine that is busy with other tests; alone it takes about a minute.
TIMEOUT_S = 360


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.kafka
@pytest.mark.timeout(400)
def test_a_small_midnight_passes_every_stage_and_leaves_nothing(tmp_path: Path) -> None:
    """Every change comes through every stage once, none is missed or lost; processes and data are gone."""
    directory = tmp_path / "bench"
    command = (sys.executable, "-m", "agents.cli.main", "bench", "midnight")

    run = subprocess.run(
        [*command, "--changes", str(CHANGES), "--data-dir", str(directory), "--json"],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip

    assert run.returncode == 0, run.stderr[-4000:] + run.stdout[-4000:]
    assert "still running" not in run.stderr
    report: dict[str, Any] = json.loads(run.stdout)
    stages = ("pending", "started", "executed", "persisted", "completed", "effective")
    assert report["counts"] == dict.fromkeys(stages, CHANGES)
    assert [report[name] for name in ("missed", "late", "lost", "not_released", "dead_letters")] == [0] * 5
    assert report["holds"] is True
    assert report["slack_wall_s"]["min"] > 0
    assert set(report["restart_s"]) == {"warm", "cold"}
    assert set(report["peak_memory_mib"]) >= {"plan-changes", "execution", "persistence", "kafka"}
    assert report["persister_ratio_to_bare_loop"] > 0
    assert [path.name for path in directory.iterdir()] == []


@pytest.mark.parametrize("changes", [1_000, 20_000])
def test_one_account_has_a_tenth_of_the_services(changes: int) -> None:
    """The skew is what the bench is about: keyed by account, a tenth of a million would be one partition's."""
    services = Counter(orders.account_id(number, changes) for number in range(changes))

    (largest, most), (_, second) = services.most_common(2)
    assert (largest, most) == ("A0000000", changes // 10)
    assert second < most
    assert min(services.values()) == 1


def test_all_orders_are_for_the_same_midnight() -> None:
    """São Paulo's 2018-11-04, which begins at 01:00 local."""
    assert (orders.DEADLINE - orders.START).total_seconds() == orders.ELEMENT.lead_hours * 3600
    assert orders.DEADLINE.isoformat() == "2018-11-04T03:00:00+00:00"
