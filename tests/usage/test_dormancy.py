"""Dormant SIMs: the rules by example, and all of them against a count hour by hour."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.event_rules import EventRule
from streams.core.ids import event_id, instant_text
from streams.core.usage.desk import rebuild
from streams.core.usage.dormancy import Rules
from streams.core.usage.objects import SimChange
from tests.usage.makers import (
    Partition,
    a_product,
    a_rule,
    a_sim,
    a_state,
    changed,
    on,
    removed,
    some_usage,
    types,
)

ACTIVE = a_state(1, 0, "Active")


def watched(*rules: EventRule) -> Partition:
    """A SIM that is activated at day 0, on an active service."""
    partition = Partition(*rules)
    partition.take(ACTIVE, changed(a_sim()))
    return partition


def test_a_sim_that_is_never_used_is_dormant_after_thirty_days() -> None:
    """Not a moment earlier, and once."""
    partition = watched()

    assert partition.take(on(30) - timedelta(seconds=1)) == []
    [dormant] = partition.take(on(30))
    assert (dormant.type, dormant.subject_id, dormant.account_id) == ("sim.dormant", "8955-1", "A1")
    assert dormant.occurred_at == on(30)
    assert dormant.facts == {"days": 30, "silent_since": on(0), "dormant_at": on(30)}
    assert dormant.current["service_id"] == "S1"
    assert partition.take(on(31), on(100)) == []


def test_days_count_from_the_end_of_the_last_day_with_usage() -> None:
    """Usage on day 4 and nothing more: days 5 to 34 are thirty days without usage."""
    partition = watched()
    partition.take(some_usage(4.2), some_usage(4.9))

    assert partition.take(on(34.9)) == []
    [dormant] = partition.take(on(35))
    assert dormant.facts["silent_since"] == on(5)


def test_usage_after_dormancy_ends_it_and_begins_a_new_count() -> None:
    """sim.active_again at the instant of the usage; the next episode has an id of its own."""
    partition = watched()
    [first] = partition.take(on(30))

    [again] = partition.take(some_usage(40.5))
    more = partition.take(some_usage(40.6), some_usage(41), on(71))
    [second] = partition.take(on(72))

    assert again.type == "sim.active_again"
    assert again.occurred_at == on(40.5)
    assert again.facts == {**first.facts, "usage_at": on(40.5), "correction": False}
    assert more == []
    assert (second.type, second.facts["silent_since"]) == ("sim.dormant", on(42))
    assert second.event_id != first.event_id


def test_late_usage_inside_the_window_corrects_what_was_told() -> None:
    """It had not been dormant; the count begins again at the late usage, and may be over already."""
    partition = watched()
    partition.take(on(30))

    [again] = partition.take(some_usage(1.5))
    [second] = partition.take(on(32))

    assert again.facts["correction"] is True
    assert (second.type, second.facts["silent_since"]) == ("sim.dormant", on(2))


def test_late_usage_of_before_the_silence_changes_nothing() -> None:
    """Older than the last day with usage is no news."""
    partition = watched()
    partition.take(some_usage(4), on(35))

    assert partition.take(some_usage(2)) == []


def test_late_usage_after_the_end_of_an_episode_changes_nothing() -> None:
    """Each episode has one end; the world knows already that the SIM is active."""
    partition = watched()
    partition.take(on(30), some_usage(40))

    assert partition.take(some_usage(20), on(41)) == []


def test_suspension_pauses_the_count() -> None:
    """Ten days suspended: dormant ten days later; not dormant at all while it lasts."""
    partition = watched()
    partition.take(a_state(2, 10.25, "Suspended", "Active"))
    assert partition.take(on(60)) == []

    partition.take(a_state(3, 20.25, "Active", "Suspended"))

    assert types(partition.take(on(60))) == ["sim.dormant"]
    assert partition.told[0].facts["dormant_at"] == on(40)


def test_a_part_of_a_day_that_is_paused_moves_the_instant_to_the_next_midnight() -> None:
    """Dormancy is decided once a day."""
    partition = watched()
    partition.take(a_state(2, 10, "Suspended", "Active"), a_state(3, 10.5, "Active", "Suspended"))

    assert partition.take(on(30.5)) == []
    assert types(partition.take(on(31))) == ["sim.dormant"]


def test_a_service_that_is_not_active_has_no_dormant_sim() -> None:
    """Preactive, cancelled, deleted or unknown."""
    for contexts in ([], [a_state(1, 0, "Preactive")], [a_state(1, 0, "Cancelled", "Active")], [a_state(1, 0, None)]):
        partition = Partition()
        partition.take(changed(a_sim()), *contexts)

        assert partition.take(on(100)) == []


def test_a_sim_that_is_not_activated_or_deleted_or_elsewhere_is_not_dormant() -> None:
    """Only what can be used can be missed."""
    idle = watched()
    idle.take(changed(a_sim(activated_at=None), 2))
    gone = watched()
    gone.take(removed(a_sim(), 2))

    assert idle.take(on(100)) == []
    assert gone.take(on(100)) == []


def test_a_fleet_that_is_brought_in_is_not_dormant_at_once() -> None:
    """Its usage of before is not known; silence counts from the first change of the SIM."""
    partition = Partition()
    partition.take(ACTIVE, changed(a_sim(activated_at=on(-900)), day=7))

    assert partition.take(on(36)) == []
    assert types(partition.take(on(37))) == ["sim.dormant"]


def test_each_product_may_have_its_own_days() -> None:
    """A rule for a product, one for all others, and a product whose SIMs are never dormant."""
    rules = (
        a_rule(3, "meter"),
        a_rule(10),
        a_rule(2, "spare", active=False),
        EventRule(name="z", days=1, at="09:00"),
    )
    found = {}
    for product in ("meter", "phone", "spare"):
        partition = watched(*rules)
        partition.take(a_product(1, product), on(100))
        found[product] = [finding.facts["dormant_at"] for finding in partition.told]

    assert found == {"meter": [on(3)], "phone": [on(10)], "spare": []}


def test_usage_that_names_another_sim_does_not_count_and_usage_that_names_none_does() -> None:
    """Of two SIMs of one service."""
    partition = watched()
    other = a_sim(id="8955-2")
    partition.take(changed(other))
    partition.take(some_usage(10, sim_id="8955-2"), some_usage(5))

    found = partition.take(on(36), on(41))

    assert [(one.subject_id, one.occurred_at) for one in found] == [("8955-1", on(36)), ("8955-2", on(41))]


def test_usage_writes_a_line_once_a_day() -> None:
    """A hundred records of one day are one write, and no due row is ever written for usage."""
    partition = watched()
    partition.writes.clear()

    for hour in range(100):
        partition.take(some_usage(3 + hour / 101))

    assert partition.writes == [b"line/S1"]
    partition.take(on(20))
    assert partition.writes == [b"line/S1"]


def test_hints_that_were_left_by_each_change_become_one_when_they_come() -> None:
    """Set again one by one they would live, and be looked at, for as long as the SIM is used."""
    partition = watched()
    for revision in range(2, 12):
        partition.take(changed(a_sim(), revision))
    partition.take(some_usage(29))
    assert len(partition.index) > 10

    partition.take(on(31))

    assert len(partition.index) == 1


def test_an_episode_between_two_records_is_told_with_its_end_even_if_no_tick_came_between_them() -> None:
    """After an outage, and for usage that comes before its time: dormancy is told when its instant has come."""
    partition = watched()
    partition.take(some_usage(45))

    assert partition.take(on(29)) == []
    assert types(partition.take(on(31))) == ["sim.dormant", "sim.active_again"]
    assert partition.take(on(75)) == []


# -- against a count hour by hour -------------------------------------------------------------------------------------

HOUR = timedelta(hours=1)
RULES = (a_rule(3), a_rule(5, "P"))
SIMS = ("8955-1", "8955-2")


def end_of_day(at: datetime) -> datetime:
    return datetime.combine(at.date() + timedelta(days=1), datetime.min.time(), at.tzinfo)


class Oracle:
    """Keeps everything that it was told, and counts hours one by one."""

    def __init__(self) -> None:
        self.now: datetime | None = None
        self.states: dict[int, Any] = {}
        self.product: str | None = None
        self.sims: dict[str, Any] = {}
        self.used: dict[str, set[datetime]] = {id: set() for id in SIMS}
        self.closed: dict[str, Any] = dict.fromkeys(SIMS, on(-999).date())
        self.open: dict[str, datetime | None] = dict.fromkeys(SIMS)
        self.told: list[tuple[str, str, datetime, bool | None]] = []

    def take(self, value: Any) -> None:
        match value:
            case datetime():
                self.now = value
                for id in self.sims:
                    self.judge(id)
            case _ if hasattr(value, "event_time"):
                before = {id: self.end(id) for id in self.sims if self.open[id]}
                for id in SIMS if value.sim_id is None else (value.sim_id,):
                    self.used[id].add(value.event_time)
                for id, end in before.items():
                    after = self.end(id)
                    if after is not None and after != end:
                        self.finish(id, after)
            case _ if hasattr(value, "about"):
                if value.about == "product":
                    self.product = value.product_id
                else:
                    self.states[value.revision] = value
            case _:
                self.sims[value.current.id] = value

    @property
    def days(self) -> int:
        return 5 if self.product == "P" else 3

    def begin(self, id: str) -> datetime:
        change: SimChange = self.sims[id]
        assert change.current is not None
        assert change.current.activated_at is not None
        return max(change.current.activated_at, change.occurred_at)

    def active(self, at: datetime) -> bool:
        ordered = [self.states[revision] for revision in sorted(self.states)]
        state = ordered[0].previous_state
        for context in ordered:
            if context.since <= at:
                state = context.state
        return bool(state == "Active")

    def due(self, since: datetime, horizon: datetime) -> datetime | None:
        """The first midnight with enough active hours since ``since``."""
        hours, at = 0, since
        while at <= horizon + timedelta(days=1):
            if hours >= self.days * 24 and at.hour == 0 and at.minute == 0:
                return at
            hours += self.active(at)
            at += HOUR
        return None

    def silences(self, id: str) -> list[tuple[datetime, datetime | None]]:
        begin, found = self.begin(id), []
        since = begin
        for used in sorted(self.used[id]):
            if used > since and used.date() > self.closed[id]:
                found.append((since, used))
            since = max(since, end_of_day(used))
        return [*found, (since, None)]

    def end(self, id: str) -> datetime | None:
        """The first usage after the silence began that was told; the day on which it began is one with usage then."""
        began = self.open[id]
        assert began is not None
        return min((used for used in self.used[id] if end_of_day(used) > began), default=None)

    def judge(self, id: str) -> None:
        assert self.now is not None
        if not self.states:
            return
        for since, until in self.silences(id):
            due = self.due(since, self.now)
            if due is None or due > self.now or (until is not None and due > until):
                continue
            if self.open[id] != since:
                self.told.append(("sim.dormant", id, since, None))
                self.open[id] = since
            if until is not None:
                self.finish(id, until)

    def finish(self, id: str, at: datetime) -> None:
        began = self.open[id]
        assert began is not None
        due = self.due(began, on(80))
        self.told.append(("sim.active_again", id, began, due is not None and at < due))
        self.open[id] = None
        self.closed[id] = max(self.closed[id], at.date())


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[Any], list[Any]]:
    """(what is before the first tick, in any order; what comes after it): usage late and early, states, two SIMs."""
    definitions = [
        changed(a_sim(id=id, activated_at=on(draw(st.integers(0, 60)) / 24)), day=draw(st.integers(0, 48)) / 24)
        for id in SIMS[: draw(st.integers(1, 2))]
    ]
    revision, state = 1, draw(st.sampled_from(("Preactive", "Active")))
    contexts = [a_state(1, 0, state)]
    hour = 0
    for _ in range(draw(st.integers(0, 5))):
        revision, hour = revision + 1, hour + draw(st.integers(1, 120))
        before, state = state, draw(st.sampled_from(("Active", "Suspended", "Active")))
        contexts.append(a_state(revision, hour / 24, state, before))
    if draw(st.booleans()):
        contexts.append(a_product(1, draw(st.sampled_from(("P", "Q")))))
    usages = [
        some_usage(day + 0.5, sim_id=draw(st.sampled_from((None, *SIMS))))
        for day in draw(st.lists(st.integers(0, 25), max_size=12))
    ]
    early = draw(st.integers(0, len(usages)))
    first = [*definitions, *contexts, *usages[:early]]
    ticks: list[Any] = [on(day) for day in draw(st.lists(st.integers(1, 40), min_size=1, max_size=8, unique=True))]
    rest: list[Any] = draw(st.permutations([*usages[early:], *ticks]))
    now = max(ticks)
    days = iter(sorted(ticks))
    rest = [next(days) if isinstance(one, datetime) else one for one in rest]
    return first, [*rest, now + timedelta(days=20)]


def ids_of(told: list[tuple[str, str, datetime, bool | None]]) -> list[str]:
    return [event_id(type, "sim", id, instant_text(since)) for type, id, since, _ in told]


@settings(max_examples=60, deadline=None)
@given(stories())
def test_episodes_are_those_of_a_count_hour_by_hour(story: tuple[list[Any], list[Any]]) -> None:
    """Suspensions, late usage, usage ahead of time, two SIMs, usage that names none: same events, same corrections."""
    first, rest = story
    partition, oracle = Partition(*RULES), Oracle()
    for value in (*first, *rest):
        partition.take(value)
        oracle.take(value)

    found = [(one.event_id, one.facts.get("correction")) for one in partition.told]
    expected = [(id, one[3]) for id, one in zip(ids_of(oracle.told), oracle.told, strict=True)]
    assert sorted(found, key=str) == sorted(expected, key=str)


@settings(max_examples=30, deadline=None)
@given(stories(), st.data())
def test_the_order_between_topics_does_not_matter(story: tuple[list[Any], list[Any]], data: st.DataObject) -> None:
    """What came before the first tick in another interleaving: SIM, states and usage each in their own order."""
    first, rest = story
    topics: dict[str, list[Any]] = {}
    for value in first:
        topics.setdefault(type(value).__name__, []).append(value)
    shuffled = []
    while topics:
        name = data.draw(st.sampled_from(sorted(topics)))
        shuffled.append(topics[name].pop(0))
        if not topics[name]:
            del topics[name]

    reference, other = Partition(*RULES), Partition(*RULES)
    reference.take(*first, *rest)
    other.take(*shuffled, *rest)

    assert other.ids == reference.ids
    assert dict(other.store.scan(b"line/")) == dict(reference.store.scan(b"line/"))


@settings(max_examples=30, deadline=None)
@given(stories(), st.integers(0, 100))
def test_an_index_that_is_built_again_finds_the_same(story: tuple[list[Any], list[Any]], at: int) -> None:
    """A restart anywhere: the rows say everything."""
    first, rest = story
    values = [*first, *rest]
    reference, other = Partition(*RULES), Partition(*RULES)
    reference.take(*values)
    other.take(*values[: at % len(values)])
    other.index = rebuild(other.overlay(), other.setup.rules, other.setup.retention)
    other.take(*values[at % len(values) :])

    assert [one.event_id for one in other.told] == [one.event_id for one in reference.told]


def test_the_shortest_rule_is_the_bound_of_what_is_remembered() -> None:
    """Without rules the default holds; rules that are off do not count."""
    assert Rules().shortest == 30
    assert Rules(replace(rule, active=False) for rule in RULES).shortest == 30
    assert Rules(RULES).shortest == 3
