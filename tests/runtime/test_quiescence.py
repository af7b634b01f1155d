"""Whether anything is in flight, also when nobody can say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, TopicPartition

from streams.kafka.quiescence import Quiescence, Waiting
from tests.support.brokers import Cluster
from tests.support.kafka_io import create_topic, produce, wait_until

pytestmark = pytest.mark.kafka


def test_without_an_answer_everybody_is_waiting(private_kafka: Callable[..., Cluster]) -> None:
    """A broker that is away looks like work in flight, never like rest; time must not move then."""
    stack = private_kafka(with_registry=False)
    assert stack.address is not None
    config = {"bootstrap.servers": stack.address.bootstrap_servers, "log_level": 0, "error_cb": lambda error: None}
    create_topic(stack.address.bootstrap_servers, "work")
    quiescence = Quiescence(config, {"one": ["work"], "two": ["work"]})

    def known() -> list[Waiting]:
        """A broker that has just started has no coordinator for a group yet, and says so: that is not knowing, too."""
        wait_until(lambda: all(one.records is not None for one in quiescence.waiting()), "the coordinators are there")
        return quiescence.waiting()

    before = known()
    produce(stack.address.bootstrap_servers, "work", [b"a", b"b"])
    for group, done in (("one", 2), ("two", 1)):
        consumer = Consumer({**config, "group.id": group})
        consumer.commit(offsets=[TopicPartition("work", 0, done)], asynchronous=False)
        consumer.close()
    behind = known()
    stack.stop()
    unknown = quiescence.waiting()

    assert before == [Waiting(group="one", records=1), Waiting(group="two", records=1)], "none has begun"
    assert behind == [Waiting(group="two", records=1)]
    assert unknown == [Waiting(group="one", records=None), Waiting(group="two", records=None)]
