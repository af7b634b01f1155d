"""Where Docker is ready, no broker test keeps away from it unless docker/README.md says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import brokers, containers

ROOT = Path(__file__).resolve().parents[2]
#: What takes the embedded stack, whatever else there is.
EMBEDDED = re.compile(r"^from agents\.embedded import .*\bStack\b|\bprivate_stack\b", re.MULTILINE)
#: The providers themselves, and the fixture.
OWN = {"tests/support/brokers.py", "tests/conftest.py", "tests/deploy/test_provider.py"}


def test_tests_that_start_the_embedded_stack_themselves_are_listed() -> None:
    section = (ROOT / "docker" / "README.md").read_text("utf-8").split("\n# Tests\n")[1].split("\n# ")[0]
    listed = {*re.findall(r"`(tests/[\w/.]+)`", section)}
    users = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("*.py")
        if EMBEDDED.search(path.read_text("utf-8"))
    }

    unlisted = {user for user in users - OWN if user not in listed and str(Path(user).parent) not in listed}
    assert unlisted == set(), "use brokers.private or the fixture private_kafka, or list it in docker/README.md"
    assert {one for one in listed if not (ROOT / one).exists()} == set()


def test_docker_that_was_asked_for_and_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable the embedded stack serves; a proof on Docker must not pass on that."""
    monkeypatch.setattr(containers, "missing", lambda: "no Docker engine answers")

    monkeypatch.setattr(brokers, "PROVIDER", "docker")
    with pytest.raises(RuntimeError, match="CURFEW_TEST_BROKERS is docker, but no Docker engine answers"):
        brokers.in_docker()
    monkeypatch.setattr(brokers, "PROVIDER", "")
    assert not brokers.in_docker()


def test_docker_that_is_there_is_taken_unless_the_embedded_stack_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "missing", lambda: "")

    monkeypatch.setattr(brokers, "PROVIDER", "")
    assert brokers.in_docker()
    monkeypatch.setattr(brokers, "PROVIDER", "embedded")
    assert not brokers.in_docker()
    monkeypatch.setattr(brokers, "PROVIDER", "podman")
    with pytest.raises(ValueError, match="say docker or embedded"):
        brokers.in_docker()


def test_an_engine_that_does_not_answer_is_no_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'nobody.sock'}")

    assert containers.missing.__wrapped__() == "no Docker engine answers"
