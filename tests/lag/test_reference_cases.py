"""The evaluator gives the answers of the programs whose rules it follows, on their own cases.

The cases lie beside the project and are read in place: they are other people's, with their licences.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streams.core.lag.rules import (
    Commit,
    Judged,
    Limits,
    Status,
    always_behind,
    first_rewind,
    judge,
    never_falls,
    recently_caught_up,
    roll_up,
    stalled,
    stopped,
)
from streams.core.lag.time import EndHistory, Unknown, time_lag
from streams.core.lag.window import Window

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def _load(name: str) -> dict[str, Any]:
    path = DATA / name
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}


BURROW, TIME_LAG = _load("burrow_cases.json"), _load("timelag_cases.json")
needs_burrow = pytest.mark.skipif(not BURROW, reason=f"no reference cases in {DATA / 'burrow_cases.json'}")
needs_time_lag = pytest.mark.skipif(not TIME_LAG, reason=f"no reference cases in {DATA / 'timelag_cases.json'}")


def _cases(found: dict[str, Any], kind: str) -> list[Any]:
    return [pytest.param(case, id=f"{kind}-{case['id']}") for case in found.get(kind, ())]


def _window(offsets: list[dict[str, Any]]) -> list[Commit]:
    return [Commit(one["offset"], one["order"], one["timestamp_ms"], one["lag"]) for one in offsets]


@needs_burrow
@pytest.mark.parametrize("case", _cases(BURROW, "partition_cases"))
def test_a_partition_is_judged_as_burrow_judges_it(case: dict[str, Any]) -> None:
    """The status, and each of the rules on its own."""
    window = _window(case["offsets"])
    limits = Limits(allowed_lag=case["allowed_lag"])
    now_ms = case["time_now_s"] * 1000

    status = judge(window, lag=case["current_lag"], now_ms=now_ms, recent_ends=case["broker_offsets"], limits=limits)

    assert {
        "status": status.name,
        "lag_always_not_zero": always_behind(window, limits.allowed_lag),
        "rewind_index": first_rewind(window),
        "offsets_stopped": stopped(window, now_ms, limits),
        "offsets_stalled": stalled(window),
        "lag_not_decreasing": never_falls(window),
        "recent_lag_zero": recently_caught_up(window, case["broker_offsets"]),
    } == case["expected"]


@needs_burrow
@pytest.mark.parametrize("case", _cases(BURROW, "storage_cases"))
def test_a_window_holds_what_burrow_holds(case: dict[str, Any]) -> None:
    """Commits out of order, too near to each other, and older than the window."""
    window = Window(intervals=10, min_distance_ms=1000)

    for one in case["inputs"]:
        window.add(one["offset"], order=one["order"], at_ms=one["timestamp_ms"], end=case["broker_offset"])

    assert window.commits == _window(case["expected_window"])


@needs_burrow
@pytest.mark.parametrize("case", _cases(BURROW, "group_cases"))
def test_a_group_is_the_worst_of_its_partitions(case: dict[str, Any]) -> None:
    """Status, completeness and sums of a group, from commits that go through a window of ours."""
    now_ms, expected = 1_700_000_000_000, case["expected"]
    window = Window(intervals=case["intervals"], min_distance_ms=1000)
    for one in case["offsets"]:
        at_ms = now_ms + one["timestamp_ms_minus_now"]
        window.add(one["offset"], order=one["order"], at_ms=at_ms, end=case["broker_offsets"][0])
    limits = Limits(allowed_lag=case["allowed_lag"])
    status = judge(
        window.commits,
        lag=case["current_lag"],
        now_ms=now_ms,
        recent_ends=case["broker_offsets"],
        limits=limits,
    )

    found = roll_up(
        [Judged(status=status, lag=case["current_lag"], complete=window.complete)], case["minimum_complete"]
    )

    assert [one.lag for one in window.commits] == [one["lag"] for one in case["offsets"]]
    assert (found.status.name, found.complete) == (expected["group_status"], expected["group_complete"])
    assert (found.total_lag, expected["partition_count"]) == (expected["totallag"], 1)
    assert found.not_ok == expected.get("partitions_not_ok", 1)
    assert status.name == expected.get("partition_status", "OK")
    assert window.complete == expected.get("partition_complete", 1.0)
    assert found.max_lag_at == 0
    ends = window.commits[0].offset, window.commits[-1].offset
    assert ends == (expected.get("maxlag_start_offset", ends[0]), expected.get("maxlag_end_offset", ends[1]))


@needs_burrow
def test_the_status_codes_are_those_of_burrow() -> None:
    """Dashboards compare numbers."""
    assert {one.name: one.value for one in Status} == BURROW["status_codes"]


@needs_time_lag
@pytest.mark.parametrize("case", _cases(TIME_LAG, "lookup_table_cases"))
def test_an_instant_is_looked_up_as_kafka_lag_exporter_does(case: dict[str, Any]) -> None:
    """Interpolation, flat stretches, points that make no sense, and what lies outside of the points."""
    history = EndHistory(case["size"], distance=0)
    lengths = {}
    for number, (offset, at) in enumerate(case["adds"], 1):
        history.add(offset, at)
        lengths[str(number)] = len(history)

    found = {offset: history.when(offset) for offset, _ in case["lookups"]}

    assert len(history) == case.get("expect_len", len(history))
    assert {number: lengths[number] for number in case.get("expect_len_after", {})} == case.get("expect_len_after", {})
    words = {
        "TooFewPoints": Unknown.TOO_FEW_POINTS,
        "LagIsZero": Unknown.LAG_IS_ZERO,
        "-Infinity": float("-inf"),
        "+Infinity": float("inf"),
    }
    for offset, expected in case["lookups"]:
        wanted = words.get(expected, expected)
        assert found[offset] == (wanted if isinstance(wanted, Unknown) else pytest.approx(wanted, abs=1e-9))


@needs_time_lag
@pytest.mark.parametrize("case", _cases(TIME_LAG, "collector_cases"))
def test_time_lag_is_what_kafka_lag_exporter_collects(case: dict[str, Any]) -> None:
    """One look: the end is stored with the instant, then every group's offset is looked up."""
    expected, now_ms = case["expect"], case["now_ms"]
    offsets = case.get("group_offsets") or [case["group_offset"]]
    latest = case["latest"] if isinstance(case["latest"], list) else [case["latest"]]
    found = []
    for end, offset in zip(latest, offsets, strict=True):
        history = EndHistory(distance=0)
        for point in case["table"]:
            history.add(*point)
        history.add(end, now_ms)
        lag_ms = time_lag(history, offset, now_ms)
        assert lag_ms is not None
        found.append((end - offset, lag_ms / 1000))

    assert max(found)[0] == expected.get("offset_lag", expected.get("max_offset_lag"))
    assert max(found)[1] == pytest.approx(expected.get("time_lag_s", expected.get("max_time_lag_s")))
