"""Business time of a partition: only forwards, over restarts, and of one clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from streams.core.errors import Fatal
from streams.kafka import ticks
from streams.kafka.chunks import Record
from streams.kafka.ticks import LOOK_BACK, BusinessTime
from tests.faults.flow import Flow, create_topics, producer
from tests.support.apps import AppProcess, TickJson, read_tick
from tests.support.brokers import Brokers
from tests.support.kafka_io import create_topic, wait_until

NOON = datetime(2018, 11, 3, 12, tzinfo=UTC)


def tick(minutes: int, epoch: str = "e1") -> bytes:
    return msgspec.json.encode(TickJson(epoch, minutes, NOON + timedelta(minutes=minutes)))


def records(*values: bytes | None) -> list[Record]:
    return [Record("clock.ticks", 0, offset, None, value, [], 0) for offset, value in enumerate(values)]


def clock(*, wall: bool = False) -> BusinessTime:
    return BusinessTime({}, read_tick, wall=wall)


def test_time_of_a_partition_is_the_highest_tick_and_partitions_differ() -> None:
    time = clock()
    time.handle(0, records(tick(5), tick(3)))
    time.handle(1, records(tick(1)))

    assert time.now(0) == NOON + timedelta(minutes=5)
    assert time.now(1) == NOON + timedelta(minutes=1)
    assert time.now(2) is None


def test_a_tick_of_another_epoch_is_fatal() -> None:
    """Two runs of a virtual clock in one topic: deadlines that were decided would move."""
    time = clock()
    time.handle(0, records(tick(5)))

    with pytest.raises(Fatal, match="another|epoch"):
        time.handle(0, records(tick(6, "e2")))


def test_what_is_no_tick_leaves_time_alone() -> None:
    """Its agent puts it aside; the worker must not die of it, at every start again."""
    time = clock()

    time.handle(0, records(tick(5), b"junk", None, tick(6)))

    assert time.now(0) == NOON + timedelta(minutes=6)


def test_without_ticks_wall_mode_has_the_machines_clock_and_virtual_mode_none() -> None:
    before = datetime.now(UTC)

    now = clock(wall=True).now(0)

    assert now is not None
    assert before <= now <= datetime.now(UTC)
    assert clock().now(0) is None


JUNK = b"junk"
#: What is in the log when the partition is opened again; of all of it only the first record was committed.
LOGS: dict[str, list[bytes | None]] = {
    "three ticks": [tick(1), tick(2), tick(3)],
    "one tick": [tick(3)],
    "the highest is not the last": [tick(1), tick(3), tick(2)],
    "no tick at the end": [tick(1), tick(3), JUNK, None],
    "more than are looked at": [*(tick(0) for _ in range(LOOK_BACK + 30)), tick(3)],
    "no tick at the end of many": [*(tick(0) for _ in range(LOOK_BACK + 30)), tick(3), JUNK],
}


@pytest.mark.kafka
@pytest.mark.parametrize("log", LOGS)
def test_a_reopened_partition_has_the_highest_tick_of_the_log(
    kafka: Brokers, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, log: str
) -> None:
    """All were handled and acted upon, only the first was committed: time must not go back behind any of them."""
    topic = unique("ticks")
    create_topic(kafka.bootstrap_servers, topic)
    out = producer(kafka.bootstrap_servers)
    for value in LOGS[log]:
        out.produce(topic, value, partition=0)
    assert out.flush(30.0) == 0
    monkeypatch.setattr(ticks, "TICKS", topic)
    time = BusinessTime({"bootstrap.servers": kafka.bootstrap_servers}, read_tick, wall=False)
    time.assigned({0: 0})
    time.handle(0, records(*LOGS[log]))
    before = time.now(0)

    time.assigned({0: 1})
    forgotten = time.now(0)
    time.open(0)

    assert forgotten is None
    assert time.now(0) == before == NOON + timedelta(minutes=3)


@pytest.mark.kafka
def test_a_log_that_ends_with_the_mark_of_a_transaction_is_read_to_its_end(
    kafka: Brokers, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark has an offset and is no record: whoever counts records waits for one that never comes."""
    topic = unique("ticks")
    create_topic(kafka.bootstrap_servers, topic)
    out = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": topic})
    out.init_transactions()
    out.begin_transaction()
    out.produce(topic, tick(3), partition=0)
    out.commit_transaction()
    asker = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": topic})
    wait_until(
        lambda: asker.get_watermark_offsets(TopicPartition(topic, 0), timeout=30.0)[1] == 2, "the mark is in the log"
    )
    asker.close()
    monkeypatch.setattr(ticks, "TICKS", topic)
    time = BusinessTime({"bootstrap.servers": kafka.bootstrap_servers}, read_tick, wall=False)

    time.assigned({0: 0})
    time.open(0)

    assert time.now(0) == NOON + timedelta(minutes=3)


def told(flow: Flow) -> list[datetime]:
    return [effect.now for effect in flow.effects() if effect.now is not None]


def send_ticks(flow: Flow, topic: str, *values: bytes) -> None:
    out = producer(flow.servers)
    for value in values:
        out.produce(topic, value, partition=0)
    assert out.flush(30.0) == 0


@pytest.mark.kafka
def test_time_goes_only_forwards_survives_a_kill_and_refuses_another_clock(flow: Flow) -> None:
    """A lower tick does not set it back, neither now nor after a restart that saw the lower one last."""
    topic = f"{flow.name}-ticks"
    create_topics(flow.servers, {topic: {}})

    def start() -> AppProcess:
        return flow.start(ticks=topic)

    app = start()
    send_ticks(flow, topic, tick(10), tick(20), b"junk", tick(15))
    wait_until(lambda: len(told(flow)) == 4, "the ticks are handled")
    first = told(flow)
    flow.wait_committed(topic, {0: 4})
    app.kill()

    app = start()
    send_ticks(flow, topic, tick(12))
    wait_until(lambda: len(told(flow)) == len(first) + 1, "the tick after the restart is handled")
    last = told(flow)[-1]
    send_ticks(flow, topic, tick(30, "e2"))
    code = app.wait_ended()

    assert first[-1] == last == NOON + timedelta(minutes=20)
    assert code == 70
    assert "epoch" in app.said("worker.died")[0]["error"]
