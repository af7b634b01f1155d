"""One rate plan change from its order to its midnight, on the virtual clock, with every worker a real process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from streams.core.events import Event
from streams.core.objects import Op, Service, ServiceChange
from tests.e2e import nights
from tests.e2e.application import QUEUE, Application
from tests.e2e.nights import DEADLINE, HOUR, NOON, pass_time
from tests.support.brokers import Cluster
from tests.support.kafka_io import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ACCOUNT, SERVICE = "A1", "S1"


@pytest.fixture
def night(private_kafka: Callable[..., Cluster], tmp_path: Path) -> Iterator[Application]:
    """One account with one service."""
    with nights.night(private_kafka(), tmp_path, {SERVICE: ACCOUNT}) as made:
        yield made


def switch(application: Application, at: datetime, revision: int, before: str, after: str) -> None:
    """The billing engine changes the service's state."""
    states = [Service(id=SERVICE, account_id=ACCOUNT, name="Line", state=state) for state in (before, after)]
    change = ServiceChange(
        op=Op.UPDATED, previous=states[0], current=states[1], revision=revision, occurred_at=at, source="billing-engine"
    )
    application.send("billing.service", (ACCOUNT, change))
    application.settle()


def lifecycle(application: Application) -> list[Event]:
    prefix = "rate_plan_change."
    return [event for event in application.events(ACCOUNT, QUEUE) if event.type.startswith(prefix)]


def test_a_change_is_ordered_executed_persisted_and_true_at_midnight(night: Application) -> None:
    """Its history, its rows in the billing store, and events that carry the old plan before midnight and the new one
    after it."""
    ordered = night.run(
        "plan-changes",
        "order",
        SERVICE,
        "basic-to-plus",
        "--account",
        ACCOUNT,
        "--channel",
        "crm",
        "--wait",
        "--timeout",
        "200",
        "-f",
        "json",
    )
    [reply] = json.loads(ordered.stdout)
    night.settle()
    at_noon = [event.type for event in lifecycle(night)]

    pass_time(night, NOON, DEADLINE - HOUR)
    switch(night, DEADLINE - HOUR, 2, "Active", "Suspended")
    plans = [night.store.plan(SERVICE)]
    [settled] = night.store.changes()
    stored = night.store.outcomes([settled.change_id])[settled.change_id]

    last_second = DEADLINE - timedelta(seconds=1)
    pass_time(night, DEADLINE - HOUR, last_second)
    before = [event.type for event in lifecycle(night)]

    pass_time(night, last_second, DEADLINE)
    wait_until(lambda: "rate_plan_change.effective" in [event.type for event in lifecycle(night)], "it is effective")
    switch(night, DEADLINE + HOUR, 3, "Suspended", "Active")
    pass_time(night, DEADLINE, DEADLINE + HOUR)
    plans.append(night.store.plan(SERVICE))
    history = lifecycle(night)
    switched = [event for event in night.events(ACCOUNT) if event.type == "service.state_transitioned"]

    assert (reply["accepted"], reply["state"]) == (True, "pending")
    assert (reply["start_at"], reply["deadline_at"]) == ("2018-11-03T21:00:00Z", "2018-11-04T03:00:00Z")
    assert at_noon == ["rate_plan_change.ordered"]
    assert before == [
        f"rate_plan_change.{name}" for name in ("ordered", "started", "executed", "persisted", "completed")
    ]
    assert [event.type for event in history] == [*before, "rate_plan_change.effective"]
    assert {event.subject_id for event in history} == {reply["change_id"]}
    assert history[-1].occurred_at == DEADLINE
    assert all(event.occurred_at < DEADLINE for event in history[:-1])
    started = next(event for event in history if event.type == "rate_plan_change.started")
    assert started.occurred_at >= DEADLINE - timedelta(hours=6)

    assert (settled.change_id, settled.deadline, settled.missed, settled.persisted) == (
        reply["change_id"], DEADLINE, False, True,
    )  # fmt: skip
    assert settled.committed_at is not None
    assert settled.committed_at < DEADLINE
    assert stored.rows_match
    assert stored.outcome.effective_date == date(2018, 11, 4)
    assert [(one.rate_plan_id, one.valid_from) for one in stored.outcome.memberships] == [("plus", DEADLINE)]
    assert [(one.subject.rate_plan_id, one.revision) for one in plans if one is not None] == [("basic", 1), ("plus", 2)]

    assert [(event.occurred_at, event.parameters["rate_plan.name"]) for event in switched] == [
        (DEADLINE - HOUR, "Basic"),
        (DEADLINE + HOUR, "Plus"),
    ]
