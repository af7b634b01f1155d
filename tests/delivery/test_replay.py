"""Events that are sent again: which unit that is, what it holds up, and what it sets off."""

from __future__ import annotations

import asyncio

import pytest

from agents.delivery.replays import from_letter
from streams.core.delivery import hops
from streams.core.delivery.messages import Header, Replay, Verdict
from streams.core.delivery.units import State
from streams.core.events import Event
from streams.core.ids import replayed_unit_id, unit_id
from streams.core.subscriptions import Calculate, OnExhausted, Subscription
from streams.kafka.chunks import Output
from streams.topics import REPLAYS
from tests.delivery.plant import PARTITION, Plant, event, forward, numbers, subscription
from tests.delivery.receiving import sender
from tests.delivery.test_redrive import command as reopening
from tests.delivery.test_redrive import fails, redrive


def command(plant: Plant, one: Event, name: str = "crm", run: str = "run-1", offset: int = 0) -> Replay:
    """What `curfew subscriptions replay` asks for."""
    wanted: Subscription = plant.catalogue.subscriptions[name]
    return Replay(
        run=run, unit_id=unit_id(one.event_id, wanted.id), subscription_id=wanted.id, subscription=name, recipient="",
        queue=wanted.queue, queue_partition=PARTITION, queue_offset=offset, event_id=one.event_id,
        key=one.key.encode(), value=plant.codec.encode(f"queue.{wanted.queue}", one), headers=(),
    )  # fmt: skip


def replay(plant: Plant, *commands: Replay, **how: bool) -> list[Output]:
    return plant.chunk(REPLAYS, [(None, plant.codec.encode(REPLAYS, one), []) for one in commands], **how)


def delivered(plant: Plant, *events: Event) -> None:
    plant.answer(plant.attempts(plant.feed(*events)))


def test_a_replay_is_a_marked_unit_of_its_own_under_the_webhook_id_of_the_event() -> None:
    """The event's own unit stays what it was."""
    plant = Plant(subscription())
    delivered(plant, event(1))
    wanted = command(plant, event(1))

    [attempt] = plant.attempts(replay(plant, wanted))
    plant.answer([attempt])

    assert attempt.unit_id == replayed_unit_id("run-1", wanted.unit_id) != wanted.unit_id
    assert (attempt.replay, attempt.replay_of, attempt.number) == ("run-1", wanted.unit_id, 1)
    assert plant.done(wanted.unit_id).replay is None
    assert (plant.done(attempt.unit_id).state, plant.done(attempt.unit_id).replay) == (State.DELIVERED, "run-1")


@pytest.mark.parametrize("verdict", [Verdict.DELIVERED, Verdict.FAILED])
def test_the_same_command_twice_is_sent_once_in_its_run_and_again_in_another(verdict: Verdict) -> None:
    """An interrupted run is finished under its name."""
    plant = Plant(subscription(schedule_s=(0,)))
    delivered(plant, event(1))
    wanted = command(plant, event(1))

    first = plant.attempts(replay(plant, wanted, wanted))
    plant.answer(first, lambda one, name: verdict)
    again = plant.attempts(replay(plant, wanted))
    other = plant.attempts(replay(plant, command(plant, event(1), run="run-2")))

    assert (len(first), len(again), len(other)) == (1, 0, 1)


def test_a_chunk_that_is_decided_again_after_a_crash_asks_for_the_same_attempts() -> None:
    plant = Plant(subscription())
    delivered(plant, event(1), event(2))
    commands = [command(plant, event(n)) for n in (1, 2)]

    lost = plant.attempts(replay(plant, *commands, crash=True))
    again = plant.attempts(replay(plant, *commands, again=True))
    repeated = plant.attempts(replay(plant, *commands, again=True))

    assert {one.attempt_id for one in lost} == {one.attempt_id for one in again}
    assert repeated == []


def test_a_run_keeps_the_order_of_a_key_and_holds_up_no_event() -> None:
    """A replay that fails parks the rest of its run's key; what happens now goes by."""
    plant = Plant(subscription(schedule_s=(0,)))
    delivered(plant, event(1), event(2))

    plant.answer(plant.attempts(replay(plant, command(plant, event(1)), command(plant, event(2), offset=1))), fails(1))
    parked = plant.sequences()
    delivered(plant, event(3))
    [letter] = plant.dead()
    plant.answer(plant.attempts(redrive(plant, reopening(plant, letter))))
    plant.answer(plant.attempts(plant.tick(2)))

    assert parked == {"A1": [1, 2]}
    assert plant.sequences() == {"A1": [1, 2, 3, 1, 2]}


def test_what_happens_now_goes_before_a_long_replay() -> None:
    """The window of the endpoint is full of a replay; the first place that gets free is the new event's."""
    plant = Plant(subscription(ordering="unordered", max_per_second=1))
    events = [event(n, f"A{n}") for n in range(20)]
    delivered(plant, *events)
    plant.tick(60)
    begun = plant.attempts(replay(plant, *(command(plant, one, offset=n) for n, one in enumerate(events))))
    plant.reopen()
    plant.tick()

    waiting = plant.attempts(plant.feed(event(99, "A99")))
    freed = plant.attempts(plant.settle(begun[0]))

    assert waiting == []
    assert numbers(freed, plant.codec) == [99]


def test_a_delivered_replay_of_an_exhausted_head_lets_its_key_go_on() -> None:
    """The receiver has what it had refused, so what waits behind it is in order."""
    plant = Plant(subscription(schedule_s=(0,)))
    plant.answer(plant.attempts(plant.feed(event(1), event(2), event(3))), fails(1))
    assert plant.sequences() == {}

    plant.answer(plant.attempts(replay(plant, command(plant, event(1)))))
    plant.answer(plant.attempts(plant.tick(1)))

    assert plant.sequences() == {"A1": [1, 2, 3]}


def test_what_is_open_or_cannot_be_sent_is_discarded_and_accounted_for() -> None:
    """An event that waits for its own delivery; a calculation; a subscription that is no more."""
    plant = Plant(
        subscription(paused=True), subscription("sums", calculation=Calculate(name="sum")), subscription("gone")
    )
    plant.feed(event(1))
    commands = [command(plant, event(1)), command(plant, event(2), "sums"), command(plant, event(3), "gone")]
    del plant.catalogue.subscriptions["gone"]
    plant.catalogue.changes += 1

    made = plant.attempts(replay(plant, *commands))

    ends = [plant.done(replayed_unit_id("run-1", one.unit_id)) for one in commands]
    assert made == []
    assert [(one.state, one.reason) for one in ends] == [
        (State.DISCARDED, "open"), (State.DISCARDED, "calculation"), (State.DISCARDED, "no_subscription"),
    ]  # fmt: skip


def test_a_command_that_cannot_be_read_is_a_dead_letter_of_its_run() -> None:
    """It may have been written by anybody."""
    plant = Plant(subscription())
    wanted = command(plant, event(1))

    replay(plant, Replay(**{name: getattr(wanted, name) for name in Replay.__slots__} | {"run": "a\nb: c"}))
    replay(plant, Replay(**{name: getattr(wanted, name) for name in Replay.__slots__} | {"value": b"no Avro"}))

    reasons = [dict(one.headers or ())["curfew-reason"] for one in plant.dead()]
    assert reasons == [b"bad_run", b"not_avro"]
    assert plant.attempts() == []


def test_a_dead_replay_is_redriven_as_a_replay() -> None:
    """It is still the webhook-id of the event, and another run can repeat it by its letter."""
    plant = Plant(subscription(schedule_s=(0,), on_exhausted=OnExhausted.SKIP))
    delivered(plant, event(1))
    wanted = command(plant, event(1))
    plant.answer(plant.attempts(replay(plant, wanted)), fails(1))
    [letter] = plant.dead()

    [again] = plant.attempts(redrive(plant, reopening(plant, letter)))

    assert (again.replay, again.replay_of, again.number) == ("run-1", wanted.unit_id, 2)
    assert from_letter(reopening(plant, letter)).unit_id == wanted.unit_id


def test_a_forward_that_is_replayed_is_marked_and_sets_nothing_off() -> None:
    """Neither a forward nor a calculation of the other queue takes it; a webhook there does, with the mark."""
    plant = Plant(
        forward("copy", "customer-events", "partner"),
        forward("on", "partner", "operations"),
        subscription("sums", queue="partner", calculation=Calculate(name="sum")),
        subscription("hook", queue="partner"),
        sender=sender(),
    )
    asyncio.run(plant.run(plant.attempts(replay(plant, command(plant, event(1), "copy")))))
    [moved] = [one for one in plant.outputs if one.topic == "queue.partner"]
    assert moved.value is not None

    made = plant.attempts(plant.chunk(moved.topic, [(b"A1", moved.value, list(moved.headers or ()))]))

    assert [one.subscription for one in made] == ["hook"]
    assert hops.replayed(made[0].headers) == "run-1"
    [onward] = plant.attempts(replay(plant, command(plant, event(1), "on", run="run-2")))
    assert onward.replay == "run-2", "a person may ask for the next step too"


def test_a_mark_from_outside_goes_into_no_header_as_it_is() -> None:
    """Anybody may write to a queue."""
    assert hops.replayed([Header(name="curfew-replay", value=b"x\r\nBcc: all@example.com")]) == "unknown"
    assert hops.replayed([]) is None
