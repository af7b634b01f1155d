"""Asks for the committed offsets of one group after another: for clusters that do not show ``__consumer_offsets``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streams.core.lag.report import Place
from streams.kafka.admin import quiet

TIMEOUT_S: Final = 15.0
#: Offsets of a topic that is gone by now, or that this user may not see: there is nothing to be behind of.
_NOT_THERE: Final = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED)


def committed_offsets(
    config: Mapping[str, Any], group: str, places: Iterable[Place], *, timeout_s: float = TIMEOUT_S
) -> dict[Place, int]:
    """The offsets that the group has committed, wherever it has. Raises KafkaException.

    Asked by a consumer that never joins: list_consumer_group_offsets of the admin client ends the process (librdkafka
    2.16, like every admin function that goes to a coordinator) when the connection breaks, or the coordinator is not
    ready, as it is not after a broker's start.
    """
    consumer = Consumer(quiet({**config, "group.id": group, "enable.auto.commit": False}))
    try:
        found = consumer.committed([TopicPartition(*one) for one in places], timeout=timeout_s)
    finally:
        consumer.close()
    for one in found:
        if one.error is not None and one.error.code() not in _NOT_THERE:
            raise KafkaException(one.error)
    return {(one.topic, one.partition): one.offset for one in found if one.error is None and one.offset >= 0}
