"""First and next offset of a partition, from a client that may have heard nonsense of it."""

from __future__ import annotations

import time
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

RETRY_S: Final = 0.2
#: A topic just made, a broker just restarted or out of breath: the partition has its leader in a moment.
_MOVING: Final = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError._UNKNOWN_PARTITION)


def watermarks(consumer: Consumer, partition: TopicPartition, timeout_s: float) -> tuple[int, int]:
    """(low, high) within about ``timeout_s``; raises KafkaException.

    librdkafka answers from what it knows of a topic. What it heard while a partition had no leader it believes for
    minutes, and says "Unknown partition" at once, so it is made to ask again.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            low, high = consumer.get_watermark_offsets(partition, timeout=timeout_s)
            return int(low), int(high)
        except KafkaException as error:
            passes = error.args[0].retriable() or error.args[0].code() in _MOVING
            if not passes or time.monotonic() > deadline:
                raise
        time.sleep(RETRY_S)
        consumer.list_topics(partition.topic, timeout=timeout_s)
