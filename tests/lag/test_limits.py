"""What is over a limit of `curfew lag`, from the rows alone."""

from __future__ import annotations

import pytest

from agents.monitor.as_json import over_limits


@pytest.mark.parametrize(
    ("lag", "seconds", "over"), [(5, None, True), (0, None, False), (5, 61.0, True), (5, 59.0, False)]
)
def test_a_wait_of_unknown_length_is_over_a_limit_of_seconds(lag: int, seconds: float | None, over: bool) -> None:
    """A script must not read "all is well" where nobody knows; a group without lag waits for nothing."""
    rows = [{"group": "g", "lag": lag, "time_lag_s": seconds}]

    assert bool(over_limits(rows, None, 60.0)) is over
    assert not over_limits(rows, 10, None)
