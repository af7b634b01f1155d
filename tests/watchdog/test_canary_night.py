"""The canary on the whole application: it comes through, goes back the next day, and is missed when it does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agents.embedded import Stack
from streams.settings import ClockMode
from tests.delivery.receiving import RunningReceiver, receiver
from tests.e2e.application import Application

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.faults]

#: The next canary whose start is still to come has its midnight at 12:00.
NOW = datetime(2018, 11, 3, 10, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def people(tmp_path: Path) -> Iterator[RunningReceiver]:
    """Who is woken."""
    directory = tmp_path / "people"
    directory.mkdir()
    with receiver(directory) as running:
        yield running


@pytest.fixture
def night(private_stack: Callable[..., Stack], tmp_path: Path, people: RunningReceiver) -> Iterator[Application]:
    """An application on the virtual clock, with canaries."""
    address = private_stack().address
    assert address is not None
    made = Application(address, tmp_path / "application", clock=ClockMode.VIRTUAL)
    made.env |= {"CURFEW_WATCHDOG_WEBHOOK_URL": people.url, "CURFEW_WATCHDOG_WEBHOOK_SECRET": "env:CURFEW_SECRET_TEST"}
    made.directory.mkdir()
    try:
        made.configure()
        made.start()
        for _ in range(2):
            made.run("canary", "setup")
        made.settle()
        yield made
    finally:
        made.close()


def pass_time(application: Application, start: datetime, until: datetime) -> None:
    application.run("clock", "--from", start.isoformat(), "--until", until.isoformat(), "--step", "60")


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

    [persister] = [child for child in night.supervisor.children if child.name == "persistence"]
    night.supervisor.children.remove(persister)
    assert persister.process is not None
    persister.process.terminate()
    assert persister.process.wait(30) is not None
    later = NOW + DAY + 3 * HOUR
    until = later + 2 * HOUR
    night.run("clock", "--from", later.isoformat(), "--until", until.isoformat(), "--free-run", "1800")
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
