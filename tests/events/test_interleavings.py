"""Whatever the interleaving across partitions: the same set of event ids, of every type, from every input topic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agents.sources.rows import ROWS
from streams.core.catalogue import CATALOGUE
from streams.core.delivery.endpoint import Health, Notice
from streams.core.operations import disabled, failing
from streams.core.routing import Route, RouteAudience
from streams.core.sources import DataSource, SourceRow
from streams.core.usage.objects import Sim
from streams.topics import REQUESTS
from tests.core.billing import created
from tests.events.engine import Chance, Engine, InOrder, Input
from tests.events.scenarios import table
from tests.events.scenarios.stage import BILL_RUN, PRODUCTS, RATE_PLANS, Step
from tests.events.works import Shelf
from tests.plan_changes.makers import a_request
from tests.usage.makers import a_contract, changed, on, removed
from tests.usage.scenarios import test_scenarios as usage_table

#: What time decides, and what says something of it afterwards. Which side of a tick a record is on may matter to them.
OF_TIME = {
    "invoice.overdue", "invoice.delivered_plus", "sim.dormant", "sim.active_again", "contract.under_commit",
    "contract.commit_met",
}  # fmt: skip
#: As they are now: calculations of other tests may declare more.
TYPES = {type for type, known in CATALOGUE.items() if known.raised}
ROUTE = Route(name="all", event_types=tuple(sorted(TYPES)), queues=("operations",), audience=RouteAudience.ALL)
SEGMENT = DataSource(name="crm_segment", object="account", fields={"tier": "string"})


def lives() -> list[Step]:
    """What the scenarios leave out: updates and ends of what is kept by service, pools, notices of endpoints."""
    id = "lives"
    sim = Sim(id=f"{id}-SIM", account_id=id, service_id=f"{id}-S", activated_at=on(0))
    bucket = usage_table.bucket(id)
    contract = a_contract(100, id=f"{id}-K", account_id=id)
    steps: list[Step] = [
        *usage_table.world(id, sim=False),
        *(
            usage_table.at(day, change)
            for one, other in (
                (sim, replace(sim, msisdn="4915550199")),
                (bucket, replace(bucket, name="More data")),
                (contract, replace(contract, name="Ships")),
            )
            for day, change in ((1, changed(one)), (2, changed(other, 2, 2, one)), (3, removed(other, 3, 3)))
        ),
    ]
    health = Health(
        subscription_id="s1", subscription="crm", version=1, failures=9, failing_since_ms=1, last_reason="503"
    )
    for notice, percent in ((failing, 50), (failing, 90), (disabled, 100)):
        steps.append(Step(at=on(percent / 10), value=notice(Notice(health=health, percent=percent, at_ms=percent))))
    for number in range(6):  # a pool over services whose usage comes from several partitions
        service = f"fleet-S{number}"
        steps += (usage_table.usage("fleet", 2 + number, 30, bucket_id="fleet-B", pooled=True, service_id=service),)
    steps.append(usage_table.at(5, changed(replace(usage_table.bucket("fleet"), service_id=None))))
    return steps


def requests_and_rows() -> Iterator[Input]:
    """What raises nothing, and may not keep anything else from being raised."""
    encode = Engine.codec.encode
    for number, account in enumerate(("lives", "never", "paused")):
        row = SourceRow(source="crm_segment", key=account, account_id=account, version=1, fields={"tier": "gold"})
        request = a_request(f"R{number}", account_id=account, service_id=f"{account}-S")
        for topic, value in ((ROWS, row), (REQUESTS, request)):
            yield Input(at=on(number), topic=topic, key=account, value=encode(topic, value))


def inputs() -> list[Input]:
    """Everything that the scenarios of both halves send, and more, in the order of its instants."""
    steps: list[Any] = [
        Step(at=table.T0, value=created(BILL_RUN)),
        *(step for scenario in table.SCENARIOS for step in scenario.steps),
        *(step for scenario in usage_table.SCENARIOS for step in scenario.steps),
        *lives(),
    ]
    encode = Engine.codec.encode
    made = [Input(at=one.at, topic=one.topic, key=one.key, value=encode(one.topic, one.value)) for one in steps]
    return sorted([*made, *requests_and_rows()], key=lambda one: one.at)


INPUTS = inputs()
#: The play's clock: each instant at which something is sent, and then now and then until nothing is due any more.
TICKS = sorted(
    {one.at for one in INPUTS}
    | {table.BREACHED, table.BREACHED + timedelta(days=30), table.END}
    | {on(day) for day in range(0, 100, 10)}
)


def engine(chance: Chance) -> Engine:
    """Both workers; catalogue and configuration are known before."""
    catalogue = Shelf()
    for kind, objects in (("product", PRODUCTS), ("rate_plan", RATE_PLANS), ("bill_run", (BILL_RUN,))):
        for one in objects:
            catalogue.put(kind, one.id, one)
    for rule in (*table.RULES, *usage_table.RULES):
        catalogue.put("event_rule", rule.name, rule)
    catalogue.put("source", SEGMENT.name, SEGMENT)
    return Engine((ROUTE,), catalogue, chance)


def without_time(chance: Chance) -> Engine:
    """All of the input is there at once, and no tick ever comes."""
    made = engine(chance)
    made.send(INPUTS)
    made.drain()
    return made


def in_time(chance: Chance) -> Engine:
    """Between two ticks all is read that was sent there."""
    made, coming = engine(chance), list(INPUTS)
    for now in TICKS:
        size = sum(one.at <= now for one in coming)
        made.send(coming[:size])
        del coming[:size]
        made.drain()
        made.tick(now)
    return made


@cache
def quiet() -> Engine:
    return without_time(InOrder())


@cache
def quiet_in_time() -> Engine:
    return in_time(InOrder())


def test_the_input_has_every_topic_and_raises_every_type() -> None:
    """Whoever adds a type or a topic adds what raises it, or the properties below would say nothing about it."""
    manifest = Engine.manifest
    read = {topic.name for app in ("events", "usage") for topic in manifest.read_by(app)} - {"clock.ticks"}
    between = {topic for topic in read if manifest.topics[topic].writer in ("events", "usage")}

    assert quiet().reads == read
    assert {one.topic for one in INPUTS} == read - between
    assert {type for type, _ in quiet().raised} == TYPES - OF_TIME
    assert {type for type, _ in quiet_in_time().raised} == TYPES
    assert quiet().dead == quiet_in_time().dead == []


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from((0.0, 0.1)))
def test_any_interleaving_across_partitions_gives_the_same_ids(seed: int, kill: float) -> None:
    """Usage before its bucket, an invoice before its account, a completed bill run far behind: chunks of any size, in
    any order of the partitions, some of them twice because the worker was killed. A partition keeps its order."""
    made = without_time(Chance(seed, kill))

    assert set(made.raised) == set(quiet().raised)
    assert made.dead == []
    if not kill:
        assert set(made.raised.values()) == {1}


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from((0.0, 0.1)))
def test_the_same_ticks_give_the_same_ids_of_every_type(seed: int, kill: float) -> None:
    """What time decides as well: the interleaving between two ticks does not matter, nor who is killed."""
    assert set(in_time(Chance(seed, kill)).raised) == set(quiet_in_time().raised)


def test_all_topics_read_again_by_workers_that_know_them_raise_nothing_new() -> None:
    """Offsets that were lost: everything comes once more, after the last tick."""
    made = in_time(Chance(1))
    before = set(made.raised)

    made.rewind()
    made.drain()
    made.tick(TICKS[-1])

    assert set(made.raised) == before
