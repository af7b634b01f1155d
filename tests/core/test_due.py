"""The index of due work."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from streams.core.plan_change.due import Due, DueIndex, Window

T0 = datetime(2018, 11, 3, 12, tzinfo=UTC)


def at(hours: float) -> datetime:
    return T0 + timedelta(hours=hours)


def due(id: str, when: float, deadline: float, window: Window | None = None) -> Due:
    return Due(id=id, at=at(when), deadline=at(deadline), window=window)


def drain(index: DueIndex, now: datetime) -> list[str]:
    found = []
    while (taken := index.take(now)) is not None:
        found.append(taken.id)
    return found


def test_the_earliest_deadline_comes_first() -> None:
    """Not the earliest release: after an outage the nearest midnight must not wait for a farther one."""
    index = DueIndex(10)
    index.add([due("Samoa", 1, 20), due("Tokyo", 2, 5), due("Berlin", 1.5, 10), due("later", 4, 4.5)])

    assert drain(index, at(3)) == ["Tokyo", "Berlin", "Samoa"]


def test_nothing_is_taken_before_it_is_due() -> None:
    """The clock of the partition decides, to the instant."""
    index = DueIndex(10)
    index.add([due("a", 1, 2)])

    assert drain(index, at(1) - timedelta(microseconds=1)) == []
    assert drain(index, at(1)) == ["a"]


def test_a_full_window_keeps_commands_but_not_settlements() -> None:
    """With the executor gone, what is not persisted must still be closed at its deadline."""
    index = DueIndex(1)
    index.mark("busy", Window.EXECUTE)
    index.add([due("command", 1, 5, window=Window.EXECUTE), due("settlement", 2, 2)])
    assert drain(index, at(3)) == ["settlement"]

    index.mark("busy", None)

    assert drain(index, at(3)) == ["command"]


def test_a_full_window_keeps_nothing_of_another_one() -> None:
    """With the executor gone, what is persisted must still be released at its deadline."""
    index = DueIndex(1)
    index.mark("busy", Window.EXECUTE)
    index.add([due("command", 1, 5, Window.EXECUTE), due("release", 2, 2, Window.RELEASE)])

    assert index.room == {Window.RELEASE}
    assert drain(index, at(3)) == ["release"]


def test_one_answer_twice_does_not_open_the_window_twice() -> None:
    """In flight is a set of ids, not a count."""
    index = DueIndex(2)
    for id in ("a", "b"):
        index.mark(id, Window.EXECUTE)

    index.mark("a", None)
    index.mark("a", None)

    assert index.in_flight(Window.EXECUTE) == 1


def test_the_next_instant_is_to_come() -> None:
    """The clock is told of what it can bring; work that waits for room waits for results."""
    index = DueIndex(0)
    index.add([due("waits", 1, 5, window=Window.EXECUTE), due("later", 3, 5)])

    assert index.next_at(at(2)) == at(3)
    assert index.next_at(at(3)) is None


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(20, 30), st.sampled_from([None, *Window])), max_size=60),
    st.lists(st.integers(0, 20), max_size=10).map(sorted),
)
def test_everything_is_taken_once_in_order(entries: list[tuple[int, int, Window | None]], times: list[int]) -> None:
    """Against a sorted list: at every instant all that is due, by deadline then release, and nothing is lost."""
    dues = [due(str(number), *entry) for number, entry in enumerate(entries)]
    index = DueIndex(1)
    index.add(dues)
    left = list(dues)

    for now in [*times, 30]:
        ready = [one for one in left if one.at <= at(now)]
        left = [one for one in left if one.at > at(now)]
        in_turn = [sorted((one.deadline, one.at) for one in ready if one.window is kind) for kind in (None, *Window)]
        taken = []
        while (found := index.take(at(now))) is not None:
            taken.append(found)
        assert [(one.deadline, one.at) for one in taken] == list(chain(*in_turn))
        assert sorted(one.id for one in taken) == sorted(one.id for one in ready)

    assert left == []
    assert len(index) == 0
