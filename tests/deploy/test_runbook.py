"""docs/runbook.md has a section for everything that can wake somebody.

That its commands exist is tested with those of all pages, in tests/cli/test_docs_commands.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from streams.core import errors

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text("utf-8")
SECTIONS = {*re.findall(r"^### (.+)$", RUNBOOK, re.MULTILINE)}
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "docker" / "prometheus" / "rules.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_section_and_links_to_it(rule: dict[str, Any]) -> None:
    """With the severity of the rule, so that the page and the pager agree."""
    assert rule["alert"] in SECTIONS
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
    assert f"### {rule['alert']}\n\n**{rule['labels']['severity'].capitalize()}.**" in RUNBOOK


def test_no_section_is_about_an_alert_that_is_gone() -> None:
    alerts = RUNBOOK.split("\n## ")[1]

    assert {*re.findall(r"^### (.+)$", alerts, re.MULTILINE)} == {rule["alert"] for rule in RULES}


def test_every_class_of_errors_has_a_section() -> None:
    assert {one.__name__ for one in errors.CurfewError.__subclasses__()} & {*dir(errors)} <= SECTIONS
