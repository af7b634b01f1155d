"""Names, labels and kinds: the code, docs/metrics.md, the dashboards, the alert rules and what is exposed agree."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from agents.monitor.metrics import exposition, monitor_exposition
from streams import metrics
from streams.core.lag.report import ClusterLag, Member, PartitionState, group_lag
from streams.core.lag.rules import Commit, Status
from streams.core.lag.track import PartitionLag
from streams.exposition import Exposition, Histogram
from streams.metrics import ALL, Family

ROOT = Path(__file__).resolve().parents[2]
DOC = (ROOT / "docs" / "metrics.md").read_text("utf-8")
UNITS = ("seconds", "bytes", "records", "changes", "total", "chunks")
#: Names of ours that are no amount of anything: a word as a number, a yes or no, a count of what the name says.
NO_UNIT = {
    "curfew_group_status", "curfew_partition_status", "curfew_group_status_inferred", "curfew_monitor_up",
    "curfew_monitor_groups", "curfew_monitor_offset_fetch", "curfew_deadline_state", "curfew_deliveries",
    "curfew_ledger_difference", "curfew_canary_state", "curfew_watchdog_alarm", "curfew_watchdog_blind",
    "curfew_monitor_not_counted", "curfew_worker_alive", "curfew_persisted_changes_per_second",
    "curfew_source_waiting",
}  # fmt: skip


def rows(table: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]


def code(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", cell))


def test_the_page_and_the_code_have_the_same_metrics() -> None:
    """Family by family: name, type, labels, help."""
    documented = {}
    for section in DOC.split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        for row in rows(body):
            if len(row) == 4 and row[1] in ("gauge", "counter", "histogram"):
                documented[code(row[0])[0]] = (title, row[1], code(row[2]), row[3])

    assert documented == {one.name: (one.family.value, one.kind.value, one.labels, one.help) for one in ALL.values()}


def test_names_of_ours_end_with_their_unit() -> None:
    """Those of the two exporters are as they are."""
    ours = {name for name in ALL if name.startswith("curfew_")}

    assert {name for name in ours if name.rpartition("_")[2] not in UNITS} == NO_UNIT
    assert all(one.name.endswith("_total") == (one.kind is metrics.Kind.COUNTER) for one in ALL.values())


def a_look() -> ClusterLag:
    """Two groups on one topic: a stopped one with a member, and one that is well."""
    member = Member(member_id="m-1", client_id="c", host="10.0.0.1", places=frozenset({("t", 0)}))

    def partition(number: int, lag: int, status: Status) -> PartitionLag:
        return PartitionLag(
            topic="t", partition=number, committed=100 - lag, committed_at_ms=1, start=3, end=100, lag=lag,
            time_lag_s=lag * 2.0, exact=True, status=status, inferred=False, complete=1.0,
            window=(Commit(1, 1, 1, 1),), lags=(lag,),
        )  # fmt: skip

    ill = partition(0, 7, Status.STOP), partition(1, 5, Status.OK)
    well = (partition(0, 0, Status.OK),)
    groups = (
        group_lag("ill", state="stable", kind="classic", members=(member,), partitions=ill, looks_ms=(1,)),
        group_lag('we"ll\\', state="empty", kind="consumer", members=(), partitions=well, looks_ms=(1,)),
    )
    state = PartitionState(leader=1, replicas=(1, 2), in_sync=(1,), start=3, end=100)
    return ClusterLag(
        cluster_id="x", at_ms=1_700_000_000_000, took_s=0.5, brokers={1: "10.0.0.9:9092"}, controller=1,
        topics={"t": {0: state, 1: state}}, groups=groups, source="offsets_topic",
    )  # fmt: skip


def exposed() -> dict[str, list[tuple[dict[str, str], float]]]:
    text = exposition(a_look(), cluster_name="curfew", families=[*Family]) + monitor_exposition(up=True, last=a_look())
    return {
        family.name: [(dict(one.labels), one.value) for one in family.samples]
        for family in text_string_to_metric_families(text)
    }


def test_every_sample_has_exactly_the_labels_of_its_metric() -> None:
    """Parsed by Prometheus' client library; all metrics of the groups and the monitor are there."""
    found = exposed()

    assert set(found) == set(
        metrics.names([Family.KAFKA_EXPORTER, Family.KAFKA_LAG_EXPORTER, Family.GROUPS, Family.MONITOR])
    )
    for name, samples in found.items():
        for labels, _ in samples:
            assert set(labels) == set(ALL[name].labels), name


def dashboard_rows() -> list[tuple[str, str, str, tuple[str, ...]]]:
    section = DOC.split("\n## Dashboards that work unchanged")[1]
    wanted = [row for row in rows(section) if len(row) == 4 and row[2].startswith("`")]
    return [(row[0], row[1], code(row[2])[0], code(row[3])) for row in wanted]


@pytest.mark.parametrize(("dashboard", "panel", "metric", "labels"), dashboard_rows())
def test_every_panel_of_the_published_dashboards_has_its_metric_and_labels(
    dashboard: str, panel: str, metric: str, labels: tuple[str, ...]
) -> None:
    """And no label is empty for a group that has a member, so that no selection leaves it out."""
    samples = exposed()[metric]

    assert samples
    assert all(known.get(label) for known, _ in samples for label in labels)


def test_the_list_of_panels_is_not_empty() -> None:
    """Both dashboards, all panels but the three about Java."""
    assert len({row[:2] for row in dashboard_rows()}) == 16


def test_the_numbers_are_those_of_the_look() -> None:
    """Sums over partitions, the worst partition, and whose member reads it."""
    found = exposed()

    def one(name: str, **labels: str) -> float:
        [value] = [value for known, value in found[name] if labels.items() <= known.items()]
        return value

    assert one("kafka_consumergroup_lag_sum", consumergroup="ill", topic="t") == 12
    assert one("kafka_consumergroup_current_offset_sum", consumergroup="ill", topic="t") == 188
    assert one("kafka_consumergroup_members", consumergroup="ill") == 1
    assert one("kafka_consumergroup_group_max_lag", group="ill") == 7
    assert one("kafka_consumergroup_group_max_lag_seconds", group="ill") == 14
    assert one("kafka_consumergroup_group_lag", group="ill", partition="0", client_id="c", member_host="10.0.0.1") == 7
    assert one("kafka_topic_partition_under_replicated_partition", topic="t", partition="1") == 1
    assert one("curfew_group_status", group="ill") == Status.STOP
    assert one("curfew_group_status", group='we"ll\\') == Status.OK
    assert [labels["partition"] for labels, _ in found["curfew_partition_status"]] == ["0"]


def test_a_histogram_is_cumulated_and_its_sum_is_in_seconds() -> None:
    """A value on a bound belongs below it."""
    histogram, out = Histogram((1.0, 5.0)), Exposition()
    for seconds in (0.5, 1.0, 4.0, 60.0):
        histogram.observe(seconds)
    out.add_histogram(metrics.CANARY_SECONDS, histogram, "accepted")

    [family] = text_string_to_metric_families(out.text())

    assert family.type == "histogram"
    found = {(one.name.rpartition("_")[2], one.labels.get("le")): one.value for one in family.samples}
    assert found == {
        ("bucket", "1.0"): 2, ("bucket", "5.0"): 3, ("bucket", "+Inf"): 4, ("sum", None): 65.5, ("count", None): 4,
    }  # fmt: skip


def test_labels_that_do_not_fit_are_refused() -> None:
    """A sample with the labels of another metric would be found in a dashboard, months later."""
    with pytest.raises(ValueError, match="group"):
        Exposition().add(metrics.GROUP_STATUS, 1)


RULES = ROOT / "docker" / "prometheus" / "rules.yml"


def alerts() -> list[dict[str, Any]]:
    found = yaml.safe_load(RULES.read_text("utf-8"))
    return [rule for group in found["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_metrics_and_labels_that_exist_and_says_what_to_do(rule: dict[str, Any]) -> None:
    """A rule about a name that nobody exposes is silent for ever."""
    names = re.findall(r"\b(?:curfew|kafka|process)_[a-z_]+", rule["expr"])
    grouped = re.findall(r"\b(?:by|on) \(([a-z, ]+)\)", rule["expr"])
    shown = re.findall(r"\$labels\.([a-z_]+)", " ".join(rule["annotations"].values()))
    labels = {label for name in names for label in ALL[name].labels}

    assert names
    assert {one.strip() for group in grouped for one in group.split(",")} <= labels
    assert {*shown} <= labels
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["remedy"]


def test_promtool_takes_the_rules() -> None:
    """And plays rules.test.yml with them, where Prometheus is installed."""
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not on the path")

    for what in (("check", "rules", str(RULES)), ("test", "rules", str(Path(__file__).with_name("rules.test.yml")))):
        done = subprocess.run([tool, *what], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_first_letter_of_a_kind_is_an_alarm_too() -> None:
    """A new series has no increase; promtool, where it is there, plays it (rules.test.yml)."""
    [expr] = [rule["expr"] for rule in alerts() if rule["alert"] == "DeadLetters"]

    assert "unless sum by (app, reason) (curfew_dead_letters_total offset 15m)" in expr
