"""How ticks move a partition's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.clock import Tick, advance
from streams.core.errors import Fatal

START = datetime(2026, 3, 1, tzinfo=UTC)


@given(st.lists(st.integers(0, 1000), min_size=1))
def test_now_is_the_highest_tick_in_any_order(minutes: list[int]) -> None:
    """Two clock processes may run, and their ticks overtake each other: time never goes back."""
    now: datetime | None = None
    epoch: str | None = None
    for seq, minute in enumerate(minutes):
        before = now
        now, epoch = advance(now, Tick(epoch="e", seq=seq, now=START + timedelta(minutes=minute)), epoch)
        assert before is None or now >= before

    assert now == START + timedelta(minutes=max(minutes))


def test_a_tick_of_another_epoch_is_refused() -> None:
    """Another run of a virtual clock must not move deadlines of this one."""
    with pytest.raises(Fatal, match="epoch 'other'"):
        advance(START, Tick(epoch="other", seq=1, now=START), "mine")


@pytest.mark.parametrize("now", [START.replace(tzinfo=None), START.astimezone(timezone(timedelta(hours=1)))])
def test_a_tick_is_utc_or_not_built(now: datetime) -> None:
    """A naive instant would be compared in the machine's zone."""
    with pytest.raises(ValueError, match="aware UTC"):
        Tick(epoch="e", seq=1, now=now)
