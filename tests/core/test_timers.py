"""Timers: rows and index in step, whatever is set, moved, cancelled and taken."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from streams.core.timers import Timer, Timers, rebuild
from streams.kafka.store import MemoryStore, Overlay

T0 = datetime(2018, 11, 3, 12, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def new() -> Timers:
    rows = Overlay(MemoryStore())
    return Timers(rows, rebuild(rows))


def drain(timers: Timers, now: datetime) -> list[str]:
    found = []
    while (timer := timers.take(now)) is not None:
        found.append(timer.key)
    return found


def test_timers_come_in_the_order_of_their_instants_and_not_before() -> None:
    """To the millisecond, which is what a tick has."""
    timers = new()
    timers.set("b", at(2))
    timers.set("a", at(1), b"what a waits for")

    assert drain(timers, at(1) - timedelta(milliseconds=1)) == []
    assert timers.index.next_at() == at(1)
    assert timers.take(at(2)) == Timer(key="a", at=at(1), payload=b"what a waits for")
    assert drain(timers, at(2)) == ["b"]


def test_a_moved_timer_comes_once_at_its_new_instant() -> None:
    """Earlier or later; the entry that is left behind costs one look."""
    timers = new()
    timers.set("later", at(1))
    timers.set("later", at(3))
    timers.set("earlier", at(3))
    timers.set("earlier", at(1))

    assert drain(timers, at(2)) == ["earlier"]
    assert drain(timers, at(9)) == ["later"]


def test_a_timer_that_waits_for_something_else_is_kept_and_never_due() -> None:
    """Until it gets an instant."""
    timers = new()
    timers.set("invoice", None, b"the account is not here yet")

    assert drain(timers, at(10_000)) == []
    assert [timer.payload for timer in timers.scan("inv")] == [b"the account is not here yet"]
    timers.set("invoice", at(0))
    assert drain(timers, at(0)) == ["invoice"]
    assert timers.get("invoice") is None


def test_a_naive_instant_is_refused() -> None:
    """It names no instant."""
    with pytest.raises(TypeError):
        new().set("a", datetime(2018, 11, 3))  # noqa: DTZ001


class Machine(RuleBasedStateMachine):
    """Against a dictionary: any sequence of calls, with rebuilt indexes in between."""

    keys = st.sampled_from(["a", "b", "c"])
    minutes = st.integers(-5, 20)

    def __init__(self) -> None:
        super().__init__()
        self.rows = Overlay(MemoryStore())
        self.timers = Timers(self.rows, rebuild(self.rows))
        self.wanted: dict[str, datetime | None] = {}
        self.now = T0

    @rule(key=keys, minutes=st.none() | minutes)
    def set(self, key: str, minutes: int | None) -> None:
        self.wanted[key] = None if minutes is None else at(minutes)
        self.timers.set(key, self.wanted[key])

    @rule(key=keys)
    def cancel(self, key: str) -> None:
        self.wanted.pop(key, None)
        self.timers.cancel(key)

    @rule()
    def reopen(self) -> None:
        self.timers = Timers(self.rows, rebuild(self.rows))

    @rule(minutes=st.integers(0, 4))
    def tick(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)
        due = {key: when for key, when in self.wanted.items() if when is not None and when <= self.now}
        taken = drain(self.timers, self.now)
        assert sorted(taken) == sorted(due)
        assert [due[key] for key in taken] == sorted(due.values())
        for key in due:
            del self.wanted[key]

    @invariant()
    def the_clock_is_told_of_everything(self) -> None:
        instants: list[Any] = [when for when in self.wanted.values() if when is not None]
        told = self.timers.index.next_at()
        assert not instants or (told is not None and told <= min(instants))

    @invariant()
    def the_rows_are_what_was_asked_for(self) -> None:
        assert {timer.key: timer.at for timer in self.timers.scan("")} == self.wanted


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
