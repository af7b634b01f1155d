"""The monitor as a process: metrics from memory, also while the broker is away; `curfew lag` with and without it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.curfew import Curfew, runner
from tests.lag.test_poll import OLD_MS, commit, write
from tests.support.brokers import Cluster
from tests.support.kafka_io import TIMEOUT_SECONDS, create_topic, wait_until

pytestmark = pytest.mark.kafka

Samples = dict[str, list[tuple[dict[str, str], float]]]


class Running:
    """One `curfew monitor` and its address."""

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url, self.process = url, process

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=TIMEOUT_SECONDS) as answer:
            return str(answer.read().decode())

    def scrape(self) -> Samples:
        """As Prometheus' own client library reads it."""
        return {
            family.name: [(dict(one.labels), one.value) for one in family.samples]
            for family in text_string_to_metric_families(self.get("/metrics"))
        }

    def value(self, name: str, **labels: str) -> float | None:
        found = [value for known, value in self.scrape().get(name, ()) if labels.items() <= known.items()]
        return found[0] if found else None


@contextmanager
def monitor(servers: str, data_dir: Path, *options: str) -> Iterator[Running]:
    env = {**os.environ, "CURFEW_BOOTSTRAP_SERVERS": servers, "CURFEW_DATA_DIR": str(data_dir)}
    command = [sys.executable, "-m", "agents.cli.main", "monitor", "--port", "0", "--every", "0.5", *options]
    process = subprocess.Popen(command, env=env)
    state = data_dir / "monitor" / "state.json"
    try:
        wait_until(lambda: state.exists() or process.poll() is not None, "the monitor has started")
        yield Running(json.loads(state.read_bytes())["url"], process)
    finally:
        process.terminate()
        try:
            assert process.wait(TIMEOUT_SECONDS) == 0
        finally:
            process.kill()
    assert not state.exists()


@pytest.fixture
def curfew(servers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Curfew:
    monkeypatch.setenv("CURFEW_BOOTSTRAP_SERVERS", servers)
    monkeypatch.setenv("CURFEW_DATA_DIR", str(tmp_path))
    return runner(monkeypatch, capsys)


@pytest.fixture
def behind(servers: str, unique: Callable[[str], str]) -> tuple[str, str]:
    """A group that is six records behind, ten minutes old."""
    topic, group = unique("t"), unique("g")
    create_topic(servers, topic)
    write(servers, topic, 10, age_ms=OLD_MS)
    commit(servers, group, topic, 4)
    return topic, group


def test_curfew_lag_tells_records_and_time_and_exits_with_3_over_a_limit(
    curfew: Curfew, behind: tuple[str, str]
) -> None:
    """Without a monitor, in one look."""
    topic, group = behind

    table = curfew("lag", "--group", group)
    many = curfew("lag", "--group", group, "--limit", "5", "-f", "json")
    long = curfew("lag", "--group", group, "--limit", "6", "--max-seconds", "300")
    fine = curfew("lag", "--group", group, "--limit", "6", "--max-seconds", "86400")

    assert (table.code, many.code, long.code, fine.code) == (0, 3, 3, 0)
    assert re.search(r"\b1\d min", table.out), "ten, and as long as this takes"
    assert f"{group} is 6 records behind, over the limit of 5" in many.err
    assert "s behind, over the limit of 300 s" in long.err
    [row] = json.loads(many.out)
    assert (row["status"], row["lag"], row["members"], row["state"]) == ("OK", 6, 0, "empty")
    assert OLD_MS / 1000 <= row["time_lag_s"] < OLD_MS / 1000 + 120
    assert [(one["topic"], one["committed"], one["exact"]) for one in row["partitions"]] == [(topic, 4, True)]


def test_curfew_lag_of_a_group_that_is_not_there_is_wrong_usage(curfew: Curfew) -> None:
    """A script with a slip in the name must not read "nothing is behind"."""
    finished = curfew("lag", "--group", "no-such-group", "--limit", "0")

    assert finished.code == 2
    assert "no consumer group 'no-such-group'" in finished.err


def test_a_wrong_regex_is_wrong_usage(curfew: Curfew) -> None:
    """It says which."""
    finished = curfew("lag", "--group", "plan-(")

    assert finished.code == 2
    assert "plan-(" in finished.err


@pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.faults)])
def test_a_scrape_is_answered_from_memory_while_the_broker_is_away(
    lag_stack: Cluster, servers: str, behind: tuple[str, str], tmp_path: Path, times: int
) -> None:
    """Before, meanwhile (the old numbers, and that they are old), and after a restart of the broker. A second group has
    a member, so that members are asked for while its coordinator is not ready."""
    topic, group = behind
    labels = {"topic": topic, "partition": "0"}
    member = Consumer({"bootstrap.servers": servers, "group.id": f"{group}-live", "log_level": 0})
    member.subscribe([topic])
    wait_until(lambda: (member.poll(0.1), member.assignment())[1], "the second group has its partition")
    with closing(member), monitor(servers, tmp_path, "--group", f"{group}.*") as running:
        wait_until(lambda: running.value("curfew_monitor_up") == 1, "it has looked")
        for _ in range(times):
            lag_stack.kill_broker()
            wait_until(lambda: running.value("curfew_monitor_up") == 0, "it is blind and says so")
            assert running.value("kafka_consumergroup_lag", consumergroup=group, **labels) == 6
            assert json.loads(running.get("/health"))["alive"]
            assert json.loads(running.get("/lag"))["problem"] is not None
            lag_stack.restart_broker()
            wait_until(lambda: running.value("curfew_monitor_up") == 1, "it sees again")
        write(servers, topic, 2)
        wait_until(
            lambda: running.value("kafka_consumergroup_lag", consumergroup=group, **labels) == 8, "what came later"
        )


def test_metrics_have_the_numbers_under_all_three_kinds_of_names(
    servers: str, behind: tuple[str, str], tmp_path: Path
) -> None:
    """And nothing twice: the parser of Prometheus' client library reads it, and no two samples have the same labels."""
    topic, group = behind
    with monitor(servers, tmp_path, "--cluster-name", "billing") as running:
        wait_until(lambda: running.value("curfew_monitor_up") == 1, "it has looked")
        samples = running.scrape()

    def value(name: str, **labels: str) -> float:
        [found] = [value for known, value in samples[name] if labels.items() <= known.items()]
        return found

    assert value("kafka_consumergroup_lag_sum", consumergroup=group, topic=topic) == 6
    assert value("kafka_topic_partition_current_offset", topic=topic, partition="0") == 10
    assert value("kafka_consumergroup_group_max_lag", cluster_name="billing", group=group) == 6
    assert value("kafka_consumergroup_group_lag_seconds", group=group, topic=topic) >= OLD_MS / 1000
    assert value("curfew_group_status", group=group) == 1
    assert value("kafka_broker_info") == 1
    for name, found in samples.items():
        keys = [tuple(sorted(labels.items())) for labels, _ in found]
        assert len(keys) == len({*keys}), name


def test_burrows_json_is_served_for_tools_that_were_made_for_it(
    servers: str, behind: tuple[str, str], tmp_path: Path
) -> None:
    """Every route but the deleting ones, with the fields of Burrow's own structures."""
    topic, group = behind
    with monitor(servers, tmp_path, "--group", group, "--cluster-name", "c") as running:
        wait_until(lambda: running.value("curfew_monitor_up") == 1, "it has looked")

        def get(path: str) -> dict[str, Any]:
            found: dict[str, Any] = json.loads(running.get(f"/v3/kafka{path}"))
            assert (found.pop("error"), found.pop("request")["url"]) == (False, f"/v3/kafka{path}")
            return found

        assert get("") == {"message": "cluster list returned", "clusters": ["c"]}
        assert get("/c")["module"]["servers"] == [servers]
        assert topic in get("/c/topic")["topics"]
        assert get(f"/c/topic/{topic}")["offsets"] == [10]
        assert get(f"/c/topic/{topic}/consumers")["consumers"] == [group]
        assert get("/c/consumer")["consumers"] == [group]
        [partition] = get(f"/c/consumer/{group}")["topics"][topic]
        healthy, whole = (get(f"/c/consumer/{group}/{what}")["status"] for what in ("status", "lag"))
        for path in ("/d/consumer", f"/c/consumer/{group}-not/status", "/c/topic/none"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                running.get(f"/v3/kafka{path}")

    assert (partition["current-lag"], partition["offsets"][0]["offset"]) == (6, 4)
    assert set(partition["offsets"][0]) == {"offset", "timestamp", "observedAt", "lag"}
    assert healthy["partitions"] == []
    assert {name: whole[name] for name in ("cluster", "group", "status", "partition_count", "totallag")} == {
        "cluster": "c", "group": group, "status": "OK", "partition_count": 1, "totallag": 6,
    }  # fmt: skip
    assert whole["maxlag"] == whole["partitions"][0]
    assert set(whole["maxlag"]) == {
        "topic", "partition", "owner", "client_id", "status", "start", "end", "current_lag", "complete",
    }  # fmt: skip


def test_families_can_be_switched_off(servers: str, behind: tuple[str, str], tmp_path: Path) -> None:
    """What remains is about the monitor."""
    off = "--no-kafka-exporter", "--no-kafka-lag-exporter", "--no-groups", "--no-own"
    with monitor(servers, tmp_path, *off) as running:
        wait_until(lambda: running.value("curfew_monitor_up") == 1, "it has looked")

        assert {name.split("_")[1] for name in running.scrape()} == {"monitor"}


def test_curfew_lag_asks_a_running_monitor_for_what_is_true_now_and_for_the_history(
    servers: str, behind: tuple[str, str], tmp_path: Path, curfew: Curfew
) -> None:
    """A commit of a moment ago is in the answer; the history is older than this process."""
    topic, group = behind
    with monitor(servers, tmp_path) as running:
        rows: list[Any] = []

        def looked() -> bool:
            rows[:] = json.loads(curfew("lag", "--group", group, "-f", "json").out)
            return len(rows[0]["history"]) > 2

        wait_until(looked, "there is a history")
        commit(servers, group, topic, 9)
        after = curfew("lag", "--group", group, "--limit", "1", "-f", "json")
        direct = curfew("lag", "--group", group, "--no-monitor", "-f", "json")
        with pytest.raises(urllib.error.HTTPError, match="400"):
            running.get("/lag?group=(")

    assert rows[0]["trend_per_s"] is not None
    assert (after.code, json.loads(after.out)[0]["lag"]) == (0, 1)
    assert json.loads(direct.out)[0]["history"] == [1]
