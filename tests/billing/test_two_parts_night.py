"""An outcome in two parts, with every worker a real process, on the virtual clock."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e import nights
from tests.e2e.application import Application
from tests.e2e.nights import DEADLINE, NOON, pass_time
from tests.support.brokers import Cluster

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.faults]

ACCOUNT, SERVICE = "A1", "S1"
HOURS = 2
DUE = DEADLINE - timedelta(hours=HOURS)


@pytest.fixture
def night(private_kafka: Callable[..., Cluster], tmp_path: Path) -> Iterator[Application]:
    """One service; second parts are due two hours before midnight."""
    env = {"CURFEW_SECOND_PART_HOURS": str(HOURS)}
    with nights.night(private_kafka(), tmp_path, {SERVICE: ACCOUNT}, env=env) as made:
        yield made


def tick(application: Application, start: datetime, until: datetime) -> None:
    """In steps of ten hours: the clock comes to an earlier instant only where a worker has asked for it."""
    pass_time(application, start, until, step_minutes=600)


def test_memberships_are_there_in_the_evening_and_the_change_is_persisted_when_both_parts_are(
    night: Application,
) -> None:
    """The clock stops at the due instant, which only the persister has reported; then topics and store agree."""
    night.run("plan-changes", "order", SERVICE, "basic-to-plus", "--account", ACCOUNT, "--channel", "crm", "--wait")

    before = DUE - timedelta(milliseconds=1)
    tick(night, NOON, before)
    evening, state = night.store.counts(), shown(night)
    tick(night, before, DEADLINE)
    after, later = night.store.counts(), shown(night)
    reconciled = night.run("billing", "reconcile")

    assert (evening.waiting, evening.persisted, evening.memberships, state["state"]) == (1, 0, 2, "executed")
    assert (after.waiting, after.persisted, after.late, after.missed, after.released) == (0, 1, 0, 0, 1)
    assert later["state"] == "completed"
    assert datetime.fromisoformat(later["persisted_at"]) == DUE
    assert "no difference" in reconciled.stderr


def shown(application: Application) -> dict[str, str]:
    (change,) = json.loads(application.run("plan-changes", "show", SERVICE, "-f", "json").stdout)
    found: dict[str, str] = change
    return found
