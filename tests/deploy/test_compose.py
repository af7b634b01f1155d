"""compose.yaml, the Dockerfile and prometheus.yml name workers, settings, ports and files that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from agents.cli.main import app
from agents.worker import WORKERS
from streams.settings import Settings

DOCKER = Path(__file__).resolve().parents[2] / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROMETHEUS: dict[str, Any] = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text("utf-8"))
DOCKERFILE = (DOCKER / "Dockerfile").read_text("utf-8")
OURS = {name: one for name, one in SERVICES.items() if "CURFEW_IMAGE" in one["image"]}


def commands() -> dict[str, list[str]]:
    return {name: one["command"] for name, one in OURS.items() if "command" in one}


def test_there_are_two_of_every_worker_and_one_clock() -> None:
    """With instances that differ: the same name twice would share one store."""
    workers = [
        (words[1], words[words.index("--instance") + 1]) for words in commands().values() if words[0] == "worker"
    ]

    assert Counter(workers) == Counter((name, instance) for name in WORKERS for instance in ("1", "2"))
    assert sum(words == ["clock"] for words in commands().values()) == 1


@pytest.mark.parametrize(("service", "words"), commands().items())
def test_every_command_and_option_exists(service: str, words: list[str]) -> None:
    command = typer.main.get_command(app)
    context = command.make_context("curfew", list(words), resilient_parsing=True)
    found = command.get_command(context, words[0])  # type: ignore[attr-defined]

    assert found is not None, service
    assert {word for word in words if word.startswith("--")} <= {flag for one in found.params for flag in one.opts}


def test_settings_exist() -> None:
    """A misspelt variable is ignored, and the worker asks its own loopback for a broker."""
    composed = {name for one in OURS.values() for name in one["environment"]}
    named = composed | {*re.findall(r"\bCURFEW_\w+(?==)", DOCKERFILE)}

    ours = {name for name in named if name.startswith("CURFEW_")}
    assert {name.removeprefix("CURFEW_").lower() for name in ours} <= {*Settings.model_fields}


def test_ports_are_published_on_loopback_only() -> None:
    ports = [port for one in SERVICES.values() for port in one.get("ports", [])]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_image_is_a_variable() -> None:
    """So that images built here, or mirrored, can be used."""
    assert all(re.fullmatch(r"\$\{[A-Z]+_IMAGE:-\S+\}", one["image"]) for one in SERVICES.values())


def test_no_password_is_written_down() -> None:
    for one in SERVICES.values():
        for name, value in one.get("environment", {}).items():
            assert "PASSWORD" not in name or value.startswith("${"), name


def test_what_is_mounted_exists() -> None:
    mounts = [mount.split(":")[0] for one in SERVICES.values() for mount in one.get("volumes", [])]

    assert all((DOCKER / one).exists() if one.startswith(".") else one in COMPOSE["volumes"] for one in mounts)


def health_port(service: str) -> str:
    words = SERVICES[service]["command"]
    return words[words.index("--health-port") + 1] if "--health-port" in words else "9308"


def test_health_is_asked_where_it_is_answered() -> None:
    """The image asks HEALTH_PORT; what has no health endpoint says so."""
    [default] = re.findall(r"HEALTH_PORT=(\d+)", DOCKERFILE)
    for name, words in commands().items():
        if OURS[name].get("healthcheck") == {"disable": True}:
            assert "--health-port" not in words
        else:
            assert health_port(name) == OURS[name]["environment"].get("HEALTH_PORT", default)


def test_prometheus_scrapes_every_process_that_has_metrics() -> None:
    targets = {
        target for job in PROMETHEUS["scrape_configs"] for one in job["static_configs"] for target in one["targets"]
    }
    expected = {f"{name}:{health_port(name)}" for name in commands() if "healthcheck" not in OURS[name]}

    assert targets == expected


def test_promtool_takes_the_configuration() -> None:
    """Where Prometheus is installed."""
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not on the path")

    done = subprocess.run(
        [tool, "check", "config", str(DOCKER / "prometheus" / "prometheus.yml")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
