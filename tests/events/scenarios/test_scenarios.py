"""Every type of event that the account half raises, on a real Kafka: raised with its values, and not raised."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from agents.events.invoice_timers import RULES_KEY, RulesRow
from streams.codec.rows import row_decoder
from streams.core.catalogue import CATALOGUE
from streams.core.event_rules import EventRule
from streams.core.events import Event
from streams.core.routing import Route, RouteAudience
from tests.core.billing import created
from tests.events.scenarios.stage import Stage, Step
from tests.events.scenarios.table import END, RULES, SCENARIOS, Scenario, account, at, invoice
from tests.support.brokers import private
from tests.support.kafka_io import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

#: Types of the usage half and of the dispatch worker: they have scenarios of their own where they are raised.
ELSEWHERE = ("contract", "sim", "bucket", "usage", "subscription")
RAISED = [type for type, known in CATALOGUE.items() if known.raised and type.partition(".")[0] not in ELSEWHERE]
ROUTES = (
    Route(name="all", event_types=tuple(RAISED), queues=("operations",), audience=RouteAudience.ALL),
    Route(name="customers", event_types=tuple(RAISED), queues=("customer-events",)),
)


@dataclass
class Played:
    """What the worker made of all scenarios; events by (account or bill run, type), in their order."""

    stage: Stage
    events: dict[tuple[str, str], list[Event]]
    customers: set[str]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """All scenarios at once, on one worker."""
    directory = tmp_path_factory.mktemp("scenarios")
    with private(directory / "stack") as address:
        stage = Stage(address, directory)
        try:
            stage.start(ROUTES, RULES)
            stage.play([step for scenario in SCENARIOS for step in scenario.steps], END)
            found: dict[tuple[str, str], list[Event]] = defaultdict(list)
            for event in stage.events("operations"):
                found[event.key, event.type].append(event)
            yield Played(stage, found, {event.event_id for event in stage.events("customer-events")})
        finally:
            killed = stage.close()
        assert killed == []


@pytest.mark.parametrize("type", RAISED)
def test_every_type_has_a_scenario_in_which_it_is_raised_and_one_in_which_it_is_not(type: str) -> None:
    """Whoever adds a type to the catalogue adds its scenarios."""
    found = [bool(scenario.expect) for scenario in SCENARIOS if scenario.type == type]

    assert set(found) == {True, False}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_scenario(played: Played, scenario: Scenario) -> None:
    """Type, subject, facts, states, and the values of all its default parameters; or nothing."""
    events = sorted(played.events[scenario.id, scenario.type], key=lambda event: event.occurred_at)

    assert [(event.subject_kind, event.subject_id, event.occurred_at) for event in events] == [
        (*expected.subject, expected.at) for expected in scenario.expect
    ]
    for event, expected in zip(events, scenario.expect, strict=True):
        known = CATALOGUE[event.type]
        assert event.facts == expected.facts
        assert event.parameters == expected.parameters
        assert set(event.parameters) == set(known.defaults)
        assert set(event.missing) == set(expected.missing)
        assert event.audience is (expected.audience or known.audience)
        assert (event.event_id in played.customers) == (event.audience == "customer")
        for state, wanted in ((event.previous, expected.previous), (event.current, expected.current)):
            assert (state is None) == (wanted is None) or wanted is None
            assert wanted is None or (state or {}).items() >= wanted.items()


def test_a_rule_that_is_changed_moves_what_is_pending_without_a_restart(played: Played) -> None:
    """On the running worker: saved by a command, followed by the next tick; the event comes at the new instant."""
    stage, id = played.stage, "rule-moves"
    sent = END + timedelta(days=1)
    stage.play(
        [Step(at=sent, value=created(account(id))), at(sent, created(invoice(id, delivered_at=sent)))],
        sent + timedelta(hours=1),
    )
    stage.write("config.event-rules", {"night": EventRule(name="night", days=3, at="04:00"), "unpaid": None})
    decode, now = row_decoder(RulesRow), stage.ticks[-1]

    def followed() -> bool:
        nonlocal now
        now += timedelta(seconds=1)
        stage.play([], now)
        rows = [decode(value) for key, value in stage.rows(RULES_KEY)]
        return len(rows) == 4 and all(
            row.cursor is None and [taken.rule.days for taken in row.rules] == [3] for row in rows
        )

    wait_until(followed, "all partitions have taken over the rules")
    stage.play([], sent + timedelta(days=20))

    moved = datetime(2019, 4, 24, 2, tzinfo=UTC)  # 04:00 in Berlin's summer, three days after the 21st
    events = [event for event in stage.events("operations") if event.key == id and event.type.endswith("_plus")]
    assert [(event.facts["rule"], event.occurred_at) for event in events] == [("night", moved)]
