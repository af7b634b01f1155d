"""The usage worker's agent: keys, dead letters, slices, rules that change, crashes, what goes on to the accounts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import usage as agent
from agents.timers import SLICE, SLICES_PER_BATCH
from streams.core.clock import NextDue
from streams.core.events import Finding
from streams.core.usage.objects import BucketChange, SimChange
from tests.usage.makers import (
    a_bucket,
    a_contract,
    a_rule,
    a_sim,
    a_state,
    changed,
    on,
    some_usage,
    types,
)
from tests.usage.works import Works

ACTIVE = a_state(1, 0, "Active")


def a_fleet(works: Works, services: int) -> None:
    """So many services, each with a SIM."""
    numbers = range(services)
    works.feed(*(a_state(1, 0, "Active", service_id=f"S{n}") for n in numbers))
    works.feed(*(changed(a_sim(id=f"sim-{n}", service_id=f"S{n}")) for n in numbers))


def next_due(works: Works) -> Any:
    [*_, last] = [one for one in works.lane.sent if one.topic == "clock.due"]
    return works.codec.decode(last.value, NextDue).due


def test_findings_and_changes_go_to_the_account() -> None:
    """Detected where the data is, enriched where the account is."""
    works = Works()
    works.feed(ACTIVE)
    [sim] = works.feed(changed(a_sim()))
    [bucket] = works.feed(changed(a_bucket()))
    [finding] = works.feed(some_usage(1, 100, bucket_id="B1"))

    keys = {one.topic: one.key for one in works.lane.sent}
    assert (type(sim), type(bucket), type(finding)) == (SimChange, BucketChange, Finding)
    assert keys == {"usage.sims": "A1", "usage.buckets": "A1", "events.findings": "A1"}


def test_an_older_change_goes_nowhere() -> None:
    """The account's partition would not want it either."""
    works = Works()
    works.feed(changed(a_sim(), 3))

    assert works.feed(changed(a_sim(), 2)) == []


def test_one_bad_record_is_put_aside_and_the_others_count() -> None:
    """Wrong key, nonsense, too late: each with its reason."""
    works = Works()
    works.feed(changed(a_bucket()))
    works.tick(on(100))
    good = works.codec.encode("billing.usage", some_usage(99, 100, bucket_id="B1"))
    late = works.codec.encode("billing.usage", some_usage(2, 100, bucket_id="B1"))
    ahead = works.codec.encode("billing.usage", some_usage(900))
    records = works.lane.chunk("billing.usage", [("S1", b"?"), ("A1", good), ("S1", late), ("S1", ahead), ("S1", good)])

    found = works.replay(records)

    assert types([one for one in found if isinstance(one, Finding)]) == ["usage.threshold_exceeded"]
    reasons = [dict(one.headers or ())["curfew-reason"] for one in works.dead]
    assert reasons == [b"not_avro", b"wrong_key", b"too_late", b"in_the_future"]


def test_usage_of_a_pool_and_a_contract_goes_on_to_both() -> None:
    """One record, three places."""
    works = Works()
    works.feed(changed(a_bucket(service_id=None)))
    works.feed(changed(a_contract(500)))
    works.feed(some_usage(1, 120, bucket_id="B1", pooled=True, contract_id="K1"))
    works.tick(on(31))

    keys = [one.key for one in works.lane.sent if one.topic == "usage.shares"]
    assert keys == ["B1", "K1"]
    assert types(works.told) == ["usage.threshold_exceeded", "contract.under_commit"]
    assert works.told[1].facts["shortfall"] == 380


def test_the_clock_is_told_when_to_come_back() -> None:
    """The virtual clock goes straight there; at once when something is due already."""
    works = Works()
    works.feed(ACTIVE)
    works.feed(changed(a_sim()))
    works.tick(on(1))
    first = next_due(works)
    works.tick(on(50))
    works.feed(changed(a_sim(id="8955-2")))

    assert first == on(30)
    assert next_due(works) == on(50) + agent.AT_ONCE


def test_a_rule_that_gets_shorter_counts_at_the_next_tick_without_a_restart() -> None:
    """What is due is derived again."""
    works = Works()
    works.feed(ACTIVE)
    works.feed(changed(a_sim()))
    assert works.tick(on(10)) == []

    works.rule(a_rule(5))

    assert types(works.tick(on(10.1))) == ["sim.dormant"]


def test_with_the_walls_clock_a_midnight_is_worked_off_over_ticks() -> None:
    """A million SIMs of one midnight must not keep a partition from its records for minutes."""
    works = Works(virtual=False)
    services = SLICE * SLICES_PER_BATCH + 7
    a_fleet(works, services)

    assert len(works.tick(on(30))) == SLICE * SLICES_PER_BATCH
    assert len(works.tick(on(30.1))) == 7
    assert len({one.event_id for one in works.told}) == services


@pytest.mark.parametrize("slice", [1, 2])
@pytest.mark.parametrize("outputs", [0, 1, 300])
def test_a_crash_in_due_work_tells_each_sim_once_by_id(slice: int, outputs: int) -> None:
    """Between any two points of durability: what was decided is told, though late usage comes before the next tick."""
    works = Works()
    a_fleet(works, 600)
    works.tick(on(30), crash_after_outputs=outputs, crash_in_slice=slice)
    told = {one.subject_id for one in works.told}

    late = some_usage(20, id="late", service_id="S599", sim_id="sim-599")
    found = works.feed(late)
    works.tick(on(30))
    again = [one for one in works.told if one.type == "sim.active_again"]

    assert {one.subject_id for one in works.told} | {"sim-599"} == {f"sim-{n}" for n in range(600)}
    assert len({one.event_id for one in works.told if one.type == "sim.dormant"}) in (599, 600)
    dormant = "sim-599" in {one.subject_id for one in works.told if one.type == "sim.dormant"}
    assert (len(again) == 1) == dormant, (told, found)
    assert list(works.lane.store.scan(b"redo/")) == []


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_became_durable_of_a_slice_what_the_world_was_told_is_in_the_rows(data: st.DataObject) -> None:
    """Rows of a slice of due work break off anywhere: after the restart late usage corrects exactly what was told."""
    works = Works()
    a_fleet(works, 5)
    works.lane.now = on(30)
    [tick] = works.lane.chunk("clock.ticks", [(None, b"")])
    lane = works.lane
    steps = works.work.ticks(batch := lane._batch("clock.ticks", [tick]))
    stage = data.draw(st.integers(0, 1))
    for _ in range(stage):  # the first point of durability is passed
        next(steps)
        lane.sent += batch.outputs
        batch.outputs.clear()
        lane.store.write(batch.rows.writes.items(), None)
        batch.rows.clear()
    next(steps, None)
    writes = list(batch.rows.writes.items())
    kept = data.draw(st.integers(0, len(writes)))
    if kept or data.draw(st.booleans()):  # rows come after outputs
        lane.sent += batch.outputs
    lane.store.write(writes[:kept], None)
    lane.reopen()

    late = [some_usage(20, id=f"late-{n}", service_id=f"S{n}", sim_id=f"sim-{n}") for n in range(5)]
    works.feed(*late)
    works.tick(on(31))

    dormant = {one.subject_id for one in works.told if one.type == "sim.dormant"}
    again = {one.subject_id for one in works.told if one.type == "sim.active_again"}
    assert dormant == again


def test_a_definition_that_is_too_large_for_its_rows_is_put_aside() -> None:
    """A row or finding that Kafka refuses would stop the worker for good."""
    works = Works()
    works.feed(changed(a_bucket(name="n" * agent.MAX_RECORD_BYTES)))
    works.feed(changed(replace(a_bucket(), name="fits")))

    assert [dict(one.headers or ())["curfew-reason"] for one in works.dead] == [b"too_large"]


def test_a_contract_with_all_tiers_under_is_told_in_one_slice() -> None:
    """A hundred findings of one row."""
    works = Works()
    works.feed(changed(a_contract(*range(1, 101), name="n" * 10_000)))

    found = works.tick(on(31))

    assert len(found) == 100
    assert list(works.lane.store.scan(b"redo/")) == []
