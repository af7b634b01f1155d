"""The ledger balances, and one lost or swapped result makes it show exactly 1; on topics of a real Kafka."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from confluent_kafka import Producer

from streams.core.delivery.ledger import Evidence, balance
from streams.core.delivery.messages import Replay, Result, Verdict
from streams.core.events import Audience, Event
from streams.core.ids import derive
from streams.core.subscriptions import Ordering
from streams.kafka import ledger
from streams.kafka.chunks import Output
from streams.kafka.ledger import LedgerTopics, Line
from streams.topics import REPLAYS, RESULTS
from tests.delivery.plant import PARTITION, Plant, event, forward, subscription
from tests.delivery.test_replay import command, replay
from tests.support.brokers import Brokers
from tests.support.kafka_io import TIMEOUT_SECONDS, create_topic

#: Key, value, headers.
WrittenRecord = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]
UNITS = [derive("unit", str(number)) for number in range(10)]


def evidence() -> Evidence:
    return Evidence(
        accepted={unit: index != 0 for index, unit in enumerate(UNITS)},  # the first one is filtered
        pending=set(UNITS[1:3]),
        delivered=set(UNITS[3:8]),
        dead={UNITS[8]},
        discarded={UNITS[9]},
    )


def test_every_unit_is_in_exactly_one_term() -> None:
    """accepted = filtered + pending + delivered + dead + discarded, with equal digests."""
    found = balance(evidence())

    assert (found.accepted, found.filtered, found.pending, found.delivered, found.dead, found.discarded) == (
        10, 1, 2, 5, 1, 1,
    )  # fmt: skip
    assert found.difference == 0
    assert found.digest_accepted == found.digest_found


@pytest.mark.parametrize("term", ["pending", "delivered", "dead", "discarded"])
def test_a_unit_that_is_removed_from_any_term_is_a_difference_of_one(term: str) -> None:
    """No term is computed by subtraction."""
    broken = evidence()
    removed = getattr(broken, term).pop()

    found = balance(broken)

    assert found.difference == 1
    assert found.missing == (removed,)
    assert found.digest_accepted != found.digest_found


def test_a_swapped_id_is_a_difference_of_one_though_the_counts_agree() -> None:
    """Counts alone would not notice it."""
    broken = evidence()
    broken.delivered.remove(UNITS[3])
    broken.delivered.add(derive("unit", "of nobody"))

    found = balance(broken)

    assert found.accepted == found.filtered + found.pending + found.delivered + found.dead + found.discarded
    assert found.difference == 1
    assert len(found.missing) == len(found.unexpected) == 1


def test_a_unit_seen_in_two_places_counts_once() -> None:
    """While deliveries go on, sources are read in turn: an open row wins, then a success over a dead letter."""
    moving = evidence()
    moving.delivered.add(UNITS[1])
    moving.dead.add(UNITS[3])

    found = balance(moving)

    assert (found.pending, found.delivered, found.dead, found.difference) == (2, 5, 1, 0)


# On a real Kafka: what the real handlers decided, written to topics as a worker does.


def busy_plant() -> tuple[Plant, list[Result]]:
    """Three subscriptions with delivered, pending, dead and filtered units."""
    plant = Plant(
        subscription("crm", schedule_s=(0, 5)),
        subscription("internal", audience="internal", ordering=Ordering.UNORDERED),
        forward("copy", "customer-events", "partner", event_types=("service.state_transitioned",)),
    )
    made = plant.feed(
        *(event(n, f"A{n % 4}", audience=Audience.INTERNAL if n % 5 == 0 else Audience.CUSTOMER) for n in range(40))
    )
    plant.feed(event(3, "A3"))  # a repeated event is one unit

    def verdict(one: Event, name: str) -> Verdict:
        return Verdict.FAILED if name == "crm" and one.sequence in (1, 2) else Verdict.DELIVERED

    plant.answer(plant.attempts(made), verdict)
    retried = plant.attempts(plant.tick(6))
    plant.answer([one for one in retried if one.event_id == event(1, "A1").event_id], verdict)
    return plant, [plant.result(attempt, result) for attempt, result in plant.made]


class Written:
    """The topics of one plant, under names of one test."""

    def __init__(
        self, kafka: Brokers, unique: Callable[[str], str], plant: Plant, results: list[Result],
        replays: Sequence[Replay] = (),
    ) -> None:  # fmt: skip
        self.kafka, self.plant = kafka, plant
        self.topics = LedgerTopics(
            queue_prefix=unique("queue."), results=unique("results"), dead_letters=unique("dead"),
            changelog=unique("changelog"), replays=unique("replays"),
        )  # fmt: skip
        self.write(f"{self.topics.queue_prefix}customer-events", [
            (one.key.encode(), plant.codec.encode("queue.customer-events", one), [])
            for one in [
                *(event(n, f"A{n % 4}", audience=Audience.INTERNAL if n % 5 == 0 else Audience.CUSTOMER)
                  for n in range(40)),
                event(3, "A3"), event(98, "A1"), event(99, "A1"),
            ]
        ])  # fmt: skip
        self.write(self.topics.results, [self.encoded(one) for one in results])
        self.write(self.topics.dead_letters, [as_record(one) for one in plant.dead()])
        self.write(self.topics.replays, [(None, plant.codec.encode(REPLAYS, one), []) for one in replays])
        self.write(self.topics.changelog, [(key, value, []) for key, value in plant.store.scan(b"")])

    def encoded(self, result: Result) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
        return result.unit_id.encode(), self.plant.codec.encode(RESULTS, result), []

    def write(self, topic: str, records: Sequence[WrittenRecord]) -> str:
        create_topic(self.kafka.bootstrap_servers, topic, partitions=4)
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers, "acks": "all"})
        for key, value, headers in records:
            producer.produce(topic, key=key, value=value, headers=[*headers], partition=PARTITION)
        assert producer.flush(TIMEOUT_SECONDS) == 0
        return topic

    def check(self, **topics: str) -> dict[str, Line]:
        config = {"bootstrap.servers": self.kafka.bootstrap_servers}
        lines = ledger.check(config, self.plant.codec, replace(self.topics, **topics))
        return {line.subscription: line for line in lines}


def as_record(output: Output) -> WrittenRecord:
    key = output.key.encode() if isinstance(output.key, str) else output.key
    return key, output.value, list(output.headers or ())


@pytest.mark.kafka
def test_the_ledger_of_real_topics_balances_until_one_record_is_missing_or_swapped(
    kafka: Brokers, unique: Callable[[str], str]
) -> None:
    """All terms for three subscriptions; then one result removed, one id swapped, one row lost: exactly 1 each time."""
    plant, results = busy_plant()
    written = Written(kafka, unique, plant, results)

    lines = written.check()

    crm, internal, copy = (lines[name].balance for name in ("crm", "internal", "copy"))
    assert {name: line.balance.difference for name, line in lines.items()} == {"crm": 0, "internal": 0, "copy": 0}
    # crm: A1's head is dead and parks its other nine; A2's head is in flight again and the nine behind it wait.
    assert (crm.accepted, crm.filtered, crm.pending, crm.delivered, crm.dead) == (40, 0, 19, 20, 1)
    assert (internal.accepted, internal.filtered, internal.delivered) == (40, 32, 8)
    assert (copy.accepted, copy.filtered, copy.delivered) == (40, 0, 40)
    assert [lines[name].lag for name in lines] == [2, 2, 2]

    delivered = next(one for one in results if one.subscription == "copy")
    without = [written.encoded(one) for one in results if one is not delivered]
    removed = written.check(results=written.write(unique("removed"), without))
    swapped_result = replace(delivered, unit_id=derive("unit", "of nobody"))
    swapped = written.check(results=written.write(unique("swapped"), [*without, written.encoded(swapped_result)]))
    rows = list(plant.store.scan(b""))
    pending = next(key for key, _ in rows if key.startswith(b"unit/"))
    lost = written.check(
        changelog=written.write(unique("lost"), [*((key, value, []) for key, value in rows), (pending, None, [])])
    )

    assert {name: line.balance.difference for name, line in removed.items()} == {"crm": 0, "internal": 0, "copy": 1}
    assert removed["copy"].balance.missing == (delivered.unit_id,)
    assert {name: line.balance.difference for name, line in swapped.items()} == {"crm": 0, "internal": 0, "copy": 1}
    assert {name: line.balance.difference for name, line in lost.items()} == {"crm": 1, "internal": 0, "copy": 0}


@pytest.mark.kafka
def test_a_filter_is_applied_as_it_was_when_the_record_came(kafka: Brokers, unique: Callable[[str], str]) -> None:
    """A subscription that wants less from now on has still to account for what it wanted before."""
    plant = Plant(subscription("crm", ordering=Ordering.UNORDERED))
    first = plant.attempts(plant.feed(*(event(n) for n in range(3))))
    plant.apply(replace(plant.catalogue.subscriptions["crm"], event_types=("bill_run.started",)))
    assert plant.feed(*(event(n) for n in range(3, 8))) == []
    results = [plant.result(one) for one in first]
    for one in first:
        plant.settle(one)
    written = Written(kafka, unique, plant, results)
    queue = written.write(
        unique("other.customer-events"),
        [(b"A1", plant.codec.encode("queue.customer-events", event(n)), []) for n in range(8)],
    )

    line = written.check(queue_prefix=queue.removesuffix("customer-events"))["crm"]

    assert (line.balance.accepted, line.balance.filtered, line.balance.delivered) == (8, 5, 3)
    assert line.balance.difference == 0
    less = written.check(
        queue_prefix=queue.removesuffix("customer-events"),
        results=written.write(unique("less"), [written.encoded(one) for one in results[1:]]),
    )["crm"]
    assert less.balance.difference == 1


@pytest.mark.kafka
def test_a_replay_is_a_run_of_its_own_that_balances_until_one_result_is_missing_or_swapped(
    kafka: Brokers, unique: Callable[[str], str]
) -> None:
    """The events' own equation does not see it; one result removed or one id swapped is exactly 1, in the run."""
    plant, results = busy_plant()
    own = len(plant.made)
    wanted = [command(plant, event(n, f"A{n % 4}"), "copy", offset=n) for n in range(4)]
    wanted.append(command(plant, event(1, "A1"), "crm", offset=1))
    wanted.append(command(plant, event(5, "A1"), "crm", offset=5))  # it waits for its own delivery still
    attempts = plant.attempts(replay(plant, *wanted))
    plant.answer([one for one in attempts if one.event_id != event(3, "A3").event_id])
    results += [plant.result(attempt, result) for attempt, result in plant.made[own:]]
    later = [command(plant, event(4, "A0"), "copy", offset=4)]
    written = Written(kafka, unique, plant, results, [*wanted, *later])

    lines = written.check()

    assert {name: line.difference for name, line in lines.items()} == {"crm": 0, "internal": 0, "copy": 0}
    [copy], [crm] = lines["copy"].runs, lines["crm"].runs
    assert (copy.name, copy.balance.accepted, copy.balance.delivered, copy.balance.pending, copy.lag) == (
        "run-1", 4, 3, 1, 1,
    )  # fmt: skip
    assert (crm.balance.accepted, crm.balance.delivered, crm.balance.discarded) == (2, 1, 1)
    assert (lines["copy"].balance.accepted, lines["copy"].balance.delivered) == (40, 40)

    replayed = next(one for one in results if one.replay is not None and one.subscription == "copy")
    without = [written.encoded(one) for one in results if one is not replayed]
    removed = written.check(results=written.write(unique("removed"), without))
    swapped_result = replace(replayed, unit_id=derive("unit", "of nobody"))
    swapped = written.check(results=written.write(unique("swapped"), [*without, written.encoded(swapped_result)]))

    assert [removed["copy"].balance.difference, removed["copy"].difference] == [0, 1]
    assert removed["copy"].runs[0].balance.missing == (replayed.unit_id,)
    assert [swapped["copy"].difference, swapped["crm"].difference] == [1, 0]
