"""Deliveries that were given up and are begun again: where they go in their key, and what is counted."""

from __future__ import annotations

import pytest

from agents.delivery.redrive import reopening
from agents.delivery.units import REOPENS
from streams.core.delivery.messages import Reopen, Verdict
from streams.core.delivery.units import State
from streams.core.errors import Poison
from streams.core.events import Event
from streams.kafka.chunks import Output
from tests.delivery.plant import Answer, Plant, event, subscription


def command(plant: Plant, letter: Output) -> Reopen:
    """What a redrive makes of a dead letter."""
    headers = {name: bytes(text or b"") for name, text in letter.headers or []}
    key = letter.key.encode() if isinstance(letter.key, str) else letter.key
    return reopening(headers, (), key, letter.value, plant.codec)


def redrive(plant: Plant, *commands: Reopen) -> list[Output]:
    return plant.chunk(REOPENS, [(None, plant.codec.encode(REOPENS, one), []) for one in commands])


def fails(sequence: int) -> Answer:
    def verdict(one: Event, name: str) -> Verdict:
        return Verdict.FAILED if one.sequence == sequence else Verdict.DELIVERED

    return verdict


def test_a_redriven_head_goes_before_what_waited_behind_it() -> None:
    """Parked by its exhaustion, the key goes on with it, in its exact order."""
    plant = Plant(subscription(schedule_s=(0,)))
    plant.answer(plant.attempts(plant.feed(event(1), event(2), event(3))), fails(1))
    assert plant.sequences() == {}
    [letter] = plant.dead()

    again = plant.attempts(redrive(plant, command(plant, letter)))
    plant.answer(again, fails(0))
    plant.reopen()
    plant.answer(plant.attempts(plant.tick(1)), fails(0))

    assert [(one.number, one.unit_id) for one in again[:1]] == [(2, command(plant, letter).unit_id)]
    assert plant.sequences() == {"A1": [1, 2, 3]}


def test_it_has_the_whole_policy_before_it_and_may_die_again() -> None:
    """Attempts of before are no attempts of now, but none has the number of one that was made."""
    plant = Plant(subscription(schedule_s=(0, 1)))
    plant.answer(plant.attempts(plant.feed(event(1))), fails(1))
    plant.answer(plant.attempts(plant.tick(2)), fails(1))
    [first] = plant.dead()

    plant.answer(plant.attempts(redrive(plant, command(plant, first))), fails(1))
    plant.answer(plant.attempts(plant.tick(2)), fails(1))

    assert [attempt.number for attempt, _ in plant.made] == [1, 2, 3, 4]
    assert len(plant.dead()) == 2


def test_the_same_command_twice_begins_it_once_and_what_was_delivered_stays_so() -> None:
    """A redrive that was interrupted is done again."""
    plant = Plant(subscription(schedule_s=(0,), ordering="unordered"))
    plant.answer(plant.attempts(plant.feed(event(1))), fails(1))
    again = command(plant, plant.dead()[0])

    begun = plant.attempts(redrive(plant, again, again))
    plant.answer(begun, fails(0))
    later = plant.attempts(redrive(plant, again))

    assert (len(begun), later) == (1, [])
    assert plant.done(again.unit_id).state is State.DELIVERED


def test_of_a_subscription_that_is_no_more_nothing_is_begun() -> None:
    """The letter stays a letter."""
    plant = Plant(subscription(schedule_s=(0,)))
    plant.answer(plant.attempts(plant.feed(event(1))), fails(1))
    again = command(plant, plant.dead()[0])
    plant.catalogue.subscriptions.clear()
    plant.catalogue.changes += 1

    assert redrive(plant, again) == []
    assert plant.done(again.unit_id).state is State.DEAD


def test_a_letter_that_was_cut_is_refused_with_the_reason() -> None:
    plant = Plant(subscription(schedule_s=(0,)))
    plant.answer(plant.attempts(plant.feed(event(1))), fails(1))
    headers = {name: bytes(text or b"") for name, text in plant.dead()[0].headers or []} | {"curfew-truncated": b"9"}

    with pytest.raises(Poison, match="can never be delivered"):
        reopening(headers, (), b"A1", plant.dead()[0].value, plant.codec)
