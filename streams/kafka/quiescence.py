"""Is anything in flight? The question that a virtual clock asks before it moves time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Records that a group has still to finish."""

    group: str
    records: int


class Quiescence:
    """Compares committed offsets with end offsets of the barrier groups.

    A worker commits only when everything that its records caused is durable, so "all committed = all ends" means that
    nothing is in flight anywhere. Committed offsets are read **first**: read after the ends, a record could pass from
    one group to the next between the two looks and be seen in neither.
    """

    def __init__(self, config: dict[str, Any], reads: Mapping[str, Iterable[str]]) -> None:
        """``reads``: group → topics that it reads."""
        self._admin = AdminClient(config)
        counts = self._admin.list_topics(timeout=TIMEOUT_S).topics
        self._reads = {
            group: [
                TopicPartition(topic, number)
                for topic in topics
                if topic in counts
                for number in counts[topic].partitions
            ]
            for group, topics in reads.items()
        }
        every = {(p.topic, p.partition) for partitions in self._reads.values() for p in partitions}
        self._ends = {
            TopicPartition(topic, number): OffsetSpec.latest()  # type: ignore[no-untyped-call]
            for topic, number in sorted(every)
        }

    def waiting(self) -> list[Waiting]:
        """The groups that have something to finish; empty when nothing is in flight.

        A group without a committed offset for a partition has not started: it counts as waiting, with one record.
        """
        requests = {
            group: self._admin.list_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(group, partitions)], request_timeout=TIMEOUT_S
            )[group]
            for group, partitions in self._reads.items()
        }
        committed = {
            group: {(p.topic, p.partition): p.offset for p in request.result(TIMEOUT_S).topic_partitions}
            for group, request in requests.items()
        }
        listed = self._admin.list_offsets(
            self._ends, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=TIMEOUT_S
        )
        ends = {(p.topic, p.partition): future.result(TIMEOUT_S).offset for p, future in listed.items()}
        found = []
        for group, partitions in self._reads.items():
            records = sum(
                1 if committed[group][p.topic, p.partition] < 0
                else max(0, ends[p.topic, p.partition] - committed[group][p.topic, p.partition])
                for p in partitions
            )  # fmt: skip
            if records:
                found.append(Waiting(group=group, records=records))
        return found
