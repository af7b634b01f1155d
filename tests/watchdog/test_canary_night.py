"""The canary on the whole application: it comes through, goes back the next day, and is missed when it does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.delivery.receiving import RunningReceiver
from tests.e2e import nights
from tests.e2e.application import Application
from tests.e2e.nights import HOUR, pass_time, run_freely, stop
from tests.support.brokers import Cluster

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.faults]

#: The next canary whose start is still to come has its midnight at 12:00.
NOW = datetime(2018, 11, 3, 10, 5, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def night(private_kafka: Callable[..., Cluster], tmp_path: Path, webhook: dict[str, str]) -> Iterator[Application]:
    """With canaries, and no other service."""
    with nights.night(private_kafka(), tmp_path, {}, now=None, env=webhook) as made:
        for _ in range(2):
            made.run("canary", "setup")
        made.settle()
        yield made


def look(application: Application, code: int = 0) -> dict[str, Any]:
    """`curfew canary run --once`; then what it sent has been answered."""
    done = application.run("canary", "run", "--once", "-f", "json", code=code)
    application.settle()
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_a_canary_goes_there_and_back_and_is_told_when_it_does_not_arrive(
    night: Application, people: RunningReceiver
) -> None:
    """Two days of the canary of noon UTC, then a morning without a persister."""
    pass_time(night, NOW, NOW)
    look(night)
    first = look(night)["probes"]
    pass_time(night, NOW, NOW + 3 * HOUR)
    arrived = look(night)
    plans = [night.store.plan("canary-12")]

    pass_time(night, NOW + 3 * HOUR, NOW + DAY)
    look(night)  # it orders the way there and is refused
    look(night)  # it orders the way back
    pass_time(night, NOW + DAY, NOW + DAY + HOUR + HOUR / 2)
    back = look(night)
    pass_time(night, NOW + DAY + HOUR + HOUR / 2, NOW + DAY + 3 * HOUR)
    home = look(night)
    plans.append(night.store.plan("canary-12"))
    before = people.received()

    stop(night, "persistence")
    later = NOW + DAY + 3 * HOUR
    run_freely(night, later, later + 2 * HOUR)
    missed = night.run("canary", "run", "--once", "-f", "json", code=3)

    assert [(one["service_id"], one["state"]) for one in first] == [("canary-12", "on_its_way")]
    assert {one["service_id"]: one["state"] for one in arrived["probes"]}["canary-12"] == "effective"
    assert all(seconds is not None for seconds in _stages(arrived, "canary-12", "2018-11-03"))
    assert _stages(back, "canary-12", "2018-11-04")[1] is not None
    assert _states(home, "canary-12") == ["effective", "effective"]
    assert [plan.subject.rate_plan_id for plan in plans if plan is not None] == ["canary-b", "canary-a"]
    assert before == []
    assert json.loads(missed.stdout)["state"] == "missed"
    assert [(one["type"], one["verified"], one["status"]) for one in people.received()] == [
        ("canary.missed", True, 200)
    ]


def _probes(report: dict[str, Any], service_id: str) -> list[dict[str, Any]]:
    return [one for one in report["probes"] if one["service_id"] == service_id]


def _states(report: dict[str, Any], service_id: str) -> list[str]:
    return [one["state"] for one in _probes(report, service_id)]


def _stages(report: dict[str, Any], service_id: str, day: str) -> list[float | None]:
    [found] = [one for one in _probes(report, service_id) if one["midnight"].startswith(day)]
    return [found[name] for name in ("accepted_s", "persisted_s", "effective_s")]
