"""SIMs and buckets that move, leave and come back; what time looks at more than once in one run."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from streams.core.errors import Poison
from streams.core.events import Finding
from streams.core.usage.desk import Desk, rebuild
from streams.core.usage.dormancy import MAX_SIMS
from streams.core.usage.objects import BucketChange, Meter, SimChange
from streams.core.usage.rows import LINE, line_key, meter_key, unpack_line, uses_prefix
from tests.usage.makers import (
    RETENTION,
    Partition,
    a_bucket,
    a_contract,
    a_sim,
    a_state,
    changed,
    on,
    removed,
    some_usage,
)


def _take(partition: Partition, change: SimChange | BucketChange, *keys: str) -> None:
    """One change that comes under several keys of one partition, in this order."""
    for key in keys:
        rows = partition.overlay()
        desk = Desk(rows, partition.index, partition.setup, partition.now)
        list(desk.sim(change, key) if isinstance(change, SimChange) else desk.bucket(change, key))
        partition.apply(rows)


def _types(findings: list[Finding]) -> list[str]:
    return [finding.type for finding in findings]


def test_a_contract_is_closed_again_after_two_looks_in_one_run() -> None:
    """Two periods are overdue at one tick, as after an outage: the next ones are judged all the same."""
    partition = Partition()
    partition.tick(on(0))
    partition.take(changed(a_contract(100)))

    first = partition.tick(on(70))
    assert [one.facts["period_starts_on"] for one in first] == [date(2026, 3, 1), date(2026, 4, 1)]
    assert partition.index.next_at() == rebuild(partition.overlay(), partition.setup.rules, RETENTION).next_at()
    assert _types(partition.tick(on(95))) == ["contract.under_commit"]


def test_a_contract_with_many_old_records_is_closed_again() -> None:
    """They expire in more than one step."""
    partition = Partition()
    partition.tick(on(0))
    partition.take(changed(a_contract(10_000)))
    partition.take(*(some_usage(1 + n / 2000, id=f"U{n}", contract_id="K1", service_id="S1") for n in range(700)))

    found = [one for day in range(2, 130) for one in partition.tick(on(day))]

    assert [one.facts["period_starts_on"] for one in found] == [date(2026, month, 1) for month in (3, 4, 5, 6)]


def test_usage_of_a_service_whose_dormant_sim_has_left_says_nothing_of_it() -> None:
    """It has no state that could be told, and no record may stop the worker."""
    partition = Partition()
    partition.tick(on(0))
    partition.take(a_state(1, 0, "Active"))
    sim = a_sim()
    partition.take(changed(sim))
    assert _types(partition.tick(on(31))) == ["sim.dormant"]

    partition.take(removed(sim, 2, 32))

    assert partition.take(some_usage(33)) == []


def test_a_bucket_that_moves_within_a_partition_arrives_whatever_comes_first() -> None:
    """Its change comes under both keys, with one revision."""
    for keys in (("S1", "S2"), ("S2", "S1")):
        partition = Partition()
        partition.tick(on(0))
        bucket = a_bucket()
        partition.take(changed(bucket))

        _take(partition, changed(a_bucket(service_id="S2"), 2, 1, previous=bucket), *keys)

        found = partition.take(some_usage(2, 500, service_id="S2", bucket_id="B1"))
        assert set(_types(found)) == {"usage.threshold_exceeded"}


def test_a_sim_that_was_away_begins_anew_when_it_comes_back() -> None:
    """What was known of its first stay says nothing of the time in which it was used elsewhere."""
    partition = Partition()
    partition.tick(on(0))
    partition.take(a_state(1, 0, "Active"))
    sim, away = a_sim(), a_sim(service_id="S2")
    partition.take(changed(sim))
    partition.take(some_usage(1, sim_id=sim.id))
    _take(partition, changed(away, 2, 2, previous=sim), "S1", "S2")
    partition.take(a_state(1, 0, "Active", service_id="S2"))
    for day in range(2, 60):
        assert partition.tick(on(day)) == []
        partition.take(some_usage(day + 0.5, sim_id=sim.id, service_id="S2"))

    _take(partition, changed(a_sim(), 3, 60, previous=away), "S2", "S1")

    assert [*partition.tick(on(60)), *partition.tick(on(61))] == []
    assert _types(partition.tick(on(91))) == ["sim.dormant"]


def test_a_contract_of_long_ago_that_is_brought_in_is_judged_from_what_can_be_known_on() -> None:
    """Its periods before the retention had usage that nobody sent here: they are no commitments that were not met."""
    partition = Partition()
    partition.tick(on(400))
    partition.take(changed(a_contract(100), day=-400))

    found = [one for day in range(401, 470) for one in partition.tick(on(day))]

    assert found
    assert min(one.facts["period_ends_on"] for one in found) >= (on(400) - RETENTION).date()


def test_sims_that_are_swapped_for_ever_make_no_fleet() -> None:
    """The ones that left first are forgotten, with their usage."""
    partition = Partition()
    for number in range(MAX_SIMS + 5):
        sim = a_sim(id=f"SIM-{number:03}")
        partition.take(changed(sim, day=number), some_usage(number, sim_id=sim.id), removed(sim, 2, day=number))

    line = unpack_line(partition.store.get(line_key("S1").encode()) or b"")

    assert len(line.sims) == MAX_SIMS
    assert "SIM-000" not in line.sims
    assert f"SIM-{MAX_SIMS + 4:03}" in line.sims


def test_usage_of_one_sim_too_many_is_told_and_counts_for_its_bucket() -> None:
    """What was used was used, whichever SIM it was."""
    partition = Partition()
    partition.take(changed(a_bucket()), some_usage(1, id="any"))
    for number in range(MAX_SIMS):
        sim = a_sim(id=f"SIM-{number}")
        partition.take(changed(sim), some_usage(1, id=sim.id, sim_id=sim.id))
    rows = partition.overlay()
    desk = Desk(rows, partition.index, partition.setup, partition.now)

    with pytest.raises(Poison, match="too_many_sims"):
        partition.take(changed(a_sim(id="SIM-more")))
    with pytest.raises(Poison, match="too_many_sims"):
        list(desk.usage(some_usage(1, 7, id="U1", sim_id="SIM-more", bucket_id="B1"), 1_000))
    partition.apply(rows)

    [tally] = partition.row(Meter.BUCKET, "B1").tallies
    assert tally.quantities == {"MB": Decimal(7)}


def test_a_record_never_outlives_its_meter_row() -> None:
    """A crash between the two must not leave a record that is known, and that nobody would ever forget."""
    partition = Partition()
    rows = partition.overlay()

    list(Desk(rows, partition.index, partition.setup, on(1)).usage(some_usage(1, bucket_id="B1"), 0))

    meter, use = (key for key in rows.writes if not key.startswith(LINE.encode()))
    assert meter == meter_key(Meter.BUCKET, "B1").encode()
    assert use.startswith(uses_prefix(Meter.BUCKET, "B1"))
