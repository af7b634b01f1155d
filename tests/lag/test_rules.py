"""The cases that Burrow's own do not have: WARN, quiet, young, transactional and inferred groups, and lag in time.

A scene is a topic partition, one group, and a look every ten seconds, as the monitor looks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from streams.core.lag.rules import Judged, Limits, Status, roll_up
from streams.core.lag.time import EndHistory, time_lag
from streams.core.lag.track import LOOKS, Ends, FirstUnread, PartitionLag, Track, trend
from streams.core.lag.window import Window

LOOK_MS = 10_000
MINUTE = 60_000
HOUR = 60 * MINUTE


@dataclass
class Scene:
    """``records``: the timestamp of each offset, None for the mark of a transaction."""

    exact: bool = True
    inferred: bool = False
    members: int = 1
    now_ms: int = 1_700_000_000_000
    records: list[int | None] = field(default_factory=list)
    start: int = 0
    open_from: int | None = None
    ends: Ends = field(default_factory=Ends)
    seen: list[Status] = field(default_factory=list)
    commits: int = 0

    def __post_init__(self) -> None:
        self.track = Track(inferred=self.inferred)

    def write(self, count: int = 1, *, transactional: bool = False, at_ms: int | None = None) -> None:
        self.records += [self.now_ms if at_ms is None else at_ms] * count + [None] * transactional

    def commit(self, offset: int | None = None) -> None:
        """At a moment between two looks; by default everything."""
        self.commits += 1
        offset = len(self.records) if offset is None else offset
        self.track.commit(offset, order=self.commits, at_ms=self.now_ms, ends=self.ends)

    def look(self) -> PartitionLag:
        self.now_ms += LOOK_MS
        readable = len(self.records) if self.open_from is None else self.open_from
        self.ends.look(start=self.start, end=len(self.records), readable=readable, at_ms=self.now_ms)
        if self.inferred and self.track.committed is not None:
            self.commit(self.track.committed)
        self.track.remember(self.ends)
        found = self.track.look(
            "t", 0, self.ends, now_ms=self.now_ms, first=self._first(readable), members=self.members
        )
        self.seen.append(found.status)
        return found

    def _first(self, readable: int) -> FirstUnread | None:
        at = self.track.committed
        if not self.exact or at is None or at >= readable:
            return None
        left = [one for one in self.records[max(at, self.start) : readable] if one is not None]
        return FirstUnread(at_ms=left[0] if left else None)

    def wait(self, ms: int) -> PartitionLag:
        found = self.look()
        for _ in range(ms // LOOK_MS - 1):
            found = self.look()
        return found


def healthy(*, exact: bool = True) -> Scene:
    """A group that has read everything for five minutes."""
    scene = Scene(exact=exact)
    for _ in range(30):
        scene.write(100)
        scene.commit()
        scene.look()
    assert set(scene.seen) == {Status.OK}
    scene.seen.clear()
    return scene


BOTH = pytest.mark.parametrize("exact", [True, False], ids=["exact", "interpolated"])


# -- alarms that are right -----------------------------------------------------------------------------------------


@BOTH
def test_a_group_that_ends_while_records_come_is_stop(exact: bool) -> None:
    """The window lasted a hundred seconds, so it takes that long, not longer than five minutes."""
    scene = healthy(exact=exact)

    for _ in range(30):
        scene.write(100)
        scene.look()

    assert scene.seen[-1] is Status.STOP
    assert scene.seen == sorted(scene.seen), "first OK, then STOP, and never back"


@BOTH
def test_a_group_that_commits_the_same_offset_again_and_again_is_stall(exact: bool) -> None:
    """It lives, its commits say so, and gets nothing done."""
    scene = healthy(exact=exact)
    stuck_at = len(scene.records)

    for _ in range(30):
        scene.write(100)
        scene.commit(stuck_at)
        scene.look()

    assert scene.seen[-1] is Status.STALL


@BOTH
def test_a_group_that_is_slower_than_its_topic_is_warn(exact: bool) -> None:
    """It moves, and what is unread grows at every commit."""
    scene = healthy(exact=exact)
    at = len(scene.records)

    for _ in range(40):
        scene.write(100)
        at += 60
        scene.commit(at)
        scene.look()

    assert scene.seen[-1] is Status.WARN
    assert Status.STOP not in scene.seen


def test_a_group_that_keeps_the_same_distance_for_ever_is_warn() -> None:
    """Two hundred thousand behind, as fast as its topic: it will never get there."""
    scene = Scene()
    scene.write(200_000, at_ms=scene.now_ms - HOUR)
    for _ in range(15):
        scene.write(100)
        scene.commit(len(scene.records) - 200_000)
        scene.look()

    assert scene.seen[-1] is Status.WARN


def test_a_group_that_catches_up_is_no_alarm() -> None:
    """Hours behind, but less after every commit."""
    scene = Scene()
    scene.write(100_000, at_ms=scene.now_ms - 5 * HOUR)
    for at in range(0, 90_000, 1_000):
        scene.write(100)
        scene.commit(at)
        scene.look()

    assert set(scene.seen) == {Status.OK}


def test_a_group_that_was_set_back_is_rewind_until_it_is_there_again() -> None:
    """An operator replays an hour, or somebody lost the offsets: both should be seen."""
    scene = healthy()
    scene.write(100)
    scene.commit(0)
    first = scene.look()
    for at in range(0, 3201, 400):
        scene.commit(min(at, len(scene.records)))
        scene.look()
    back_again = scene.wait(LOOK_MS)

    assert first.status is Status.REWIND
    assert back_again.status is Status.OK


def test_a_rewind_inside_of_an_old_window_that_was_made_good_is_no_alarm() -> None:
    """A rebalance in which the last commit of the old owner came late."""
    scene = healthy()
    scene.commit(len(scene.records) - 50)
    scene.commit(len(scene.records))
    scene.write(10)

    assert scene.look().status is Status.OK


def test_a_group_that_committed_once_and_left_its_records_is_stop_in_the_end() -> None:
    """One commit is no rhythm, but after ten minutes with records waiting nobody is at work."""
    scene = Scene()
    scene.write(10)
    scene.commit(5)

    scene.wait(9 * MINUTE)
    early = set(scene.seen)
    late = scene.wait(3 * MINUTE)

    assert early == {Status.OK}
    assert late.status is Status.STOP


def test_a_stopped_group_whose_records_carry_the_date_of_tomorrow_is_stop_all_the_same() -> None:
    """A record may carry any timestamp; what was seen here counts too."""
    scene = healthy()
    for _ in range(30):
        scene.write(1, at_ms=scene.now_ms + 24 * HOUR)
        scene.look()

    assert scene.seen[-1] is Status.STOP
    assert scene.look().time_lag_s == 0.0, "never negative"


# -- alarms that would be false -------------------------------------------------------------------------------------


@BOTH
def test_one_record_per_hour_on_a_quiet_topic_is_never_an_alarm(exact: bool) -> None:
    """Commits of a burst long ago, an hour of silence, then one record, seen before its commit; for three hours."""
    scene = healthy(exact=exact)
    for _ in range(3):
        scene.wait(HOUR)
        scene.write(1)
        scene.look()
        scene.commit()
        scene.look()

    assert set(scene.seen) == {Status.OK}


def test_a_monitor_that_starts_in_the_second_between_a_record_and_its_commit_raises_nothing() -> None:
    """It has stored no end from before, but the record tells its age."""
    scene = Scene()
    scene.write(1000, at_ms=scene.now_ms - 5 * HOUR)
    for at in range(100, 1001, 100):
        scene.commit(at)
        scene.now_ms += 1000
    scene.now_ms += 4 * HOUR
    scene.write(1)

    assert scene.look().status is Status.OK


@BOTH
def test_an_idle_group_is_well_for_hours(exact: bool) -> None:
    """Nothing comes, nothing is committed, nothing is unread."""
    scene = healthy(exact=exact)

    scene.wait(3 * HOUR)

    assert set(scene.seen) == {Status.OK}


def test_an_idle_group_that_goes_on_committing_is_no_stall() -> None:
    """Some clients commit at every poll, also where nothing has come."""
    scene = healthy()
    for _ in range(60):
        scene.commit()
        scene.look()

    assert set(scene.seen) == {Status.OK}


@BOTH
def test_a_young_group_is_not_stop_at_its_first_commit(exact: bool) -> None:
    """The window of one commit lasts no time at all."""
    scene = Scene(exact=exact)
    scene.look()
    scene.write(1000)
    scene.commit(500)
    for at in range(500, 1000, 100):
        scene.look()
        scene.commit(at)

    assert set(scene.seen) == {Status.OK}


def test_a_young_group_that_has_read_everything_with_one_commit_is_well_for_ever() -> None:
    """A job that runs once a month."""
    scene = Scene()
    scene.write(10)
    scene.commit()

    scene.wait(5 * HOUR)

    assert set(scene.seen) == {Status.OK}


def test_the_mark_of_a_transaction_is_no_lag() -> None:
    """The group has read every record; the offset behind its commit is a mark that nobody can read."""
    scene = Scene()
    for _ in range(30):
        scene.write(5, transactional=True)
        scene.commit(len(scene.records) - 1)
        scene.look()
    last = scene.wait(HOUR)

    assert set(scene.seen) == {Status.OK}
    assert (last.lag, last.time_lag_s) == (1, 0.0)


def test_a_group_with_lag_1_for_ever_that_goes_on_committing_is_no_stall() -> None:
    """As before, with a client that commits at every poll."""
    scene = Scene()
    scene.write(5, transactional=True)
    for _ in range(60):
        scene.commit(5)
        scene.look()

    assert set(scene.seen) == {Status.OK}


def test_an_aborted_transaction_behind_the_commit_is_no_lag() -> None:
    """What was aborted may be thousands of records; none of them can be read."""
    scene = Scene()
    scene.write(10)
    scene.commit()
    scene.records += [None] * 5_000
    last = scene.wait(HOUR)

    assert set(scene.seen) == {Status.OK}
    assert (last.lag, last.time_lag_s) == (5_000, 0.0)


def test_a_group_that_waits_for_an_open_transaction_is_well() -> None:
    """It may not read on: the producer is late, not the group."""
    scene = healthy()
    scene.open_from = len(scene.records)
    for _ in range(60):
        scene.write(100)
        scene.look()

    assert set(scene.seen) == {Status.OK}


def test_a_stopped_group_on_a_transactional_topic_is_stop() -> None:
    """The cure of the lag of 1 does not hide real records."""
    scene = Scene()
    for _ in range(30):
        scene.write(5, transactional=True)
        scene.commit(len(scene.records) - 1)
        scene.look()
    for _ in range(30):
        scene.write(5, transactional=True)
        scene.look()

    assert scene.seen[-1] is Status.STOP


@BOTH
def test_a_busy_group_that_always_has_something_in_flight_is_well(exact: bool) -> None:
    """Fifty unread at every single commit: the lag never falls, and nobody waits for longer than a second."""
    scene = Scene(exact=exact)
    scene.look()
    for _ in range(60):
        scene.write(1000)
        scene.commit(len(scene.records) - 50)
        scene.look()

    assert set(scene.seen) == {Status.OK}


def test_a_batch_that_runs_once_an_hour_is_well_between_its_runs() -> None:
    """Records wait for an hour, as they should: its commits are an hour apart."""
    scene = Scene()
    for _ in range(5):
        for _ in range(30):
            scene.write(10)
            scene.look()
        scene.commit()
    scene.seen.clear()
    for _ in range(30):
        scene.write(10)
        scene.look()

    assert set(scene.seen) == {Status.OK}


def test_a_topic_made_again_under_the_same_name_is_no_rewind() -> None:
    """Offsets begin at 0 again; what was committed before was about another topic."""
    scene = healthy()
    scene.records = []
    scene.look()
    scene.write(10)
    scene.commit(5)
    scene.wait(MINUTE * 2)
    scene.commit(10)
    last = scene.look()

    assert set(scene.seen) == {Status.OK}
    assert last.lag == 0


def test_records_that_retention_removed_are_not_waited_for() -> None:
    """A retired group on a topic that keeps a day: when the last unread record is gone, nothing waits."""
    scene = healthy()
    scene.write(100)
    stopped = scene.wait(20 * MINUTE)
    scene.start = len(scene.records)
    after = scene.look()

    assert stopped.status is Status.STOP
    assert (after.status, after.time_lag_s) == (Status.OK, 0.0)


def test_few_records_are_allowed_to_wait_where_somebody_says_so() -> None:
    """``allowed_lag`` is a limit on the number, whatever the age."""
    scene = healthy()
    scene.write(3)
    scene.wait(HOUR)

    found = [
        scene.track.look(
            "t", 0, scene.ends, now_ms=scene.now_ms, first=scene._first(len(scene.records)), limits=limits
        ).status
        for limits in (Limits(allowed_lag=2), Limits(allowed_lag=3))
    ]

    assert found == [Status.STOP, Status.OK]


def test_lags_of_before_the_monitor_started_are_not_known_and_prove_nothing() -> None:
    """Commits read from a topic's past have no lag; "every commit was behind" needs some that were."""
    scene = Scene()
    scene.write(1000, at_ms=scene.now_ms - HOUR)
    for at in range(0, 500, 50):
        scene.commit(at)
        scene.now_ms += 20_000

    first = scene.look()

    assert first.status is Status.OK
    assert {one.lag for one in first.window} == {None}


# -- inferred: offsets without the times of commits ----------------------------------------------------------------


def test_inferred_without_members_is_stop() -> None:
    """Records wait, nobody is there."""
    scene = Scene(inferred=True, members=0)
    scene.write(10, at_ms=scene.now_ms - HOUR)
    scene.commit(5)

    found = scene.look()

    assert (found.status, found.inferred, found.committed_at_ms) == (Status.STOP, True, None)


def test_inferred_with_members_that_get_nowhere_is_stall_after_a_minute() -> None:
    """Not at the first look: nobody can know yet whether it moves."""
    scene = Scene(inferred=True, members=2)
    scene.write(10, at_ms=scene.now_ms - HOUR)
    scene.commit(5)
    scene.wait(2 * MINUTE)

    assert scene.seen[:5] == [Status.OK] * 5
    assert scene.seen[-1] is Status.STALL


def test_inferred_with_members_that_get_slower_than_the_topic_is_warn() -> None:
    """It moves, and more is unread at every look."""
    scene = Scene(inferred=True, members=2)
    scene.write(1000, at_ms=scene.now_ms - HOUR)
    for at in range(0, 300, 10):
        scene.write(100)
        scene.commit(at)
        scene.look()

    assert scene.seen[-1] is Status.WARN


def test_inferred_a_consumer_without_a_group_that_moves_is_not_stop() -> None:
    """Assigned by hand and committing: no members, and well."""
    scene = Scene(inferred=True, members=0)
    scene.write(10_000, at_ms=scene.now_ms - HOUR)
    scene.commit(0)
    for at in range(200, 8_000, 200):
        scene.look()
        scene.commit(at)
    moving = scene.seen[2:]

    assert set(moving) == {Status.OK}


def test_inferred_and_idle_is_well() -> None:
    """No members and nothing unread: a service that is switched off at night, on a topic that is silent too."""
    scene = Scene(inferred=True, members=0)
    scene.write(10)
    scene.commit()

    scene.wait(HOUR)

    assert set(scene.seen) == {Status.OK}


# -- lag in time ---------------------------------------------------------------------------------------------------


def test_the_exact_time_lag_is_the_age_of_the_first_unread_record() -> None:
    """Not of the last one, and not of the commit."""
    scene = Scene()
    scene.write(1, at_ms=scene.now_ms - 90_000)
    scene.write(1, at_ms=scene.now_ms - 30_000)
    scene.commit(1)

    found = scene.look()

    assert (found.time_lag_s, found.exact) == (40.0, True)


def test_the_interpolated_time_lag_lies_between_two_looks() -> None:
    """100 records in every ten seconds, 250 behind: 25 seconds, and it says that it is not exact."""
    scene = Scene(exact=False)
    for _ in range(20):
        scene.write(100)
        scene.look()
    scene.commit(len(scene.records) - 250)
    scene.now_ms -= LOOK_MS

    found = scene.look()

    assert found.time_lag_s == pytest.approx(25.0)
    assert not found.exact


def test_without_points_and_without_the_record_there_is_no_time_lag() -> None:
    """Nothing is said rather than something wrong."""
    scene = Scene(exact=False)
    scene.write(10)
    scene.commit(5)

    assert scene.look().time_lag_s is None


def test_on_a_flat_topic_the_time_lag_is_not_infinite() -> None:
    """A stopped group on a topic to which nobody writes any more: the line through the points is flat."""
    scene = Scene(exact=False)
    scene.write(10)
    scene.commit(5)

    assert scene.wait(HOUR).time_lag_s is None


def test_a_clock_that_is_behind_makes_no_negative_time_lag() -> None:
    """Points of the future."""
    history = EndHistory(distance=0)
    history.add(0, 1_000.0)
    history.add(100, 2_000.0)

    assert time_lag(history, 50, now=1_200.0) == 0.0


def test_points_reach_back_half_an_hour_in_bounded_memory() -> None:
    """A look every second for an hour."""
    history = EndHistory()
    for second in range(3600):
        history.add(second * 10, second * 1000.0)

    lag = time_lag(history, (3599 - 1200) * 10, now=3_599_000.0)

    assert len(history) <= 90
    assert lag == pytest.approx(1_200_000.0)


def test_a_look_is_remembered_for_the_sparkline_and_no_longer() -> None:
    """Sixty looks; the newest last."""
    scene = Scene()
    scene.commit(0)
    for _ in range(LOOKS + 20):
        scene.write(1)
        found = scene.look()

    assert list(found.lags) == list(range(21, LOOKS + 21))


@pytest.mark.parametrize(
    ("lags", "expected"),
    [((), None), ((5,), None), ((0, 100, 200), 10.0), ((300, 150, 0), -15.0), ((7, 7, 7), 0.0)],
)
def test_the_trend_is_in_records_per_second(lags: tuple[int, ...], expected: float | None) -> None:
    """Of the newest looks, ten seconds apart; a group may be younger than the monitor."""
    assert trend(lags, tuple(range(0, 50_000, 10_000))) == expected


# -- groups --------------------------------------------------------------------------------------------------------


def test_a_group_with_one_bad_partition_of_many_is_bad() -> None:
    """WARN stays WARN, everything worse is ERR; the sums are over all."""
    well, slow, dead = (
        Judged(status=status, lag=lag, complete=1.0)
        for status, lag in ((Status.OK, 1), (Status.WARN, 50), (Status.STALL, 9))
    )

    assert roll_up([well] * 9 + [slow]).status is Status.WARN
    found = roll_up([well, slow, dead])
    assert (found.status, found.worst, found.total_lag, found.not_ok, found.max_lag_at) == (
        Status.ERR, Status.STALL, 60, 2, 1,
    )  # fmt: skip


def test_a_group_without_partitions_is_well() -> None:
    """It has committed nothing yet."""
    found = roll_up([])

    assert (found.status, found.total_lag, found.max_lag_at) == (Status.OK, 0, None)


def test_partitions_whose_window_is_not_filled_can_be_left_out() -> None:
    """``minimum_complete``, for those who would rather wait."""
    young = Judged(status=Status.STOP, lag=5, complete=0.2)

    assert (roll_up([young]).status, roll_up([young], 0.5).status) == (Status.ERR, Status.OK)


def test_a_commit_that_is_read_twice_is_one() -> None:
    """A reader that begins again at the topic's start."""
    window = Window(min_distance_ms=0)
    for _ in range(2):
        window.add(10, order=1, at_ms=1000, end=20)
        window.add(20, order=2, at_ms=2000, end=20)

    assert [(one.offset, one.lag) for one in window.commits] == [(10, 10), (20, 0)]
