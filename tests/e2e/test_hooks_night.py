"""One night with hooks of every temper, on a real Kafka: what each makes of its change, and what the world hears."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from streams.core.events import Audience, Event
from tests.e2e import nights
from tests.e2e.application import Application
from tests.e2e.nights import DEADLINE, NOON, pass_time
from tests.plan_changes.makers import a_request, an_element
from tests.support.brokers import private

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
#: Element, service and request of each have one name; a service has an account of its own, to read its events.
NAMES = ("sleeps", "raises", "aborts", "alters", "charges", "drops-an-option", "silent")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """The application an hour after a midnight, for which each service had ordered its change at noon."""
    env = {"CURFEW_HOOKS": '["tests.e2e.hooks:HOOKS"]', "PYTHONPATH": str(ROOT)}
    services, elements = {f"S-{name}": name for name in NAMES}, map(an_element, NAMES)
    stack = private(tmp_path_factory.mktemp("hooks-stack"))
    with stack, nights.night(stack, tmp_path_factory.mktemp("hooks"), services, elements=elements, env=env) as made:
        orders = [
            a_request(name, account_id=name, service_id=f"S-{name}", element_key=name, silent=name == "silent")
            for name in NAMES
        ]
        made.send("plan-change.requests", *((order.account_id, order) for order in orders))
        pass_time(made, NOON, DEADLINE + timedelta(hours=1))
        yield made


def history(night: Application, name: str) -> list[Event]:
    """What queues got of the change of ``name``, without the prefix that all types have."""
    return [event for event in night.events(name) if event.type.startswith("rate_plan_change.")]


def told(night: Application, name: str) -> list[str]:
    return [event.type.removeprefix("rate_plan_change.") for event in history(night, name)]


def plan(night: Application, name: str) -> str:
    found = night.store.plan(f"S-{name}")
    assert found is not None
    return found.subject.rate_plan_id


@pytest.mark.parametrize("name", ["sleeps", "raises", "charges", "drops-an-option"])
def test_a_change_whose_hook_lets_it_go_on_is_effective(night: Application, name: str) -> None:
    """Its history is the one of any change, and its plan is the one that was ordered."""
    assert told(night, name) == ["ordered", "started", "executed", "persisted", "completed", "effective"]
    assert plan(night, name) == "plus"


def test_a_hook_that_raises_is_tried_again(night: Application) -> None:
    """By its policy, in another attempt, two minutes later."""
    started, executed = (event for event in history(night, "raises") if event.type.endswith(("started", "executed")))

    [change] = [one for one in night.store.changes() if one.service_id == "S-raises"]
    assert executed.occurred_at - started.occurred_at >= timedelta(minutes=2)
    assert not change.missed


def test_a_hook_that_aborts_ends_in_front_of_a_person(night: Application) -> None:
    """The service keeps its plan, its deadline is missed, and both are said with the reason."""
    assert told(night, "aborts") == ["ordered", "started", "failed", "missed"]
    assert {event.facts["reason"] for event in history(night, "aborts")[2:]} == {"no_credit"}
    assert plan(night, "aborts") == "basic"


def test_a_hook_alters_the_plan(night: Application) -> None:
    """What is true from midnight on is what the hook has said."""
    assert plan(night, "alters") == "max"
    assert history(night, "alters")[-1].facts["to_rate_plan_id"] == "max"


def test_a_hook_adds_a_fee_and_another_removes_an_option(night: Application) -> None:
    """In the sealed outcome and so in the rows of the billing store."""
    ids = {one.service_id: one.change_id for one in night.store.changes()}
    stored = night.store.outcomes([ids["S-charges"], ids["S-drops-an-option"]])
    charged, dropped = stored[ids["S-charges"]], stored[ids["S-drops-an-option"]]

    assert sorted((fee.code, fee.amount) for fee in charged.outcome.fees) == [
        ("change", Decimal("5.00")),
        ("extra", Decimal("2.50")),
    ]
    assert [term.option_id for term in charged.outcome.options_created] == ["roaming"]
    assert dropped.outcome.options_created == ()
    assert charged.rows_match
    assert dropped.rows_match


def test_a_silent_change_tells_the_customer_nothing(night: Application) -> None:
    """The plan changes all the same, and operators see each stage; what customers hear of others is internal here."""
    assert plan(night, "silent") == "plus"
    assert told(night, "silent") == ["started", "executed", "persisted", "completed", "effective"]
    assert {event.audience for event in history(night, "silent")} == {Audience.INTERNAL}
    assert Audience.CUSTOMER in {event.audience for event in history(night, "sleeps")}
