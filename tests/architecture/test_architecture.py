"""What the layout promises, beside the arrows that import-linter holds."""

from __future__ import annotations

import ast
import re
import subprocess
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = sorted((ROOT / "streams" / "core").rglob("*.py"))
#: Calls that would make a decision differ from one replay to the next.
IMPURE = {
    "now",
    "utcnow",
    "today",
    "time",
    "monotonic",
    "uuid1",
    "uuid4",
    "open",
    "random",
    "urandom",
    "getenv",
    "print",
}


def calls(source: str) -> set[str]:
    """Names that a module calls, whatever they are called on."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            target = node.func
            found.add(target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", ""))
    return found


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


@pytest.mark.parametrize("module", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_asks_neither_clock_nor_chance_nor_files(module: Path) -> None:
    """Time is an argument, ids come from causes; reading a time zone from the tzdata package is the one exception."""
    assert not calls(module.read_text()) & IMPURE


def test_the_check_for_impure_calls_finds_one() -> None:
    """The test above can fail."""
    assert calls("import datetime\ndef f():\n    return datetime.datetime.now()") & IMPURE


def test_no_other_distribution_claims_our_packages() -> None:
    """`streams`, `agents` and `schemas` are common names; another owner would be imported instead of ours."""
    owners = packages_distributions()

    assert {name: set(owners.get(name, [])) - {"curfew-streams"} for name in ("streams", "agents", "schemas")} == {
        "streams": set(), "agents": set(), "schemas": set()
    }  # fmt: skip


def test_docker_is_no_python_package() -> None:
    """An `__init__.py` there would shadow the Docker SDK."""
    assert not list((ROOT / "docker").glob("__init__.py"))


def test_the_lock_names_versions_only() -> None:
    """A host or an index in it would break every mirror."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()

    assert lines
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []


def test_no_tracked_file_names_a_path_of_a_machine() -> None:
    """Paths below home, work or root directories only exist where they were written."""
    pattern = re.compile(rb"(?<![\w.])/(?:work|root|home/\w+|Users/\w+)/")
    found = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path != Path(__file__) and pattern.search(path.read_bytes())
    ]

    assert found == []


def test_every_dependency_of_the_project_is_pinned() -> None:
    """What pyproject.toml asks for is in the lock."""
    text = (ROOT / "pyproject.toml").read_text()
    pinned = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    section = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    asked = {name.lower().replace("_", "-") for name in re.findall(r'"([A-Za-z0-9_.-]+)(?:\[[a-z]+\])?"', section)}

    assert asked
    assert asked - pinned == set()
