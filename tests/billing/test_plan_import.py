"""The file of plans that comes before the first rate plan change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agents.plan_changes.plan_import import read_plans
from streams.core.errors import Misconfigured

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "plans.jsonl"


def a_line(**changed: Any) -> str:
    plan = {
        "service_id": "S1",
        "account_id": "A1",
        "rate_plan_id": "basic",
        "product_id": "mobile",
        "memberships": [{"rate_plan_id": "basic", "valid_from": "2026-01-01T00:00:00Z"}],
    }
    return json.dumps({**plan, **changed})


def test_the_example_is_read() -> None:
    """As the README does it; empty lines do not count."""
    lines = ["", *EXAMPLE.read_text().splitlines(), "\n"]

    assert [plan.service_id for plan in read_plans(lines, "plans.jsonl")] == ["svc-5001", "svc-5002"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "truncated"),
        (a_line(rate_plan_id=7), r"\$\.rate_plan_id"),
        (
            a_line(memberships=[{"rate_plan_id": "basic", "valid_from": "tomorrow"}]),
            r"memberships\[0\]",
        ),
        (a_line(optoins=[]), r"service S1: optoins is no field of a service plan; did you mean options\?"),
        (
            a_line(options=[{"option_id": "tv", "valid_from": "2026-01-01T00:00:00Z", "valid_until": None}]),
            r"options\[0\]\.valid_until is no field of a plan option; did you mean valid_to\?",
        ),
        (a_line(memberships=[]), "service S1: memberships is empty"),
        (a_line(change_id="C1"), "service S1: a plan that comes from outside has no change_id"),
    ],
)
def test_a_bad_line_is_named_with_its_field(line: str, told: str) -> None:
    """Number of the line and what is wrong in it."""
    with pytest.raises(Misconfigured, match=rf"plans\.jsonl, line 2: .*{told}"):
        list(read_plans([a_line(), line], "plans.jsonl"))
