"""An outcome in two parts, with every worker a real process, on the virtual clock."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agents.embedded import Stack
from streams.settings import ClockMode
from tests.e2e.application import Application, basic_plan, created, service_created

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.faults]

ACCOUNT, SERVICE = "A1", "S1"
#: São Paulo has no midnight that night: 2018-11-04 begins at 01:00, which is 03:00 in UTC.
DEADLINE = datetime(2018, 11, 4, 3, 0, tzinfo=UTC)
NOON = DEADLINE - timedelta(hours=12)
HOURS = 2
DUE = DEADLINE - timedelta(hours=HOURS)


@pytest.fixture
def night(private_stack: Callable[..., Stack], tmp_path: Path) -> Iterator[Application]:
    """Noon before; second parts are due two hours before midnight."""
    address = private_stack().address
    assert address is not None
    made = Application(address, tmp_path / "application", clock=ClockMode.VIRTUAL)
    made.env["CURFEW_SECOND_PART_HOURS"] = str(HOURS)
    made.directory.mkdir()
    try:
        made.configure()
        made.start()
        made.send("billing.account", (ACCOUNT, created(ACCOUNT)))
        made.send("billing.service", (ACCOUNT, service_created(ACCOUNT, SERVICE)))
        made.load_plans([basic_plan(ACCOUNT, SERVICE)])
        tick(made, NOON, NOON)
        yield made
    finally:
        made.close()


def tick(application: Application, start: datetime, until: datetime) -> None:
    """In steps of ten hours: the clock comes to an earlier instant only where a worker has asked for it."""
    application.run("clock", "--from", start.isoformat(), "--until", until.isoformat(), "--step", "600")


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
