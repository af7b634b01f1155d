"""Buckets, pools and contracts: the rules by example, and all of them against sums made anew from every record."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.errors import Poison
from streams.core.ids import event_id, instant_text
from streams.core.usage.desk import Desk
from streams.core.usage.objects import Bucket, CommitTier, Meter, PeriodRule, UsageShare
from tests.usage.makers import (
    MARCH,
    RETENTION,
    Partition,
    a_bucket,
    a_contract,
    changed,
    on,
    removed,
    some_usage,
    types,
)


def use(day: float, quantity: float | str = 1, **fields: Any) -> Any:
    return some_usage(day, quantity, **{"bucket_id": "B1", **fields})


def tiers(findings: list[Any]) -> list[int]:
    assert {one.type for one in findings} <= {"usage.threshold_exceeded"}
    return [one.facts["tier"] for one in findings]


# -- buckets ----------------------------------------------------------------------------------------------------------


def test_a_tier_is_raised_when_it_is_used_up() -> None:
    """With all that a message to the customer says."""
    partition = Partition()
    partition.take(changed(a_bucket()))

    assert partition.take(use(1, 60), use(2, "39.999999")) == []
    [found] = partition.take(use(3, "0.000001"))

    assert (found.type, found.subject_id, found.account_id) == ("usage.threshold_exceeded", "B1", "A1")
    assert found.occurred_at == on(3)
    assert found.current["name"] == "Data"
    assert found.facts == {
        "tier": 1,
        "tiers": 2,
        "tier_amount": Decimal(100),
        "threshold": Decimal(100),
        "used": Decimal("100.000000"),
        "usage_id": "u-3-0.000001",
        "period_start": on(0),
        "period_end": on(31),
        "period_starts_on": date(2026, 3, 1),
        "period_ends_on": date(2026, 4, 1),
        "late": False,
    }


def test_one_record_over_several_tiers_raises_each_in_order() -> None:
    """Each subscriber sees tier 1 before tier 2."""
    partition = Partition()
    partition.take(changed(a_bucket()))

    found = partition.take(use(1, 1000))

    assert tiers(found) == [1, 2]
    assert [one.facts["threshold"] for one in found] == [100, 150]


def test_corrections_lower_the_count_and_raise_nothing_again() -> None:
    """A tier was used up once; used up again after a correction, it is no news."""
    partition = Partition()
    partition.take(changed(a_bucket()))

    assert tiers(partition.take(use(1, 120))) == [1]
    assert partition.take(use(2, -60), use(3, 60)) == []
    assert tiers(partition.take(use(4, 29), use(5, 1))) == [2]


def test_a_record_that_comes_twice_counts_once() -> None:
    """By its id, whatever else has come between."""
    partition = Partition()
    partition.take(changed(a_bucket()))

    assert partition.take(use(1, 60), use(2, 1), use(1, 60)) == []
    assert partition.row(Meter.BUCKET, "B1").tallies[0].quantities == {"MB": Decimal(61)}


def test_a_new_period_begins_at_zero_and_late_usage_counts_in_its_own() -> None:
    """Usage of March that comes in April."""
    partition = Partition()
    partition.take(changed(a_bucket()), use(30, 90), use(33, 90), on(35))

    [late] = partition.take(use(29, 10))

    assert (late.facts["period_starts_on"], late.facts["late"], late.occurred_at) == (date(2026, 3, 1), True, on(29))
    assert tiers(partition.take(use(34, 10))) == [1]


def test_what_is_carried_over_is_used_first_and_only_in_its_period() -> None:
    """Billing carries 40 into April; May begins without."""
    partition = Partition()
    partition.take(changed(a_bucket()))
    carried = a_bucket(carried_over=Decimal(40), carried_into=date(2026, 4, 1))
    partition.take(changed(carried, 2, day=30.9))  # a little before the period: March must not lose its own

    assert tiers(partition.take(use(30.95, 100))) == [1]
    april = partition.take(use(32, 139), use(33, 1))
    assert [(one.facts["threshold"], one.facts["used"]) for one in april] == [(140, 140)]
    assert tiers(partition.take(use(62, 100))) == [1]


def test_usage_of_before_its_bucket_raises_what_it_would_have_raised_one_by_one() -> None:
    """A tier that was used up for a moment, before a correction, is raised too."""
    records = [use(1, 110), use(2, -50), use(3, 20)]
    early, late = Partition(), Partition()
    early.take(changed(a_bucket()), *records)
    late.take(*records, changed(a_bucket()))

    assert late.told == early.told
    assert _sums(late.row(Meter.BUCKET, "B1")) == _sums(early.row(Meter.BUCKET, "B1"))


def test_a_bucket_of_another_unit_does_not_count_it() -> None:
    """Messages are no megabytes."""
    partition = Partition()
    partition.take(changed(a_bucket()))

    assert partition.take(use(1, 1000, unit="SMS")) == []


def test_other_tiers_count_from_the_period_in_which_they_were_agreed() -> None:
    """A smaller bucket in April does not make March used up, nor does it forget what was raised in April."""
    partition = Partition()
    partition.take(changed(a_bucket()), use(10, 60), use(32, 60))

    found = partition.take(changed(a_bucket(tiers=(Decimal(50), Decimal(50))), 2, day=40))
    more = partition.take(use(11, 1), use(41, 40))

    assert [(one.facts["period_starts_on"], one.facts["usage_id"]) for one in found] == [(date(2026, 4, 1), None)]
    assert [(one.facts["tier"], one.facts["period_starts_on"]) for one in more] == [(2, date(2026, 4, 1))]


def test_other_periods_are_counted_anew_from_what_was_used() -> None:
    """The bill day moves from the 1st to the 15th while the period runs."""
    partition = Partition()
    partition.take(changed(a_bucket()), use(2, 60), use(20, 60), use(21, 10))
    assert tiers(partition.told) == [1]

    moved = PeriodRule(zone="UTC", starts_on=date(2026, 2, 15), months=1)
    assert partition.take(changed(a_bucket(period=moved), 2, day=22)) == []
    [found] = partition.take(use(23, 30))

    assert found.facts["period_starts_on"] == date(2026, 3, 15)
    assert found.facts["used"] == 100


def test_pooled_usage_counts_by_its_bucket_and_not_by_its_service() -> None:
    """Two services of one account use up one pool."""
    partition = Partition()
    partition.take(changed(a_bucket(service_id=None)))

    found = partition.take(
        use(1, 60, id="a", service_id="S1", pooled=True), use(2, 60, id="b", service_id="S2", pooled=True)
    )

    assert tiers(found) == [1]
    assert found[0].current["service_id"] is None
    assert partition.row(Meter.BUCKET, "B1") is None


def test_a_deleted_bucket_raises_nothing() -> None:
    """And one that comes back goes on counting."""
    partition = Partition()
    partition.take(changed(a_bucket()), removed(a_bucket(), 2))
    assert partition.take(use(1, 120)) == []

    assert tiers(partition.take(changed(a_bucket(), 3))) == [1]


def test_usage_beyond_the_retention_is_put_aside_and_not_counted() -> None:
    """It could not be told from a duplicate any more."""
    partition = Partition()
    partition.take(changed(a_bucket()), on(100))

    with pytest.raises(Poison, match="too_late.*usage_retention_days"):
        partition.take(use(100 - RETENTION.days - 1))
    partition.take(use(100 - RETENTION.days + 1))


def test_rows_of_usage_are_deleted_after_the_retention_and_sums_stay() -> None:
    """A period of a year goes on counting when its first records are forgotten."""
    year = PeriodRule(zone="UTC", starts_on=date(2026, 1, 1), months=12)
    partition = Partition()
    partition.take(changed(a_bucket(period=year)), *(use(day, 1) for day in range(20)), on(100))
    left = [key for key, _ in partition.store.scan(b"use/")]

    assert left == []
    assert partition.row(Meter.BUCKET, "B1").tallies[0].quantities == {"MB": Decimal(20)}
    extended = replace(year, ends_on=date(2028, 1, 1))
    partition.take(changed(a_bucket(period=extended), 2, day=100))
    assert tiers(partition.take(use(99, 80))) == [1]


def test_periods_that_nothing_can_reach_any_more_are_forgotten() -> None:
    """The row of a bucket does not grow with the years; a bucket that nobody defines leaves nothing."""
    partition = Partition()
    partition.take(changed(a_bucket()))
    for month in range(8):
        partition.take(use(month * 30 + 5, 1), use(month * 30 + 5, 1, bucket_id="B2"), on(month * 30 + 6))
    partition.take(on(400))

    assert partition.row(Meter.BUCKET, "B1").tallies == ()
    assert partition.row(Meter.BUCKET, "B1").oldest is None
    assert list(partition.store.scan(b"use/")) == []
    assert partition.index.next_at() is None


@pytest.mark.parametrize(
    ("key", "outcome"), [("S1", "counts"), ("S0", "counts no more"), ("B1", "wrong key"), ("S7", "wrong key")]
)
def test_a_bucket_that_moves_is_taken_under_both_keys_and_no_other(key: str, outcome: str) -> None:
    """Otherwise the old service would go on using it up."""
    partition = Partition()
    partition.take(changed(a_bucket(service_id=key)), use(1, 90, service_id=key))
    move = changed(a_bucket(), 2, previous=a_bucket(service_id="S0"))
    rows = partition.overlay()
    desk = Desk(rows, partition.index, partition.setup, None)

    if outcome == "wrong key":
        with pytest.raises(Poison, match="wrong_key"):
            list(desk.bucket(move, key))
        return
    effects = list(desk.bucket(move, key))
    partition.apply(rows)

    assert (move in effects) == (outcome == "counts")
    assert len(partition.take(use(2, 20, service_id=key))) == (outcome == "counts")


def test_sums_are_exact_however_large() -> None:
    """Thirty-eight digits and a millionth; Python's own context would round."""
    partition = Partition()
    partition.take(changed(a_bucket(tiers=(Decimal("99999999999999999999999999999999"),))))

    assert partition.take(use(1, "99999999999999999999999999999998"), use(2, "0.999999")) == []
    assert tiers(partition.take(use(3, "0.000001"))) == [1]


# -- contracts --------------------------------------------------------------------------------------------------------


def contracted(day: float, quantity: float | str = 1, **fields: Any) -> Any:
    return some_usage(day, quantity, **{"contract_id": "K1", **fields})


def test_a_period_below_a_commit_tier_is_raised_at_its_close_per_tier() -> None:
    """The tier that is met is not; with the shortfall."""
    partition = Partition()
    partition.take(changed(a_contract(50, 100, 200)), contracted(3, 60), contracted(10, 20))

    assert partition.take(on(30.99)) == []
    found = partition.take(on(31))

    assert types(found) == ["contract.under_commit"] * 2
    assert [(one.facts["tier"], one.facts["commit"], one.facts["shortfall"]) for one in found] == [
        (2, 100, 20), (3, 200, 120),
    ]  # fmt: skip
    assert found[0].occurred_at == on(31)
    assert (found[0].facts["measured"], found[0].facts["period_ends_on"]) == (80, date(2026, 4, 1))
    assert partition.take(on(40)) == []


def test_a_tier_that_is_switched_off_is_not_judged() -> None:
    """By tier."""
    off = CommitTier(commit=Decimal(100), enabled=False, name="Gold")
    contract = replace(a_contract(50, 200), tiers=(*a_contract(50).tiers, off, *a_contract(200).tiers))
    partition = Partition()
    partition.take(changed(contract))

    assert [one.facts["tier"] for one in partition.take(on(31))] == [1, 3]


def test_grace_lets_late_usage_count() -> None:
    """Judged a day and a half after the end."""
    partition = Partition()
    partition.take(changed(a_contract(50, grace_hours=36)), on(32), contracted(30, 50))

    assert partition.take(on(33)) == []


def test_late_usage_after_the_grace_corrects_what_was_told() -> None:
    """And a correction of usage can take back a commit that was met; each is told once."""
    partition = Partition()
    partition.take(changed(a_contract(50)), contracted(5, 40), on(31))
    assert types(partition.told) == ["contract.under_commit"]

    [met] = partition.take(contracted(6, 10))
    assert (met.type, met.facts["late"], met.facts["shortfall"]) == ("contract.commit_met", True, 0)
    assert partition.take(contracted(7, -30), contracted(8, 30)) == []

    other = Partition()
    other.take(changed(a_contract(50)), contracted(5, 50), on(31))
    assert other.told == []
    [under] = other.take(contracted(6, -1))
    assert (under.type, under.facts["late"], under.facts["shortfall"]) == ("contract.under_commit", True, 1)


def test_every_period_without_usage_is_under_its_commit() -> None:
    """No usage is not no news: one event per period, and none of before the contract was heard of."""
    partition = Partition()
    rule = PeriodRule(zone="UTC", starts_on=date(2025, 1, 1), ends_on=date(2026, 6, 1), months=1)
    partition.take(changed(a_contract(1, period=rule), day=10), on(500))

    months = [one.facts["period_starts_on"].month for one in partition.told]
    assert months == [3, 4, 5]
    assert len(partition.ids) == 3


@pytest.mark.parametrize(
    ("fields", "measured"),
    [
        ({"measure": "usage", "unit": "MB"}, Decimal("10.5")),
        ({"measure": "amount", "currency": "EUR"}, Decimal("3.25")),
        ({"measure": "count"}, Decimal(2)),
    ],
)
def test_a_contract_measures_usage_amount_or_count(fields: dict[str, Any], measured: Decimal) -> None:
    """Other units and currencies do not mix, and a correction takes a record back."""
    partition = Partition()
    partition.take(
        changed(a_contract(100, **fields)),
        contracted(1, "10.5", amount=Decimal("3.25"), currency="EUR"),
        contracted(2, 7, unit="SMS", amount=Decimal(8), currency="USD"),
        contracted(3, 2, unit="SMS"),
        contracted(4, -2, unit="SMS"),
        on(31),
    )

    assert [one.facts["measured"] for one in partition.told] == [measured]


def test_a_contract_that_comes_after_its_usage_judges_it() -> None:
    """From the rows of the records."""
    partition = Partition()
    partition.take(contracted(3, 60), contracted(4, 39), changed(a_contract(99, 100)), on(31))

    assert [(one.facts["tier"], one.facts["measured"]) for one in partition.told] == [(2, 99)]


def test_a_contract_that_ends_is_judged_until_its_end_and_no_longer() -> None:
    """Ended in the middle of a period: that one closes on the last day."""
    partition = Partition()
    partition.take(changed(a_contract(10)), contracted(2, 3), on(31))
    ended = replace(MARCH, ends_on=date(2026, 4, 11))
    partition.take(changed(a_contract(10, period=ended), 2, day=35))

    found = partition.take(on(300))

    assert [(one.facts["period_starts_on"], one.occurred_at) for one in found] == [(date(2026, 4, 1), on(41))]


# -- against sums made anew -------------------------------------------------------------------------------------------

ONCE = PeriodRule(zone="UTC", starts_on=date(2026, 3, 5), ends_on=date(2026, 3, 20))
LONG = PeriodRule(zone="America/Sao_Paulo", starts_on=date(2026, 2, 10), months=1)


@st.composite
def buckets(draw: st.DrawFn) -> Bucket:
    sizes = draw(st.lists(st.integers(1, 20), min_size=1, max_size=4))
    return a_bucket(
        period=draw(st.sampled_from((MARCH, LONG, ONCE))),
        tiers=tuple(Decimal(size) for size in sizes),
        service_id=draw(st.sampled_from(("S1", None))),
    )  # fmt: skip


records = st.lists(
    st.tuples(st.integers(0, 80), st.integers(-9, 15), st.sampled_from("abcdefghijklmnop")), max_size=25
)  # fmt: skip


def _stream(bucket: Bucket, drawn: list[tuple[int, int, str]]) -> list[Any]:
    """Records; some ids twice, with the same content."""
    first: dict[str, Any] = {}
    return [
        first.setdefault(id, use(half / 2, quantity, id=id, pooled=bucket.pooled, event_time=on(half / 2)))
        for half, quantity, id in drawn
    ]


def _naive(bucket: Bucket, stream: list[Any]) -> list[str]:
    """Every prefix of the stream summed from nothing, by local date."""
    told: list[str] = []
    for length in range(1, len(stream) + 1):
        sums: dict[datetime, Decimal] = defaultdict(Decimal)
        for record in {record.id: record for record in stream[:length]}.values():
            start = _start_of_period(bucket.period, record.event_time)
            if start is not None:
                sums[start] += record.quantity
        for start, total in sums.items():
            limit = Decimal(0)
            for tier, size in enumerate(bucket.tiers, 1):
                limit += size
                id = event_id("usage.threshold_exceeded", "bucket", "B1", f"{instant_text(start)} {tier}")
                if total >= limit and id not in told:
                    told.append(id)
    return told


def _start_of_period(rule: PeriodRule, at: datetime) -> datetime | None:
    """Day by day backwards to the last date on which a period starts."""
    hours = timedelta(hours=3 if rule.zone == "America/Sao_Paulo" else 0)  # no summer time there since 2019
    day = (at - hours).date()
    if day < rule.starts_on or (rule.ends_on is not None and day >= rule.ends_on):
        return None
    while day.day != rule.starts_on.day if rule.months else day != rule.starts_on:
        day -= timedelta(days=1)
    return datetime.combine(day, datetime.min.time(), at.tzinfo) + hours


@settings(max_examples=80, deadline=None)
@given(buckets(), records, st.integers(0, 25))
def test_tiers_are_those_of_sums_made_anew(bucket: Bucket, drawn: list[tuple[int, int, str]], defined: int) -> None:
    """Corrections, duplicates, late usage, any moment of the definition: same events in the same order."""
    stream = _stream(bucket, drawn)
    partition = Partition()
    partition.take(*stream[:defined], changed(bucket), *stream[defined:])

    assert [one.event_id for one in partition.told] == _naive(bucket, stream)


@settings(max_examples=100, deadline=None)
@given(
    records,
    st.sampled_from(("usage", "amount", "count")),
    st.lists(st.tuples(st.integers(-5, 40), st.booleans()), min_size=1, max_size=4),
    st.integers(0, 25),
    st.integers(0, 72),
)
def test_commitments_are_those_of_sums_made_anew(
    drawn: list[tuple[int, int, str]], measure: str, commits: list[tuple[int, bool]], defined: int, grace: int
) -> None:
    """Each tier of each period, on or off, by each measure, whenever the contract comes."""
    commit_tiers = tuple(CommitTier(commit=Decimal(commit), enabled=enabled) for commit, enabled in commits)
    contract = replace(a_contract(0, measure=measure, unit="MB", currency="EUR", grace_hours=grace), tiers=commit_tiers)
    first: dict[str, Any] = {}
    stream = [
        first.setdefault(id, contracted(half / 2, quantity, id=id, amount=Decimal(quantity) / 4, currency="EUR"))
        for half, quantity, id in drawn
    ]
    partition = Partition()
    partition.take(*stream[:defined], changed(contract), *stream[defined:], on(62) + timedelta(hours=grace))

    expected = set()
    for start, end in ((0, 31), (31, 61)):
        inside = [one for one in first.values() if on(start) <= one.event_time < on(end)]
        value = {
            "usage": sum(one.quantity for one in inside),
            "amount": sum(one.amount for one in inside),
            "count": sum(-1 if one.quantity < 0 else 1 for one in inside),
        }[measure]
        for number, (commit, enabled) in enumerate(commits, 1):
            if enabled and value < commit:
                expected.add((on(start), number, commit - value))
    assert {
        (one.facts["period_start"], one.facts["tier"], one.facts["shortfall"]) for one in partition.told
    } == expected


# -- a crash between any two rows -------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(buckets(), records, st.integers(0, 25), st.lists(st.tuples(st.integers(0, 24), st.integers(0, 30)), max_size=4))
def test_a_crash_between_any_two_rows_counts_nothing_twice_and_loses_nothing(
    bucket: Bucket, drawn: list[tuple[int, int, str]], defined: int, crashes: list[tuple[int, int]]
) -> None:
    """Chunks of records whose rows become durable up to some point; then the chunk comes again, cut elsewhere, and the
    definition may come first."""
    stream = _stream(bucket, drawn)
    reference = Partition()
    reference.take(*stream[:defined], changed(bucket), *stream[defined:])

    partition = Partition()
    told: set[str] = set()
    offsets = dict(enumerate(stream))
    plan = iter(crashes)
    position, is_defined = 0, False
    while position < len(stream) or not is_defined:
        if not is_defined and position >= min(defined, len(stream)):
            partition.take(changed(bucket))
            is_defined = True
            continue
        end = min(position + 5, len(stream) if is_defined else max(defined, position + 1))
        rows = partition.overlay()
        desk = Desk(rows, partition.index, partition.setup, None)
        for offset in range(position, min(end, len(stream))):
            record = offsets[offset]
            share = UsageShare(meter=Meter.POOL, meter_id="B1", usage=record)
            told |= {
                one.event_id  # type: ignore[union-attr]
                for one in (desk.share(share, offset) if bucket.pooled else desk.usage(record, offset))
                if not isinstance(one, UsageShare)
            }
        crash = next(plan, None)
        writes = list(rows.writes.items())
        if crash is not None:
            partition.store.write(writes[: crash[1]], None)
            if crash[0] % 2 and not is_defined:  # after the restart another topic comes first
                told |= {one.event_id for one in partition.take(changed(bucket))}
                is_defined = True
            continue
        partition.store.write(writes, None)
        position = end
    told |= partition.ids

    expected, found = (one.row(Meter.POOL if bucket.pooled else Meter.BUCKET, "B1") for one in (reference, partition))
    assert _sums(found) == _sums(expected)
    assert told == reference.ids


def _sums(row: Any) -> Any:
    if row is None:
        return {}
    return {tally.start: (tally.quantities, tally.count, sorted(tally.raised)) for tally in row.tallies}
