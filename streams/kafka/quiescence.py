"""Is anything in flight? The question that a virtual clock asks before it moves time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import structlog
from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

TIMEOUT_S = 10.0
#: For futures: the client's own time-out, which has an error to tell, has to come first.
ANSWER_S = TIMEOUT_S + 5.0
#: After a look without an answer. Whoever waits looks again at once, and each such look makes a client.
PAUSE_S = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """``records`` that a group has still to finish; None: Kafka does not say how many."""

    group: str
    records: int | None

    def __str__(self) -> str:
        return f"{self.group} {'(Kafka does not say)' if self.records is None else self.records}"


class Quiescence:
    """Compares committed offsets with end offsets of the barrier groups.

    A worker commits only when everything that its records caused is durable, so "all committed = all ends" means that
    nothing is in flight anywhere. Committed offsets are read **first**: read after the ends, a record could pass from
    one group to the next between the two looks and be seen in neither.
    """

    def __init__(self, config: dict[str, Any], reads: Mapping[str, Iterable[str]]) -> None:
        """``reads``: group → topics that it reads."""
        self._config = config
        self._admin = AdminClient(config)
        # Consumers that never join their group: list_consumer_group_offsets of the admin client ends the process
        # (SIGSEGV in librdkafka 2.16) when a group's coordinator is not ready, as it is not after a broker's start.
        self._groups = {group: Consumer({**config, "group.id": group, "enable.auto.commit": False}) for group in reads}
        self._threads = ThreadPoolExecutor(max_workers=len(self._groups), thread_name_prefix="quiescence")
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

        A group without a committed offset for a partition has not started: it counts as waiting, with one record. Not
        knowing is not standing still: when Kafka does not answer, all groups are waiting, and that takes a while.
        """
        try:
            return self._look()
        except (KafkaException, TimeoutError) as error:
            # After a broker restart the admin client goes on asking with the leader epoch it knows, for minutes
            # (FENCED_LEADER_EPOCH); a new one asks for metadata first.
            self._admin = AdminClient(self._config)
            log.warning("quiescence.unknown", error=repr(error), remedy="is the broker well? The next look is soon")
            time.sleep(PAUSE_S)
            return [Waiting(group=group, records=None) for group in self._reads]

    def _look(self) -> list[Waiting]:
        committed = dict(zip(self._reads, self._threads.map(self._committed, self._reads), strict=True))
        listed = self._admin.list_offsets(
            self._ends, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=TIMEOUT_S
        )
        ends = {(p.topic, p.partition): future.result(ANSWER_S).offset for p, future in listed.items()}
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

    def _committed(self, group: str) -> dict[tuple[str, int], int]:
        found = self._groups[group].committed(self._reads[group], timeout=TIMEOUT_S)
        for one in found:
            if one.error is not None:
                raise KafkaException(one.error)
        return {(one.topic, one.partition): one.offset for one in found}
