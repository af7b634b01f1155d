"""The few Kafka calls that tests make again and again, each waiting until it is true."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from streams.kafka.admin import wait_for_leaders

#: Far longer than anything takes: two cores that others use as well may need twenty times as long as alone.
TIMEOUT_SECONDS = 120.0


def wait_until(condition: Callable[[], object], what: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
    """Poll until the condition is truthy; AssertionError that says what was awaited otherwise."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: still not so after {timeout_seconds:.0f} s"
        time.sleep(0.02)


def wait_until_ended(processes: Sequence[psutil.Process]) -> None:
    """Ended, whether or not somebody has reaped them: in a container often nobody reaps orphans."""

    def ended(process: psutil.Process) -> bool:
        try:
            return bool(process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True

    wait_until(lambda: all(ended(process) for process in processes), "the processes ended")


def create_topic(bootstrap_servers: str, topic: str, partitions: int = 1) -> None:
    """Returns when its partitions have leaders: the controller's answer comes before the brokers have heard of it."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    for future in admin.create_topics([NewTopic(topic, num_partitions=partitions)]).values():
        future.result(TIMEOUT_SECONDS)
    wait_until(lambda: topic in admin.list_topics(timeout=TIMEOUT_SECONDS).topics, f"{topic} is visible")
    wait_for_leaders(admin, [topic])


def whole_lines(log: Path) -> str:
    """What is in a log, without the line that its process is just writing; empty while there is no such file."""
    return log.read_text(errors="replace").rpartition("\n")[0] if log.exists() else ""


def produce(bootstrap_servers: str, topic: str, values: Sequence[bytes]) -> None:
    """Returns when every value is acknowledged."""
    producer = Producer({"bootstrap.servers": bootstrap_servers, "acks": "all"})
    failures: list[object] = []

    def delivered(error: object, _message: object) -> None:
        if error is not None:
            failures.append(error)

    for value in values:
        producer.produce(topic, value, on_delivery=delivered)
    assert producer.flush(TIMEOUT_SECONDS) == 0
    assert failures == []


def read_partition(bootstrap_servers: str, topic: str, partition: int = 0) -> list[bytes]:
    """All values of one partition up to the end that it has now."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "unused", "enable.auto.commit": False})
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=TIMEOUT_SECONDS)
        consumer.assign([TopicPartition(topic, partition, low)])
        values: list[bytes] = []
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while len(values) < high - low:
            assert time.monotonic() < deadline, f"{topic}: {len(values)} of {high - low} records"
            message = consumer.poll(1.0)
            if message is not None and message.error() is None:
                values.append(message.value() or b"")
        return values
    finally:
        consumer.close()
