"""The stack as an object: one owner for a directory, nothing left behind, and data that outlives a crash."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest
from confluent_kafka import Producer

from agents.embedded import Stack, StackConfig, StackError, run_kafka_tool
from agents.embedded.jars import cache_dir, kafka_jars
from agents.embedded.java import cache_file
from tests.support.brokers import Brokers
from tests.support.kafka_io import TIMEOUT_SECONDS, create_topic, produce, read_partition, wait_until_ended

pytestmark = pytest.mark.kafka

OWNER = """
import sys, time
from pathlib import Path
from agents.embedded import Stack, StackConfig
stack = Stack(StackConfig(data_dir=Path(sys.argv[1]), with_registry=False))
stack.start()
print(*stack.child_pids, flush=True)
time.sleep(600)
"""


def test_kafkas_own_consumer_reads_what_we_produced(kafka: Brokers, unique: Callable[[str], str]) -> None:
    """The console consumer runs from the same jars, as a judge that shares no code with ours."""
    topic = unique("hello")
    create_topic(kafka.bootstrap_servers, topic)
    produce(kafka.bootstrap_servers, topic, [b"one", b"two"])
    arguments = ["--bootstrap-server", kafka.bootstrap_servers, "--topic", topic, "--from-beginning"]

    result = run_kafka_tool(
        "org.apache.kafka.tools.consumer.ConsoleConsumer", [*arguments, "--max-messages", "2"], kafka_version="4.3.0"
    )

    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["one", "two"]


def test_a_misspelt_topic_is_not_created(kafka: Brokers, unique: Callable[[str], str]) -> None:
    """Automatic creation would hide the mistake behind a topic with one partition."""
    if os.environ.get("CURFEW_BOOTSTRAP_SERVERS"):
        pytest.skip("the given broker has settings of its own")
    errors: list[object] = []
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "message.timeout.ms": 1000})
    producer.produce(unique("misspelt"), b"lost", on_delivery=lambda error, _message: errors.append(error))
    assert producer.flush(TIMEOUT_SECONDS) == 0

    assert len(errors) == 1
    assert errors[0] is not None
    assert unique("misspelt") not in producer.list_topics(timeout=TIMEOUT_SECONDS).topics


def test_the_password_of_the_registry_is_private(kafka: Brokers, private_stack: Callable[..., Stack]) -> None:
    """Only the owner may read the file, and neither the command line nor a log shows the password."""
    stack = kafka.stack or private_stack()
    assert stack.address is not None
    directory = stack.address.data_dir
    password = directory.joinpath("registry.password").read_text("utf-8")

    assert len(password) >= 24
    assert directory.joinpath("registry.password").stat().st_mode & 0o777 == 0o600
    assert all(password not in " ".join(psutil.Process(pid).cmdline()) for pid in stack.child_pids)
    assert all(password not in log.read_text("utf-8") for log in directory.glob("*.log"))


@pytest.mark.faults
def test_the_life_of_a_directory(private_stack: Callable[..., Stack], tmp_path: Path) -> None:
    """A second owner is refused, a killed broker comes back with its data, --fresh deletes the data and nothing else.

    One test because it needs one broker: each start costs seconds.
    """
    directory = tmp_path / "shared"
    stack = private_stack(data_dir=directory, with_registry=False)
    assert stack.address is not None
    address = stack.address.bootstrap_servers
    create_topic(address, "kept")
    produce(address, "kept", [b"before"])

    with pytest.raises(StackError, match="belongs to a stack that is running"):
        Stack(StackConfig(data_dir=directory, with_registry=False, lock_wait_seconds=0)).start()
    with pytest.raises(StackError, match="belongs to a stack that is running"):
        Stack(StackConfig(data_dir=directory, with_registry=False, lock_wait_seconds=0, fresh=True)).start()

    stack.kill_broker()
    stack.restart_broker()
    assert read_partition(address, "kept") == [b"before"]

    (child,) = stack.child_pids
    stack.stop()
    assert not psutil.pid_exists(child)
    assert directory.joinpath("kafka", ".kafka_cleanshutdown").exists()

    directory.joinpath("note.txt").write_text("mine", "utf-8")
    fresh = private_stack(data_dir=directory, with_registry=False, fresh=True)
    assert fresh.address is not None
    create_topic(fresh.address.bootstrap_servers, "kept")
    assert read_partition(fresh.address.bootstrap_servers, "kept") == []
    assert directory.joinpath("note.txt").read_text("utf-8") == "mine"


@pytest.mark.faults
def test_no_java_outlives_an_owner_that_dies_of_a_signal(tmp_path: Path) -> None:
    """A script without a handler for SIGTERM never cleans up: the kernel ends its Java, and the directory is free."""
    with subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        java = [psutil.Process(int(pid)) for pid in owner.stdout.readline().split()]
        owner.terminate()
        owner.wait()

    assert len(java) == 1
    wait_until_ended(java)
    stack = Stack(StackConfig(data_dir=tmp_path))
    stack.lock()
    stack.stop()


def test_an_unfit_cache_of_java_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `curfew dev prepare` made is only an optimisation: damaged or outdated, it must not prevent a start."""
    real = cache_dir()
    kafka_jars("4.3.0")
    monkeypatch.setenv("CURFEW_CACHE_DIR", str(tmp_path))
    tmp_path.joinpath("maven").symlink_to(real / "maven")
    cache_file("kafka-4.3.0").parent.mkdir()
    cache_file("kafka-4.3.0").write_bytes(b"damaged" * 1000)

    result = run_kafka_tool("kafka.tools.StorageTool", ["random-uuid"], kafka_version="4.3.0")

    assert "AOT cache" in result.stdout + result.stderr  # it was indeed tried
    assert result.returncode == 0
    assert len(result.stdout.splitlines()[-1]) == 22


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    """The message says which port and which option chooses another; nothing was started."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        stack = Stack(StackConfig(data_dir=tmp_path, with_registry=False, kafka_port=port))

        with pytest.raises(StackError, match=f"Port {port} for Kafka is taken") as raised:
            stack.start()

    assert "--kafka-port" in raised.value.remedy
    assert stack.child_pids == ()


def test_a_child_that_ends_early_shows_its_log(tmp_path: Path) -> None:
    """An error in a setting is seen at once, not after the timeout."""
    stack = Stack(
        StackConfig(data_dir=tmp_path, with_registry=False, kafka_properties={"socket.request.max.bytes": "0"})
    )

    with pytest.raises(StackError, match=r"socket\.request\.max\.bytes"):
        stack.start()

    assert stack.child_pids == ()


def test_data_of_a_newer_kafka_is_refused(tmp_path: Path) -> None:
    """An older broker would fail late and obscurely, perhaps after it has changed the data."""
    tmp_path.joinpath("kafka.json").write_text(json.dumps({"cluster_id": "x", "kafka_version": "99.0.0"}), "utf-8")

    with pytest.raises(StackError, match=r"written by Kafka 99\.0\.0"):
        Stack(StackConfig(data_dir=tmp_path, with_registry=False)).start()


@pytest.mark.slow
def test_kafka_3_9_serves_too_and_its_data_is_upgraded(private_stack: Callable[..., Stack], tmp_path: Path) -> None:
    """The older release line runs from its own lock; the newer one then reads its data."""
    directory = tmp_path / "shared"
    old = private_stack(data_dir=directory, with_registry=False, kafka_version="3.9.2")
    assert old.address is not None
    create_topic(old.address.bootstrap_servers, "kept")
    produce(old.address.bootstrap_servers, "kept", [b"by 3.9"])
    assert read_partition(old.address.bootstrap_servers, "kept") == [b"by 3.9"]
    old.stop()

    new = private_stack(data_dir=directory, with_registry=False)

    assert new.address is not None
    assert new.address.kafka_version == "4.3.0"
    assert read_partition(new.address.bootstrap_servers, "kept") == [b"by 3.9"]
