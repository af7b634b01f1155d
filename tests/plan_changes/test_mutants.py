"""Eleven mistakes in the core that a person could make; the stateful test of the machine finds each of them.

Each mutant is a copy of ``streams`` with one piece of text replaced; the test runs in a process of its own with the
copy in front of the original. A property test that finds none of them would prove nothing about the original either.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 500

MUTANTS = {
    "a cancel is accepted after the start": (
        "plan_change/orders.py",
        """        if now >= current.start_at:
            reasons.append("too_late")""",
        """        if now >= current.deadline_at:
            reasons.append("too_late")""",
    ),
    "an order supersedes whatever revision it names": (
        "plan_change/orders.py",
        """    if expected != current.revision:
        return ["revision_mismatch"]""",
        "",
    ),
    "a superseding order keeps the revision": (
        "plan_change/orders.py",
        "1 if current is None else current.revision + 1, now)",
        "1 if current is None else current.revision, now)",
    ),
    "work begins an hour before its start": (
        "plan_change/progress.py",
        "yield Action(kind=ActionKind.START, at=change.retry_at or change.start_at)",
        "yield Action(kind=ActionKind.START, at=change.retry_at or change.start_at - timedelta(hours=1))",
    ),
    "an answer is taken from whatever command": (
        "plan_change/progress.py",
        "    if change.awaiting is None or result.command_id != _awaited_id(change, change.awaiting):",
        "    if change.awaiting is None:",
    ),
    "the window of commands in flight is not asked": (
        "plan_change/progress.py",
        "or (action.window is not None and action.window not in room):",
        "or False:",
    ),
    "a commit of another revision is taken": (
        "plan_change/progress.py",
        "(ack.change_id, ack.revision) != (change.change_id, change.revision)",
        "ack.change_id != change.change_id",
    ),
    "a change that was not persisted is released": (
        "plan_change/progress.py",
        """    if change.persisted_at is not None:
        return SettlementKind.RELEASE""",
        """    if change.persisted_at is not None or change.state is State.EXECUTED:
        return SettlementKind.RELEASE""",
    ),
    "a rolled change keeps its revision": (
        "plan_change/progress.py",
        "        revision=change.revision + 1,\n        zone=zone,",
        "        revision=change.revision,\n        zone=zone,",
    ),
    "a silent change tells the customer": (
        "plan_change/told.py",
        "    return not (change.silent and name in _CUSTOMER_EVENTS)",
        "    return True",
    ),
    "a change that has ended counts as an open one": (
        "plan_change/desk.py",
        "    if change is None or not change.is_open:",
        "    if change is None:",
    ),
    "an answer is not remembered": (
        "plan_change/desk.py",
        "            return [] if answer.reply is None else [SendReply(reply=answer.reply)]",
        "            return self._decide(validated, self.now or request.requested_at)",
    ),
}


def run_against(place: Path) -> subprocess.CompletedProcess[str]:
    """The stateful test, with ``streams`` of ``place``."""
    return subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(place),
            "tests/plan_changes/test_machine_properties.py",
        ],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(place), "CURFEW_MANY_EXAMPLES": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )  # fmt: skip


def copied(place: Path) -> Path:
    """The project's packages in ``place``; returns the core."""
    for package in ("streams", "agents", "schemas", "tests"):
        shutil.copytree(ROOT / package, place / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", place)
    return place / "streams" / "core"


@pytest.mark.faults
@pytest.mark.timeout(TIMEOUT_S + 20)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_found(name: str, tmp_path: Path) -> None:
    """One of the invariants breaks."""
    file, right, wrong = MUTANTS[name]
    path = copied(tmp_path) / file
    text = path.read_text("utf-8")
    assert text.count(right) == 1, f"{file} has changed: correct this mutant"
    path.write_text(text.replace(right, wrong), "utf-8")

    run = run_against(tmp_path)

    assert run.returncode == 1, run.stdout[-3000:] + run.stderr[-3000:]
    assert "1 failed" in run.stdout


@pytest.mark.faults
@pytest.mark.timeout(TIMEOUT_S + 20)
def test_the_original_is_not(tmp_path: Path) -> None:
    """The same copy without a mistake passes, so it is the mistakes that are found."""
    copied(tmp_path)

    run = run_against(tmp_path)

    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
