"""A pending change follows its account until its start: another zone moves it, a cancellation ends it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from streams.core.plan_change.machine import Change, ContextChanged, State
from streams.core.plan_change.messages import Context, ExecuteCommand, Resolution
from streams.core.plan_change.progress import rolled_over
from streams.core.plan_change.step import step
from streams.core.plan_change.window import derived, window
from streams.kafka.store import MemoryStore
from streams.topics import PLAN_CONTEXTS
from tests.core.billing import ACCOUNT, created, deleted
from tests.events.works import Works
from tests.plan_changes.makers import DEADLINE, NO_HOOKS, NOON, START, a_cancel, a_request, pending
from tests.plan_changes.plant import Plant, a_plan, a_service, an_account
from tests.plan_changes.test_agents import a_plant, kinds, the_change
from tests.plan_changes.test_machine import events, replies
from tests.plan_changes.test_repairs import resolve
from tests.support.batch import Outputs

HOUR = timedelta(hours=1)
LISBON = "Europe/Lisbon"  # an hour behind Berlin


def moved(zone: str | None = LISBON, **changed: Any) -> Context:
    fields = {"account_id": "A1", "service_id": None, "revision": 2, "zone": zone, "cancelled": False}
    return Context(**{**fields, **changed})


def follow(change: Change, context: Context, now: Any) -> Change:
    after = step(change, ContextChanged(context=context), now, NO_HOOKS).change
    assert after is not None
    return after


def hear(plant: Plant, *contexts: Context) -> Outputs:
    """Contexts reach the scheduler's partition."""
    topic = "plan-change.contexts"
    records = [(one.service_id or one.account_id, plant.codec.encode(topic, one)) for one in contexts]
    return plant.changes.run(plant.scheduler.contexts, topic, records)


def test_another_zone_moves_the_deadline() -> None:
    """The effective date stays the same local date; its midnight in Lisbon comes an hour later."""
    change = follow(pending(), moved(), NOON)

    assert (change.zone, change.account_revision, change.state) == (LISBON, 2, State.PENDING)
    assert (change.start_at, change.deadline_at) == (START + HOUR, DEADLINE + HOUR)
    assert change.release_at == window(LISBON, change.effective_date, 6, change.change_id).release_at


def test_a_move_to_the_east_may_start_it_at_once() -> None:
    """In Tokyo its start has passed already, its deadline not yet."""
    change = follow(pending(), moved("Asia/Tokyo"), NOON)

    assert change.deadline_at == DEADLINE - 8 * HOUR
    assert (change.state, change.release_at) == (State.STARTED, change.start_at)


@pytest.mark.parametrize(
    ("change", "context", "now"),
    [
        (replace(pending(), account_revision=2), moved(), NOON),
        (replace(pending(), account_revision=3), moved(cancelled=True), NOON),
        (pending(), moved("Mars/Olympus"), NOON),
        (replace(pending(), state=State.CANCELLED), moved(cancelled=True), NOON),
    ],
    ids=["it knows", "it knows that it came back", "no such zone", "it has ended"],
)
def test_what_leaves_a_change_alone(change: Change, context: Context, now: Any) -> None:
    """Older news, what cannot be used, and what does not matter any more."""
    assert follow(change, context, now) == change


@pytest.mark.parametrize("change", [pending(), replace(pending(), state=State.STARTED)])
def test_after_the_start_news_counts_for_the_next_date_only(change: Change) -> None:
    """The start instant is the point of no return; rolled over, the change is where its account is by then."""
    heard = follow(change, moved(), START)
    assert (heard.state, heard.zone, heard.deadline_at) == (change.state, "Europe/Berlin", DEADLINE)

    rolled = rolled_over(heard, DEADLINE)
    assert rolled is not None
    assert (rolled.zone, rolled.next_zone, rolled.deadline_at) == (LISBON, None, DEADLINE + 25 * HOUR)


def test_nothing_is_rolled_or_finished_for_an_account_that_has_gone() -> None:
    """It may only be abandoned, unless the account comes back."""
    gone = follow(replace(pending(), state=State.HELD, closed=True), moved(cancelled=True), DEADLINE)
    for resolution in (Resolution.ROLL, Resolution.FINISH_LATE):
        decided = step(gone, resolve(resolution), DEADLINE, NO_HOOKS)
        assert [reply.reasons for reply in replies(decided)] == [("account_cancelled",)]

    back = follow(gone, moved(revision=3), DEADLINE)
    for change, resolution in ((gone, Resolution.ABANDON), (back, Resolution.ROLL)):
        assert replies(step(change, resolve(resolution), DEADLINE, NO_HOOKS))[0].accepted


def test_of_two_contexts_in_one_chunk_the_newer_counts() -> None:
    """They may have been sent again in another order."""
    plant = a_plant()
    plant.request(a_request())

    hear(plant, moved(revision=3), moved("Asia/Tokyo", revision=2))

    assert the_change(plant).zone == LISBON


@pytest.mark.parametrize("silent", [False, True])
def test_a_cancellation_ends_it(silent: bool) -> None:
    """With an event that says why; a silent change tells the customer nothing."""
    change = replace(pending(), silent=silent)

    decided = step(change, ContextChanged(context=moved(cancelled=True)), NOON, NO_HOOKS)

    assert decided.change is not None
    assert (decided.change.state, decided.change.reason) == (State.CANCELLED, "account_cancelled")
    assert events(decided.effects) == ([] if silent else ["cancelled"])


def test_only_the_changes_of_that_account_follow() -> None:
    """And the due work follows the rows: the start comes at the new instant, not at the old one."""
    plant = a_plant()
    plant.knows(an_account(id="A2"), a_service(id="S2", account_id="A2"), a_plan(service_id="S2", account_id="A2"))
    plant.request(a_request(), a_request("R2", account_id="A2", service_id="S2"))

    hear(plant, moved())

    assert (the_change(plant).zone, the_change(plant, "S2").zone) == (LISBON, "Europe/Berlin")
    assert kinds(plant, plant.tick(START)) == ["started"]
    assert (the_change(plant).state, the_change(plant, "S2").state) == ("pending", "started")
    assert kinds(plant, plant.tick(START + HOUR)) == ["started"]


def test_news_of_an_account_looks_at_open_changes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many services of it, or of others, ever had a change; ids may have slashes."""
    plant = a_plant()
    services = {f"S{number}": "A1" for number in range(4)} | {"S9": "A2", "x/S1": "A1/x"}
    for service, owner in services.items():
        about = {"account_id": owner}
        plant.knows(an_account(id=owner), a_service(id=service, **about), a_plan(service_id=service, **about))
        plant.request(a_request(f"R-{service}", service_id=service, account_id=owner))
    for service in ("S0", "S2"):
        plant.request(a_cancel(f"C-{service}", service_id=service))
    looked: list[bytes] = []
    get = MemoryStore.get

    def noted(rows: MemoryStore, key: bytes) -> bytes | None:
        looked.append(key)
        return get(rows, key)

    monkeypatch.setattr(MemoryStore, "get", noted)
    hear(plant, moved())

    assert [key for key in looked if key.startswith(b"change/")] == [b"change/S1", b"change/S3"]
    monkeypatch.undo()
    assert [the_change(plant, service).zone == LISBON for service in services] == [
        False,
        True,
        False,
        True,
        False,
        False,
    ]


def test_an_order_that_was_overtaken_by_the_news_is_decided_on_the_news() -> None:
    """The account's partition annotated it before the move; the two come on different topics."""
    plant = a_plant()
    hear(plant, moved())

    assert plant.replies(plant.request(a_request()))[0].deadline_at == DEADLINE + HOUR

    hear(plant, moved(service_id="S1", zone=None, cancelled=True))
    [reply] = plant.replies(plant.request(a_request("R2", expected_revision=1)))
    assert "service_cancelled" in reply.reasons

    hear(plant, moved(service_id="S1", zone=None, revision=3))
    assert plant.replies(plant.request(a_request("R3")))[0].accepted


def test_older_news_changes_nothing() -> None:
    """Contexts may come twice, and an order may know more than they say."""
    plant = a_plant()
    plant.request(a_request())
    hear(plant, moved("Asia/Tokyo", revision=1))
    assert the_change(plant).zone == "Europe/Berlin"

    hear(plant, moved(revision=3))
    hear(plant, moved("Europe/Berlin", revision=2))
    assert the_change(plant).zone == LISBON


def test_a_crash_in_the_middle_takes_the_news_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes in the slice that was lost follow too."""
    monkeypatch.setattr("agents.plan_changes.scheduler.SLICE", 2)
    plant = a_plant()
    services = [f"S{number}" for number in range(5)]
    for service in services:
        plant.knows(an_account(), a_service(id=service), a_plan(service_id=service))
    plant.request(*(a_request(f"R-{service}", service_id=service) for service in services))
    topic = "plan-change.contexts"
    chunk = plant.changes.chunk(topic, [("A1", plant.codec.encode(topic, moved()))])

    plant.changes.replay(plant.scheduler.contexts, chunk, crash_after_outputs=0, crash_in_slice=2)
    assert {the_change(plant, service).zone for service in services} == {"Europe/Berlin", LISBON}
    plant.changes.replay(plant.scheduler.contexts, chunk)

    assert {the_change(plant, service).zone for service in services} == {LISBON}
    assert plant.read(plant.tick(START), "plan-change.commands", ExecuteCommand) == []


def test_a_zone_that_new_tz_data_dropped_keeps_what_was_derived() -> None:
    """It must not stop the partition that holds the change; its start and deadline stay as they were."""
    change = replace(pending(), zone="Mars/Olympus", tz_version="2017a")

    assert derived(change) == change


def restarted(*contexts: Context) -> Plant:
    """An order is open; the worker was started again, and hears these before its first tick."""
    plant = a_plant()
    plant.request(a_request())
    plant.changes.now = None
    plant.changes.reopen()
    for context in contexts:
        hear(plant, context)
    assert (the_change(plant).zone, the_change(plant).state) == ("Europe/Berlin", State.PENDING)
    return plant


@pytest.mark.parametrize("again", [False, True], ids=["one start", "another start in between"])
@pytest.mark.parametrize(
    ("contexts", "zone", "state"),
    [
        ([moved(cancelled=True)], "Europe/Berlin", State.CANCELLED),
        ([moved(service_id="S1", zone=None, cancelled=True)], "Europe/Berlin", State.CANCELLED),
        ([moved()], LISBON, State.PENDING),
        ([moved("Asia/Tokyo"), moved(revision=3)], LISBON, State.PENDING),
    ],
    ids=["account cancelled", "service cancelled", "moved", "moved twice"],
)
def test_news_before_the_first_tick_is_followed_at_it(
    contexts: list[Context], zone: str, state: State, again: bool
) -> None:
    """Nothing can be decided without business time, and the news does not come again."""
    plant = restarted(*contexts)
    if again:
        plant.changes.reopen()

    plant.tick(NOON + HOUR)

    assert (the_change(plant).zone, the_change(plant).state) == (zone, state)
    assert [key for key, _ in plant.changes.store.scan(b"heard/")] == []
    assert kinds(plant, plant.tick(START)) == []


def test_news_that_waited_comes_before_requests_that_did() -> None:
    """They too find the change as its account has made it."""
    plant = restarted(moved(cancelled=True))
    assert plant.replies(plant.request(a_cancel())) == []

    [reply] = plant.replies(plant.tick(NOON + HOUR))

    assert reply.reasons == ("no_open_change",)


def test_news_that_waited_does_not_undo_what_came_after_it() -> None:
    """Something newer may be taken before the tick's own work is done."""
    plant = restarted(moved("Asia/Tokyo"))
    plant.changes.now = NOON + HOUR

    hear(plant, moved(revision=3))

    assert the_change(plant).zone == LISBON


@pytest.mark.parametrize("rows", range(6))
def test_a_crash_loses_no_news_that_waits(rows: int) -> None:
    """Neither when it is taken nor while changes follow it; what was durable by then comes again and does no harm."""
    plant = a_plant()
    services = [f"S{number}" for number in range(3)]
    for service in services:
        plant.knows(an_account(), a_service(id=service), a_plan(service_id=service))
    plant.request(*(a_request(f"R-{service}", service_id=service) for service in services))
    plant.changes.now = None
    plant.changes.reopen()
    topic = "plan-change.contexts"
    chunk = plant.changes.chunk(topic, [("A1", plant.codec.encode(topic, moved()))])

    plant.changes.replay(plant.scheduler.contexts, chunk, crash_after_rows=rows)
    plant.changes.replay(plant.scheduler.contexts, chunk)
    plant.changes.now = NOON + HOUR
    tick = plant.changes.chunk("clock.ticks", [(None, b"")])
    plant.changes.replay(plant.scheduler.ticks, tick, crash_after_rows=rows)
    plant.changes.replay(plant.scheduler.ticks, tick)

    assert {the_change(plant, service).zone for service in services} == {LISBON}
    assert plant.read(plant.tick(START), "plan-change.commands", ExecuteCommand) == []


def test_the_end_of_an_account_is_over_when_it_comes_back() -> None:
    """From the account's records to the change: else it could only be abandoned, were it held."""
    plant, works = a_plant(), Works()
    plant.request(a_request())

    def told(*changes: Any) -> None:
        before = len(works.outputs)
        for change in changes:
            works.feed("billing.account", [change])
        sent = [out for out in works.outputs[before:] if out.topic == PLAN_CONTEXTS]
        hear(plant, *(works.codec.decode(out.value, Context) for out in sent if out.partition == 0))

    plant.tick(START)
    told(created(ACCOUNT), deleted(ACCOUNT))
    assert the_change(plant).ended == "account_cancelled"

    told(created(ACCOUNT, 3))

    assert the_change(plant).ended is None
