"""`curfew doctor` on a set-up that is broken in many ways at once, and on one whose parts are away."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from agents.doctor import clocks
from agents.doctor.checks import Status
from streams.kafka.partitioner import partition_of
from streams.settings import Settings
from tests.cli.curfew import Curfew, Finished
from tests.support.brokers import Cluster, private
from tests.support.kafka_io import TIMEOUT_SECONDS, wait_until
from tests.support.skewed import skewed

pytestmark = pytest.mark.kafka

Doctor = Callable[..., Finished]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One of its own: what is broken here would break every other test."""
    running = private(tmp_path_factory.mktemp("doctor"))
    with running:
        yield running


@pytest.fixture(scope="module")
def doctor(stack: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Doctor:
    """`curfew doctor -f json` in a process of its own, after `topics apply` and `schemas apply`."""
    assert stack.address is not None
    environment = {
        **os.environ,
        "CURFEW_BOOTSTRAP_SERVERS": stack.address.bootstrap_servers,
        "CURFEW_SCHEMA_REGISTRY_URL": stack.address.schema_registry_url,
        "CURFEW_DATA_DIR": str(tmp_path_factory.mktemp("data")),
    }

    def run(*arguments: str, **more: str) -> Finished:
        done = subprocess.run(
            [sys.executable, "-m", "agents.cli.main", *(arguments or ("doctor", "--timeout", "100", "-f", "json"))],
            capture_output=True, text=True, check=False, timeout=240, env={**environment, **more},
        )  # fmt: skip
        return Finished(code=done.returncode, out=done.stdout, err=done.stderr)

    for command in (("topics", "apply"), ("schemas", "apply"), ("billing", "migrate")):
        assert run(*command).code == 0
    return run


def findings(finished: Finished, status: str) -> dict[str, str]:
    """Finding → remedy, of this status."""
    rows: list[dict[str, Any]] = json.loads(finished.out)
    return {f"{one['check']}: {one['finding']}": one["remedy"] for one in rows if one["status"] == status}


def remedy(found: dict[str, str], part: str) -> str:
    [one] = [remedy for finding, remedy in found.items() if part in finding] or [f"nothing of {part!r} in {found}"]
    return one


def test_a_new_set_up_is_well(doctor: Doctor) -> None:
    """Workers that have not run yet are a note and no fault."""
    finished = doctor()

    assert (finished.code, finished.err) == (0, "")
    assert findings(finished, "fault") == findings(finished, "down") == {}
    assert any("no worker has run here yet" in one for one in findings(finished, "note"))
    assert any("this machine and the broker agree" in one for one in findings(finished, "ok"))


def test_without_the_registry_it_says_so_and_looks_at_the_rest(doctor: Doctor) -> None:
    """Exit code 1: what is down may hide faults."""
    finished = doctor(CURFEW_SCHEMA_REGISTRY_URL="http://127.0.0.1:1")
    down = findings(finished, "down")

    assert finished.code == 1
    assert any("registry: the schema registry http://127.0.0.1:1 cannot be reached" in one for one in down)
    assert "schemas: not looked at, because of registry above" in down
    assert any("topics: " in one for one in findings(finished, "ok"))


def test_each_fault_is_named_with_its_remedy(doctor: Doctor, stack: Cluster) -> None:
    """All at once: one fault must not hide another."""
    assert stack.address is not None
    servers = stack.address.bootstrap_servers
    admin = AdminClient({"bootstrap.servers": servers})
    gone = ["billing.refund", "billing.credit"]
    for future in admin.delete_topics(gone).values():
        future.result(TIMEOUT_SECONDS)
    wait_until(lambda: not set(gone) & set(admin.list_topics(timeout=TIMEOUT_SECONDS).topics), "both topics are gone")
    for future in admin.create_topics([NewTopic("billing.credit", num_partitions=3)]).values():
        future.result(TIMEOUT_SECONDS)
    off = ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, "config.routes", incremental_configs=[off])
    for changed in admin.incremental_alter_configs([resource]).values():
        changed.result(TIMEOUT_SECONDS)
    producer = Producer({"bootstrap.servers": servers})
    elsewhere = (partition_of("acct-1", 4) + 1) % 4
    producer.produce("billing.account", key="acct-1", value=b"x", partition=elsewhere)
    producer.produce("plan-changes-store-changelog", key=b"row", value=b'{"tz_version":"2999a"}', partition=0)
    assert producer.flush(TIMEOUT_SECONDS) == 0

    finished = doctor(CURFEW_WATCHDOG_WEBHOOK_URL="https://127.0.0.1/x", CURFEW_SECRET_WATCHDOG="")
    faults = findings(finished, "fault")

    assert finished.code == 3
    assert remedy(faults, "are missing: billing.refund") == "curfew topics apply"
    assert "make the topic anew" in remedy(faults, "billing.credit has 3 partitions, should have 4")
    assert remedy(faults, "config.routes: cleanup.policy is delete, should be compact (compaction is off") == (
        "curfew topics apply"
    )
    assert "partitioner=murmur2_random" in remedy(faults, "billing.account: 1 of the newest 1 records are not in")
    assert "pip install --upgrade tzdata" in remedy(faults, "workers with 2999a have written rows")
    assert remedy(faults, "watchdog: no notice can be sent") == "set it where the watchdog runs"
    assert "billing.refund" in doctor("doctor").out


def test_without_kafka_it_says_what_it_could_not_look_at(offline: Curfew, tmp_path: Path) -> None:
    """And still looks at the rest."""
    finished = offline("doctor", "-f", "json")
    down = findings(finished, "down")

    assert finished.code == 1
    assert any("kafka: no Kafka broker answers at 127.0.0.1:1" in one for one in down)
    assert "topics: not looked at, because of kafka above" in down
    assert any(one.startswith("time zones: ") for one in {**findings(finished, "ok"), **findings(finished, "note")})


def test_a_broker_that_accepts_and_never_answers_does_not_hold_it_up(
    offline: Curfew, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A doctor that hangs helps nobody; the limit is an option."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        monkeypatch.setenv("CURFEW_BOOTSTRAP_SERVERS", f"127.0.0.1:{silent.getsockname()[1]}")
        finished = offline("doctor", "--timeout", "1", "-f", "json")

    assert finished.code == 1
    assert "kafka: no answer within 1 s" in findings(finished, "down")


@pytest.mark.parametrize(("broker_off_s", "word"), [(-300, "ahead of"), (300, "behind")])
def test_clocks_that_are_five_minutes_apart_are_told(
    stack: Cluster, doctor: Doctor, broker_off_s: int, word: str
) -> None:
    """The command as it is, against a broker that stamps records with another time: which one of the two is wrong it
    cannot know, and says so."""
    assert stack.address is not None
    with skewed(stack.address.bootstrap_servers, broker_off_s) as servers:
        faults = findings(doctor(CURFEW_BOOTSTRAP_SERVERS=servers), "fault")

    assert "NTP" in remedy(faults, f"clock: this machine's clock is 5 min {word} the broker's")


@pytest.mark.parametrize(("offset", "word"), [("+5m", "ahead of"), ("-5m", "behind")])
def test_a_machine_whose_clock_is_off_by_five_minutes_is_told(
    stack: Cluster, doctor: Doctor, monkeypatch: pytest.MonkeyPatch, offset: str, word: str
) -> None:
    """The clock is read in a process under libfaketime; what asks the broker is outside of it (tests.support.skewed).

    Each reading starts a process, and is early by as long as that takes."""
    tool = shutil.which("faketime")
    if tool is None:
        pytest.skip("faketime is not on the path: apt-get install faketime")
    assert stack.address is not None
    monkeypatch.setenv("CURFEW_BOOTSTRAP_SERVERS", stack.address.bootstrap_servers)
    command = [tool, "-f", offset, sys.executable, "-c", "import time; print(time.time())"]
    monkeypatch.setattr(clocks, "machine_time", lambda: float(subprocess.check_output(command)))

    [found] = clocks.clock(Settings())

    assert found.status is Status.FAULT
    assert re.fullmatch(rf"this machine's clock is [45] min {word} the broker's", found.finding)
