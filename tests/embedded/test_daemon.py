"""`curfew dev`: a detached stack that is found again, stopped by the right pid, and safe to kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from agents.embedded import daemon
from agents.embedded import state as states
from agents.embedded.ports import free_port
from tests.support.brokers import Brokers
from tests.support.kafka_io import create_topic, produce, read_partition, wait_until, wait_until_ended

pytestmark = pytest.mark.kafka


class Dev:
    """Runs `curfew dev` on one data directory, on ports that nobody else uses."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kafka_port = free_port()
        self.registry_port = free_port()

    def command(self, name: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "agents.cli.dev", name, "--data-dir", str(self.directory), *arguments]

    def run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(name, *arguments), capture_output=True, text=True, check=False)

    def start_arguments(self) -> list[str]:
        return ["--kafka-port", str(self.kafka_port), "--registry-port", str(self.registry_port)]

    def start(self) -> dict[str, Any]:
        result = self.run("start", *self.start_arguments(), "-f", "json")
        assert result.returncode == 0, result.stderr
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    def state(self) -> states.State:
        found = states.read(self.directory)
        assert found is not None
        return found


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    running = Dev(tmp_path / "dev")
    yield running
    daemon.stop(running.directory, grace_seconds=20)


@pytest.mark.faults
@pytest.mark.slow
def test_a_detached_stack_from_start_to_stop(dev: Dev, kafka: Brokers) -> None:
    """Start, start again, read logs and status, kill -9 of the supervisor, two starts at once, data intact, stop.

    One test because each start costs seconds. It runs beside the stack of the session, so a port that both want shows.
    """
    before = dev.start()
    assert before["bootstrap_servers"] != kafka.bootstrap_servers
    address = before["bootstrap_servers"]
    assert address == f"127.0.0.1:{dev.kafka_port}"
    assert dev.start()["pid"] == before["pid"]
    status = dev.run("status", "-f", "json")
    assert (status.returncode, json.loads(status.stdout)) == (0, before)
    assert "ready: Kafka" in dev.run("logs", "supervisor").stdout
    refused = dev.run("start", "--fresh")
    assert refused.returncode == 1
    assert "cannot be deleted while the stack is running" in refused.stderr
    other_version = dev.run("start", "--kafka-version", "3.9.2")
    assert other_version.returncode == 1
    assert "is running with Kafka 4.3.0" in other_version.stderr

    create_topic(address, "kept")
    produce(address, "kept", [b"1", b"2"])
    registry = SchemaRegistryClient({"url": before["schema_registry_url"], "timeout": 10})
    registry.register_schema("unused", Schema('"long"', "AVRO"))  # so that a new registry would give another id
    schema_id = registry.register_schema("kept-value", Schema('"string"', "AVRO"))
    java = [psutil.Process(pid) for pid in dev.state().child_pids]
    os.kill(before["pid"], signal.SIGKILL)
    assert len(java) == 2
    wait_until_ended(java)
    status = dev.run("status")
    assert status.returncode == 1
    assert "gone without a clean stop" in status.stdout

    with ThreadPoolExecutor(2) as pool:
        again, at_once = pool.map(lambda _: dev.start(), range(2))
    assert again == at_once
    assert again["pid"] != before["pid"]
    assert read_partition(address, "kept") == [b"1", b"2"]
    registry = SchemaRegistryClient({"url": again["schema_registry_url"], "timeout": 10})
    assert registry.get_latest_version("kept-value").schema_id == schema_id
    assert registry.get_schema(schema_id).schema_str == '"string"'

    java = [psutil.Process(pid) for pid in dev.state().child_pids]
    assert dev.run("stop").stdout == "stopped\n"
    wait_until_ended(java)
    assert dev.directory.joinpath("kafka", ".kafka_cleanshutdown").exists()
    assert dev.run("status").returncode == 1
    assert "not running" in dev.run("stop").stdout


@pytest.mark.faults
def test_a_foreground_stack_ends_with_all_its_children_on_sigterm(dev: Dev) -> None:
    """What a process manager or a terminal that closes does."""
    command = dev.command("start", *dev.start_arguments(), "--no-registry", "--foreground")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as owner:
        wait_until(lambda: daemon.status(dev.directory).health == "running", "the stack is ready")
        java = [psutil.Process(pid) for pid in dev.state().child_pids]
        owner.send_signal(signal.SIGTERM)
        code = owner.wait(timeout=40)

    assert code == 0
    assert len(java) == 1
    wait_until_ended(java)
    assert states.read(dev.directory) is None


@pytest.mark.faults
def test_a_broker_that_dies_ends_the_stack_and_status_says_why(dev: Dev) -> None:
    """A supervisor that went on without its broker would look healthy to a process list."""
    command = dev.command("start", *dev.start_arguments(), "--no-registry", "--foreground")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as owner:
        wait_until(lambda: daemon.status(dev.directory).health == "running", "the stack is ready")
        os.kill(dev.state().child_pids[0], signal.SIGKILL)
        code = owner.wait(timeout=40)

    assert code == 1
    status = dev.run("status")
    assert status.returncode == 1
    assert "failed: Kafka ended with code -9" in status.stdout


def test_a_start_that_fails_prints_why(dev: Dev) -> None:
    """The error happens in the detached process, the person is at the terminal."""
    dev.directory.mkdir()
    dev.directory.joinpath("kafka.json").write_text('{"cluster_id": "x", "kafka_version": "99.0.0"}', "utf-8")

    result = dev.run("start", "--no-registry", *dev.start_arguments())

    assert result.returncode == 1
    assert "error: The data was written by Kafka 99.0.0" in result.stderr
    assert "Traceback" not in result.stderr
    assert daemon.status(dev.directory).health == "failed"


@pytest.mark.parametrize("changed", [{"process_started": 1.0}, {"command": ("something", "else")}])
def test_stop_does_not_signal_a_process_that_only_has_the_same_pid(dev: Dev, changed: dict[str, Any]) -> None:
    """Pids are used again: after a reboot the number in the state may belong to anybody, here to this very test."""
    mine = states.of_this_process(data_dir=dev.directory, kafka_version="4.3.0")
    assert mine.alive()
    dev.directory.mkdir()
    states.write(dev.directory, replace(mine, status="ready", **changed))

    assert daemon.stop(dev.directory, grace_seconds=0) is False
    assert daemon.status(dev.directory).health == "stopped"


def test_logs_before_the_first_start_are_an_error_with_a_remedy(dev: Dev) -> None:
    """No traceback for the first thing that a curious user may try."""
    result = dev.run("logs")

    assert result.returncode == 1
    assert "curfew dev start" in result.stderr
    assert "Traceback" not in result.stderr
