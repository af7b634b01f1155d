"""Order per key, retries, exhaustion and crashes of the delivery worker's decisions."""

from __future__ import annotations

import struct
from dataclasses import replace
from datetime import timedelta

import pytest

from agents.delivery.units import REOPENS, SLICE
from streams.core.delivery import units
from streams.core.delivery.flow import TRAIN
from streams.core.delivery.messages import Reopen, Verdict
from streams.core.delivery.retries import JITTER, MAX_RETRY_AFTER_S, next_delay_ms
from streams.core.delivery.units import Done, State, Unit
from streams.core.delivery.window import GROWS_AFTER, HALVED_ONCE_IN_MS, REFILL_PART, WINDOW, Window
from streams.core.events import Event
from streams.core.ids import derive
from streams.core.subscriptions import DEFAULT_SCHEDULE, OnExhausted, Ordering
from tests.delivery.plant import PARTITION, Plant, event, numbers, subscription


def test_events_of_one_key_go_one_after_another_and_other_keys_do_not_wait() -> None:
    """A key whose head fails parks only itself; after the repair its order is exact."""
    plant = Plant(subscription())
    broken = True

    def verdict(one: Event, name: str) -> Verdict:
        return Verdict.FAILED if broken and one.key == "A" else Verdict.DELIVERED

    plant.answer(plant.attempts(plant.feed(*(event(n, key) for n in range(1, 6) for key in "AB"))), verdict)
    assert plant.sequences() == {"B": [1, 2, 3, 4, 5]}
    assert plant.sequences(Verdict.FAILED) == {"A": [1]}
    broken = False
    plant.answer(plant.attempts(plant.tick(6)), verdict)

    assert plant.sequences() == {"A": [1, 2, 3, 4, 5], "B": [1, 2, 3, 4, 5]}
    assert [attempt.number for attempt, _ in plant.made if attempt.queue_offset == 0] == [1, 2]


def test_a_train_names_the_attempt_before_and_is_bounded() -> None:
    """Many events of one key are handed over together; the dispatch worker is told what each of them follows."""
    plant = Plant(subscription())

    train = plant.attempts(plant.feed(*(event(n) for n in range(TRAIN + 10))))

    assert len(train) == TRAIN
    assert [one.follows for one in train] == [None, *(one.attempt_id for one in train[:-1])]
    plant.answer(train)
    assert plant.sequences() == {"A1": list(range(TRAIN + 10))}


def test_the_train_of_a_failed_head_waits_and_costs_no_attempts() -> None:
    """Those behind are postponed, not failed; the head is retried alone, and then they go in their order."""
    plant = Plant(subscription())
    failures = iter([Verdict.FAILED, Verdict.FAILED])
    plant.answer(
        plant.attempts(plant.feed(*(event(n) for n in range(5)))), lambda one, name: next(failures, Verdict.DELIVERED)
    )

    retried = plant.attempts(plant.tick(6))
    assert [(one.number, one.follows) for one in retried] == [(2, None)]
    plant.answer(retried, lambda one, name: next(failures, Verdict.DELIVERED))
    plant.answer(plant.attempts(plant.tick(400)))

    assert plant.sequences() == {"A1": [0, 1, 2, 3, 4]}
    assert [attempt.number for attempt, _ in plant.made] == [1, 2, 3, 1, 1, 1, 1]


def test_unordered_keys_do_not_wait() -> None:
    """Both events of a key are attempted at once, and a failing one holds nobody up."""
    plant = Plant(subscription(ordering=Ordering.UNORDERED))

    made = plant.attempts(plant.feed(event(1), event(2)))

    assert numbers(made, plant.codec) == [1, 2]


def test_a_unit_is_attempted_as_often_as_its_schedule_says_and_then_dead_lettered() -> None:
    """Ten attempts, each not before its delay, then one dead letter with the record unchanged and both header sets."""
    plant = Plant(subscription())
    [attempt] = plant.attempts(plant.feed(event(1)))
    original = attempt.value

    for number, delay_s in enumerate(DEFAULT_SCHEDULE[1:], 2):
        assert plant.fail(attempt) == []
        assert plant.tick(delay_s - 1) == []
        [attempt] = plant.attempts(plant.tick(delay_s * JITTER + 2))
        assert attempt.number == number
    plant.fail(attempt, status=503, body="no")

    [dead] = plant.dead()
    headers = dict(dead.headers or ())
    assert dead.value == original
    assert dead.key == b"A1"
    assert headers["curfew-reason"] == b"exhausted"
    assert headers["curfew-attempts"] == b"10"
    assert headers["curfew-status"] == b"503"
    assert headers["curfew-response"] == b"no"
    assert headers["__connect.errors.topic"] == b"queue.customer-events"
    assert headers["__connect.errors.offset"] == b"0"
    assert struct.unpack(">i", headers["kafka_dlt-original-partition"]) == (3,)
    assert struct.unpack(">q", headers["kafka_dlt-original-offset"]) == (0,)
    assert plant.tick(10 * 86_400) == []


def test_an_exhausted_head_parks_its_key_until_the_policy_says_skip() -> None:
    """on_exhausted=park keeps the later events of the key pending; skip lets them go on, in their order."""
    plant = Plant(subscription(schedule_s=(0,)))

    def verdict(one: Event, name: str) -> Verdict:
        return Verdict.FAILED if (one.key, one.sequence) == ("A", 1) else Verdict.DELIVERED

    fed = plant.feed(event(1, "A"), event(2, "A"), event(3, "A"), event(1, "B"))
    plant.answer(plant.attempts(fed), verdict)
    plant.answer(plant.attempts(plant.feed(event(4, "A"), event(2, "B"))), verdict)
    plant.reopen()
    assert plant.tick(3_600) == []
    assert plant.sequences() == {"B": [1, 2]}
    plant.apply(replace(plant.catalogue.subscriptions["crm"], on_exhausted=OnExhausted.SKIP))
    plant.answer(plant.attempts(plant.tick(1)), verdict)

    assert plant.sequences() == {"A": [2, 3, 4], "B": [1, 2]}
    assert len(plant.dead()) == 1


def test_what_can_never_be_delivered_does_not_park_its_key() -> None:
    """A body that is too large is dead at once, and the next events of the key go."""
    plant = Plant(subscription())

    def verdict(one: Event, name: str) -> Verdict:
        return Verdict.PERMANENT if one.sequence == 1 else Verdict.DELIVERED

    plant.answer(plant.attempts(plant.feed(event(1), event(2), event(3))), verdict)
    plant.answer(plant.attempts(plant.tick(2)), verdict)

    assert plant.sequences() == {"A1": [2, 3]}
    assert len(plant.dead()) == 1


def test_retry_after_is_honoured_and_bounded() -> None:
    """The receiver's wish counts when it is longer than the schedule, but at most a day."""
    plant = Plant(subscription())
    [attempt] = plant.attempts(plant.feed(event(1)))

    plant.fail(attempt, status=429, retry_after_s=120)

    assert plant.tick(119) == []
    assert len(plant.attempts(plant.tick(2 + 120 * JITTER))) == 1
    year = 365 * 86_400
    bounded = next_delay_ms((0, 5), 1, attempt.attempt_id, year)
    assert bounded is not None
    assert MAX_RETRY_AFTER_S * 1000 <= bounded <= MAX_RETRY_AFTER_S * 1000 * (1 + JITTER)


def test_jitter_is_only_added_is_spread_and_follows_from_the_id() -> None:
    """Delays of 1,000 attempts lie in [d, 1.1 d], use most of that range, and are the same when asked again."""
    ids = [derive("attempt", str(number)) for number in range(1_000)]
    delays = [next_delay_ms((0, 300), 1, one, None) or 0 for one in ids]

    assert min(delays) >= 300_000
    assert max(delays) <= 330_000
    assert max(delays) - min(delays) > 25_000
    assert delays == [next_delay_ms((0, 300), 1, one, None) for one in ids]


def test_410_disables_the_endpoint_until_a_newer_version() -> None:
    """After 410 nothing is sent, also after a restart; a newer version begins again with the same units in order."""
    plant = Plant(subscription())
    [attempt] = plant.attempts(plant.feed(event(1)))

    plant.fail(attempt, status=410)
    plant.feed(event(2), event(1, "B"))
    plant.reopen()
    assert plant.attempts(plant.tick(3_600)) == []
    plant.apply(replace(plant.catalogue.subscriptions["crm"], parameters=("service.name",)))
    again = plant.attempts(plant.tick(1))

    assert [(one.number, number) for one, number in zip(again, numbers(again, plant.codec), strict=True)] == [
        (2, 1),
        (1, 1),
    ]


def test_units_of_a_paused_subscription_wait_and_die_of_age() -> None:
    """Paused means pending, not lost; after max_age_s they are dead letters, so rows cannot grow for ever."""
    plant = Plant(subscription(paused=True, max_age_s=3_600, ordering=Ordering.UNORDERED))
    assert plant.feed(event(1), event(2)) == []
    assert plant.tick(3_599) == []

    plant.tick(2)

    assert [dict(one.headers or ())["curfew-reason"] for one in plant.dead()] == [b"max_age", b"max_age"]


def test_what_waits_behind_a_parked_head_dies_of_age_too() -> None:
    """It is nobody's turn, and still its row must not stay for ever; the key is parked as before."""
    plant = Plant(subscription(schedule_s=(0,), max_age_s=3_600))
    first, *_ = plant.attempts(plant.feed(event(1)))
    plant.fail(first)
    plant.tick(1_800)
    plant.feed(event(2), event(3))
    plant.tick(1_800)
    plant.feed(event(4))
    reasons = [dict(one.headers or ())["curfew-reason"] for one in plant.dead()]
    plant.reopen()

    plant.tick(1_801)

    assert reasons == [b"exhausted"]
    assert [dict(one.headers or ())["curfew-reason"] for one in plant.dead()] == [b"exhausted", b"max_age", b"max_age"]
    assert len(plant.rows("unit/")) == 1, "the fourth event is younger"
    assert len(plant.rows("lane/")) == 1


def test_an_attempt_that_was_lost_is_asked_for_again_and_the_key_goes_on() -> None:
    """E.g. older than its topic keeps it, after days without a dispatch worker. It is the same attempt, of the head of
    the key only, and not before two looks have found it."""
    plant = Plant(subscription())
    lost = plant.attempts(plant.feed(event(1), event(2)))
    asked = [plant.attempts(plant.tick(3_600)) for _ in range(4)]

    assert [one.number for one in lost] == [1, 1]
    assert [[one.attempt_id for one in some] for some in asked] == [[], [], [lost[0].attempt_id], []]
    plant.answer([asked[2][0], lost[1]])
    assert plant.sequences() == {"A1": [1, 2]}
    assert plant.rows("unit/") == {}
    assert [plant.attempts(plant.tick(7_200)) for _ in range(3)] == [[], [], []]


@pytest.mark.parametrize("redriven", [False, True])
def test_a_record_whose_key_makes_it_too_large_is_a_dead_letter(redriven: bool) -> None:
    """Key and value are in the row, which the changelog takes up to a megabyte; also when it is sent back as it is."""
    plant = Plant(subscription())
    value = plant.codec.encode("queue.customer-events", event(1, facts={"long": "x" * 850_000}))
    plant.chunk("queue.customer-events", [(b"k" * 150_000, value, [])])
    if redriven:
        [(unit_id, _)] = [(dict(one.headers or ())["curfew-unit-id"].decode(), one) for one in plant.dead()]
        plant.chunk(REOPENS, [(b"", plant.codec.encode(REOPENS, reopened(plant, unit_id, value)), [])])

    assert [dict(one.headers or ())["curfew-reason"] for one in plant.dead()] == [b"too_large"] * (1 + redriven)
    assert plant.attempts() == []
    assert plant.rows("unit/") == {}


@pytest.mark.parametrize("name", ["event_id", "account_id"])
def test_an_event_with_an_endless_id_is_put_aside(name: str) -> None:
    """Ids are in rows and messages of their own, which it would not fit into."""
    plant = Plant(subscription())

    plant.feed(event(1, **{name: "x" * 600_000}), event(2))

    assert [dict(one.headers or ())["curfew-reason"] for one in plant.dead()] == [b"invalid"]
    assert len(plant.attempts()) == 1


def test_a_repeated_event_is_recognised_before_and_after_its_delivery() -> None:
    """The same event id again makes no second unit."""
    plant = Plant(subscription())
    [attempt] = plant.attempts(plant.feed(event(1)))

    assert plant.feed(event(1, parameters={"service.name": "newer"})) == []
    plant.settle(attempt)
    assert plant.feed(event(1)) == []

    assert len(plant.rows("done/")) == 1
    assert plant.rows("unit/") == {}


def test_a_crash_between_outputs_and_rows_asks_for_the_same_attempts_again() -> None:
    """Killed after phase 2: the replay emits the same attempt ids, and a result that came first changes nothing."""
    plant = Plant(subscription())
    before = plant.attempts(plant.feed(event(1, "A"), event(1, "B"), crash=True))
    plant.settle(before[0])

    after = plant.attempts(plant.feed(event(1, "A"), event(1, "B"), again=True))

    assert [one.attempt_id for one in after] == [one.attempt_id for one in before]
    assert [plant.settle(one) for one in after] == [[], []]
    assert plant.rows("unit/") == {}


def test_a_replayed_chunk_decides_nothing_anew_even_if_the_subscription_has_changed() -> None:
    """Rows durable, commit lost: the same records with a newer version that wants none of them change nothing."""
    plant = Plant(subscription())
    plant.feed(event(1), event(2))
    rows = plant.rows("unit/")
    counted = plant.rows("activation/")

    plant.apply(replace(plant.catalogue.subscriptions["crm"], event_types=("bill_run.started",)))
    assert plant.feed(event(1), event(2), again=True) == []

    assert plant.rows("unit/") == rows
    [activation] = [units.decode(row, units.Activation) for row in plant.rows("activation/").values()]
    [first] = [units.decode(row, units.Activation) for row in counted.values()]
    assert (activation.accepted, activation.filtered, activation.through) == (2, 0, 2)
    assert activation.version_at(1) == 1
    assert first.through == 2


def test_repeated_and_late_results_change_nothing() -> None:
    """The result of attempt 1 again, after attempt 2 was begun, neither counts nor moves its due instant."""
    plant = Plant(subscription())
    [first] = plant.attempts(plant.feed(event(1)))
    plant.fail(first)
    plant.fail(first)
    [second] = plant.attempts(plant.tick(6))
    plant.fail(first)

    [row] = [units.decode(data, Unit) for data in plant.rows("unit/").values()]

    assert (row.state, row.attempts, second.number) == (State.IN_FLIGHT, 2, 2)


def test_delivered_is_a_fact_whenever_it_is_learned() -> None:
    """A success that was reported after the unit was given up makes it delivered, so that the ledger is true."""
    plant = Plant(subscription(schedule_s=(0,)))
    [attempt] = plant.attempts(plant.feed(event(1)))
    plant.fail(attempt)

    plant.settle(attempt)

    [done] = [units.decode(data, Done) for data in plant.rows("done/").values()]
    assert done.state is State.DELIVERED


def test_a_postponed_attempt_does_not_count() -> None:
    """The endpoint was busy: the same attempt is asked for again, with the same id."""
    plant = Plant(subscription())
    [attempt] = plant.attempts(plant.feed(event(1)))

    plant.settle(attempt, Verdict.POSTPONED, reason="busy", status=None)
    [again] = plant.attempts(plant.tick(2))

    assert (again.attempt_id, again.number) == (attempt.attempt_id, 1)


def test_a_restart_in_mid_retry_loses_neither_attempts_nor_their_number() -> None:
    """What is due comes from the rows: after a restart the third attempt is the third, at its time."""
    plant = Plant(subscription())
    [attempt] = plant.attempts(plant.feed(event(1)))
    plant.fail(attempt)
    [attempt] = plant.attempts(plant.tick(6))
    plant.fail(attempt)

    plant.reopen()

    assert plant.tick(290) == []
    [third] = plant.attempts(plant.tick(50))
    assert third.number == 3


def test_only_a_window_of_units_is_in_flight_and_the_rest_follows_in_parts() -> None:
    """A slow endpoint cannot fill the topic of attempts; one that has its window full gets more by the quarter, not an
    attempt for each result."""
    plant = Plant(subscription(ordering=Ordering.UNORDERED))
    made = plant.attempts(plant.feed(*(event(number) for number in range(2 * WINDOW))))
    part = WINDOW // REFILL_PART

    early = [plant.attempts(plant.settle(one)) for one in made[: part - 1]]
    following = plant.attempts(plant.settle(made[part - 1]))
    late = plant.attempts(plant.settle(made[part]))

    assert len(made) == WINDOW
    assert early == [[]] * (part - 1)
    assert numbers(following, plant.codec) == list(range(WINDOW, WINDOW + part))
    assert late == []


def test_an_endpoint_that_was_too_busy_gets_half_as_much() -> None:
    """Else the units of a slow endpoint would circle between the workers; what comes back at once halves it once."""
    plant = Plant(subscription(ordering=Ordering.UNORDERED))
    made = plant.attempts(plant.feed(*(event(number) for number in range(4 * WINDOW))))

    busy = [plant.settle(one, Verdict.POSTPONED, reason="busy", status=None, retry_after_s=2) for one in made]
    half = [one for outputs in busy for one in plant.attempts(outputs)]

    assert len(half) == WINDOW // 2
    plant.answer(half)
    plant.answer(plant.attempts(plant.tick(2)))
    assert plant.rows("unit/") == {}


def test_a_window_leaves_every_open_request_something_to_do_and_grows_with_what_is_delivered() -> None:
    """Slowly enough that a slow endpoint has it narrow, quickly enough for one that was slow for a moment."""
    window, wide = Window(), subscription(max_concurrency=16)
    for busy in range(20):
        window.was_busy(wide, busy * HALVED_ONCE_IN_MS)
    assert window.size(wide) == 16

    for _ in range(GROWS_AFTER * (WINDOW - 17)):
        window.delivered()
    assert window.size(wide) == WINDOW - 1
    for _ in range(GROWS_AFTER * 2):
        window.delivered()
    assert window.size(wide) == WINDOW


def test_a_window_is_halved_from_what_the_rate_lets_it_be() -> None:
    """Halved from what nobody uses, it would take long to have an effect; a clock that is set back changes nothing."""
    window, slow = Window(), subscription(max_per_second=10, max_concurrency=1)
    assert window.size(slow) == 40

    window.was_busy(slow, HALVED_ONCE_IN_MS)
    window.was_busy(slow, 2 * HALVED_ONCE_IN_MS - 1)
    assert window.size(slow) == 20
    window.was_busy(slow, 0)
    assert window.size(slow) == 10


@pytest.mark.parametrize("rate", [1, 2])
def test_a_window_of_a_few_is_refilled_too(rate: int) -> None:
    """A rate limit makes the window small; a quarter of nothing would never be free."""
    plant = Plant(subscription(ordering=Ordering.UNORDERED, max_per_second=rate))
    count = 20
    plant.answer(plant.attempts(plant.feed(*(event(number) for number in range(count)))), lambda *_: Verdict.DELIVERED)

    assert len(plant.made) == count
    assert plant.rows("unit/") == {}


def test_finished_units_are_forgotten_after_eight_days() -> None:
    """Rows of finished units do not pile up; sweeping takes one of 256 buckets at a time."""
    plant = Plant(subscription())
    plant.settle(plant.attempts(plant.feed(event(1)))[0])
    for _ in range(256):
        plant.tick(11)
    assert len(plant.rows("done/")) == 1

    plant.clock.at += timedelta(days=9)
    for _ in range(256):
        plant.tick(11)

    assert plant.rows("done/") == {}


@pytest.mark.parametrize("keys", [1, 7])
def test_after_an_outage_every_event_is_delivered_once_and_in_order(keys: int) -> None:
    """Hundreds of units wait behind the failed heads of their keys; when these succeed, all follow in order."""
    plant = Plant(subscription())
    count, broken = 300, True

    def verdict(one: Event, name: str) -> Verdict:
        return Verdict.FAILED if broken else Verdict.DELIVERED

    plant.answer(plant.attempts(plant.feed(*(event(n, f"A{n % keys}") for n in range(count)))), verdict)
    plant.reopen()
    broken = False
    plant.answer(plant.attempts(plant.tick(10)), verdict)

    assert len(plant.made) == count + keys
    assert plant.sequences() == {f"A{key}": list(range(key, count, keys)) for key in range(keys)}
    assert plant.rows("unit/") == {}


def test_a_tick_that_wakes_very_many_is_made_durable_in_slices() -> None:
    """Three subscriptions with a full window each: the rows of the first slice are in the store before the second."""
    plant = Plant(*(subscription(name, ordering=Ordering.UNORDERED, paused=True) for name in ("a", "b", "c")))
    plant.feed(*(event(number) for number in range(WINDOW)))
    for name in ("a", "b", "c"):
        plant.apply(replace(plant.catalogue.subscriptions[name], paused=False))
    plant.ends["delivery.ticks"] = 0
    batch = plant._batch("delivery.ticks", [])

    slices = plant.delivery.retries(batch)
    next(slices)

    assert len(batch.outputs) == SLICE
    assert len(batch.rows.writes) == SLICE


def reopened(plant: Plant, unit_id: str, value: bytes) -> Reopen:
    """The redrive of the only event, with a key that is too long."""
    [live] = plant.catalogue.subscriptions.values()
    return Reopen(
        unit_id=unit_id, subscription_id=live.id, subscription=live.name, recipient="", queue="customer-events",
        queue_partition=PARTITION, queue_offset=0, event_id=event(1).event_id, lane="A1", attempts=0,
        key=b"k" * 150_000, value=value, headers=(),
    )  # fmt: skip
