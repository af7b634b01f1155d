"""docs/runbook.md has a section for everything that can wake somebody, and commands that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from agents.cli.main import app
from streams.core import errors

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text("utf-8")
SECTIONS = {*re.findall(r"^### (.+)$", RUNBOOK, re.MULTILINE)}
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "docker" / "prometheus" / "rules.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
COMMANDS = sorted({*re.findall(r"^(curfew [^#\n]+)", RUNBOOK, re.MULTILINE)})


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


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_runbook_exists_with_its_options(command: str) -> None:
    """At night nobody wants to look for the right one."""
    found: Any = typer.main.get_command(app)
    context = found.context_class(found, info_name="curfew")
    words = shlex.split(command)[1:]
    while hasattr(found, "get_command") and words:
        inner = found.get_command(context, words.pop(0))
        assert inner is not None
        found, context = inner, inner.context_class(inner, parent=context)
    known = {flag for one in found.get_params(context) for flag in (*one.opts, *one.secondary_opts)}

    assert {word for word in words if word.startswith("-")} <= known
