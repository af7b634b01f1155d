"""CURFEW_FAILPOINT: what it means, and that without it nothing happens."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from streams.kafka.failpoints import FAIL_POINTS

SCRIPT = """
from streams.kafka.failpoints import passing
for _ in range(3):
    passing("apply.end")
    passing("commit.before")
    print("passed", flush=True)
"""


def run(setting: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "CURFEW_FAILPOINT"}
    if setting is not None:
        environment["CURFEW_FAILPOINT"] = setting
    return subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("setting", "code", "passed"),
    [
        (None, 0, 3),
        ("", 0, 3),
        ("seek:1", 0, 3),
        ("apply.end", -9, 0),
        ("apply.end:3", -9, 2),
        ("commit.before:2", -9, 1),
    ],
)
def test_the_process_dies_at_the_named_pass_of_the_named_point(setting: str | None, code: int, passed: int) -> None:
    result = run(setting)

    assert (result.returncode, result.stdout.count("passed")) == (code, passed)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    """A misspelt fail point would be a fault test that tests nothing."""
    result = run("apply.ende:1")

    assert result.returncode == 1
    assert "no such fail point" in result.stderr
    assert all(point in result.stderr for point in FAIL_POINTS)
