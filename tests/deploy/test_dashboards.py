"""Our Grafana dashboards ask for metrics and labels that exist, from the data source that is provisioned."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from streams.metrics import ALL, Kind, Metric

GRAFANA = Path(__file__).resolve().parents[2] / "docker" / "grafana"
DASHBOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text("utf-8")) for path in sorted((GRAFANA / "dashboards").glob("*.json"))
}
QUERIES = [
    (name, panel["title"], target["expr"], target["legendFormat"])
    for name, one in DASHBOARDS.items()
    for panel in one["panels"]
    for target in panel["targets"]
]
VARIABLES = [
    (name, variable["name"], variable["query"])
    for name, one in DASHBOARDS.items()
    for variable in one["templating"]["list"]
]


def metrics_in(query: str) -> list[Metric]:
    """Every name, known or not; a histogram is asked by its series."""
    found = []
    for name in re.findall(r"\b(?:curfew|kafka|process)_[a-z_]+", query):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        found.append(ALL[base] if base in ALL and ALL[base].kind is Kind.HISTOGRAM else ALL[name])
    return found


def test_the_three_dashboards_are_there() -> None:
    assert set(DASHBOARDS) == {"midnight", "groups", "delivery"}
    assert len({one["uid"] for one in DASHBOARDS.values()}) == 3


@pytest.mark.parametrize(("dashboard", "panel", "query", "legend"), QUERIES)
def test_a_panel_asks_for_metrics_and_labels_that_exist(dashboard: str, panel: str, query: str, legend: str) -> None:
    """A panel about a name that nobody exposes stays empty, and looks like a quiet night."""
    found = metrics_in(query)
    braces = " ".join(re.findall(r"\{([^}]*)\}", query))
    selected = {*re.findall(r"(\w+)(?:=~|!~|!=|=)", braces)}
    grouped = {label for part in re.findall(r"\bby \(([^)]*)\)", query) for label in part.split(", ")}
    shown = {*re.findall(r"\{\{(\w+)\}\}", legend)}
    le = {"le"} if any(one.kind is Kind.HISTOGRAM for one in found) else set()

    assert found
    assert selected | grouped <= {label for one in found for label in one.labels} | le
    assert shown <= grouped
    assert {*re.findall(r'"\$(\w+)"', query)} <= {variable for name, variable, _ in VARIABLES if name == dashboard}


@pytest.mark.parametrize(("dashboard", "variable", "query"), VARIABLES)
def test_a_variable_lists_a_label_that_exists(dashboard: str, variable: str, query: str) -> None:
    match = re.fullmatch(r"label_values\((\w+), (\w+)\)", query)

    assert match
    assert match[2] in ALL[match[1]].labels


def test_every_panel_uses_the_provisioned_data_source() -> None:
    given = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text("utf-8"))
    known = {one["uid"] for one in given["datasources"]}

    asked = [panel["datasource"]["uid"] for one in DASHBOARDS.values() for panel in one["panels"]]
    assert {*asked} == known
