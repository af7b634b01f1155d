"""How long the waiting work takes at a given speed, the nearest deadline first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from streams.core.plan_change.projection import Waiting, project

NOW = datetime(2018, 11, 3, 17, 0, tzinfo=UTC)
FIRST, SECOND = NOW + timedelta(hours=1), NOW + timedelta(hours=2)
MINUTE = timedelta(minutes=1)


def works(deadline: datetime, count: int, release: datetime = NOW) -> list[Waiting]:
    return [Waiting(release_at=release, deadline_at=deadline)] * count


def test_the_nearest_deadline_comes_first_whatever_was_released_before() -> None:
    """Thirty of the second deadline were there first; those of the first go in front of what is left of them."""
    found = project(works(SECOND, 30) + works(FIRST, 10, NOW + 5 * MINUTE), NOW, MINUTE)

    assert (found[FIRST].remaining, found[FIRST].finish_at) == (10, NOW + 15 * MINUTE)
    assert (found[SECOND].remaining, found[SECOND].finish_at) == (30, NOW + 40 * MINUTE)
    assert found[SECOND].slack == timedelta(minutes=80)


def test_nothing_is_done_before_its_release() -> None:
    """Idle time is not made up for."""
    [found] = project(works(FIRST, 1, NOW + 30 * MINUTE), NOW, MINUTE).values()

    assert found.finish_at == NOW + 31 * MINUTE


def test_too_much_work_has_a_negative_slack() -> None:
    """Sixty-one minutes of work in an hour."""
    [found] = project(works(FIRST, 61), NOW, MINUTE).values()

    assert found.slack == -MINUTE


def test_what_was_released_long_ago_begins_now() -> None:
    """The past has no capacity left."""
    [found] = project(works(FIRST, 1, NOW - timedelta(hours=5)), NOW, MINUTE).values()

    assert found.finish_at == NOW + MINUTE
