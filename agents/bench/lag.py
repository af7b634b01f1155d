"""How long one look at a thousand groups takes, against asking them one after another in the same run.

The groups are made by committing offsets, without members: what a look costs depends on commits, partitions and
records unread, not on who reads. Between two looks every group commits again, so that a look finds news of all.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final
from uuid import uuid4

import psutil
from confluent_kafka import Producer, TopicPartition
from confluent_kafka._model import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from agents.monitor.metrics import exposition
from streams.core.lag.report import ClusterLag
from streams.kafka.lag.offset_fetch import committed_offsets
from streams.kafka.lag.poll import LagPoller
from streams.kafka.lag.survey import ends
from streams.metrics import Family

#: Commits that are under way at one time; the broker answers each in a millisecond or two.
AT_ONCE: Final = 50
TIMEOUT_S: Final = 60.0
RECORDS: Final = 2_000
#: What one look may take, in seconds, for the design's 1,000 groups of 10 partitions.
LIMIT_S: Final = 10.0


class Bench:
    """``topics`` × ``partitions``; every group has commits in all partitions of one topic."""

    def __init__(self, servers: str, *, groups: int, partitions: int, topics: int, say: Callable[[str], None]) -> None:
        self._config: dict[str, Any] = {"bootstrap.servers": servers}
        self._admin = AdminClient(self._config)
        self._say = say
        name = f"bench-lag-{uuid4().hex[:8]}"
        self._topics = [f"{name}-{number}" for number in range(topics)]
        self._groups = [f"{name}-group-{number:04}" for number in range(groups)]
        self._partitions = partitions
        self._random = random.Random(1)

    def run(self, looks: int) -> dict[str, Any]:
        """Looks and loops, one after the other in every round; the ratio is the median of the rounds'."""
        self._make()
        poller = LagPoller(self._config, wanted=lambda group: group.startswith("bench-lag-"))
        try:
            self._say("the first look reads __consumer_offsets from its beginning")
            first = poller.look()
            taken, rendered, looped = [], [], []
            for number in range(1, looks + 1):
                self._commit()
                found = poller.look()
                began = time.perf_counter()
                text = exposition(found, cluster_name="bench", families=[*Family])
                rendered.append(time.perf_counter() - began)
                taken.append(found.took_s)
                looped.append(self._naive_loop())
                self._say(f"round {number}: a look {found.took_s:.2f} s, asking one by one {looped[-1]:.2f} s")
            self._check(found)
        finally:
            poller.close()
        worst = max(first.took_s, *taken)
        return {
            "groups": len(self._groups),
            "partitions_of_groups": sum(len(one.partitions) for one in found.groups),
            "source": found.source,
            "first_look_s": first.took_s,
            "look_s": round(statistics.median(taken), 3),
            "worst_look_s": worst,
            "parts_of_the_last_look_s": dict(found.seconds),
            "exact_time_lags": sum(part.exact for one in found.groups for part in one.partitions),
            "naive_loop_s": round(statistics.median(looped), 3),
            "ratio_to_naive_loop": round(
                statistics.median(loop / look for loop, look in zip(looped, taken, strict=True)), 2
            ),
            "render_metrics_s": round(statistics.median(rendered), 3),
            "metrics_mib": round(len(text) / 2**20, 1),
            "resident_mib": round(psutil.Process(os.getpid()).memory_info().rss / 2**20),
            "limit_s": LIMIT_S,
            "holds": worst <= LIMIT_S,
            "rounds": looks,
        }

    def _make(self) -> None:
        new = [NewTopic(topic, self._partitions, 1) for topic in self._topics]
        for made in self._admin.create_topics(new).values():
            made.result(TIMEOUT_S)
        self._say(f"{len(self._topics)} topics, {RECORDS:,} records in each partition")
        producer = Producer({**self._config, "linger.ms": 20})
        for topic in self._topics:
            for partition in range(self._partitions):
                for _ in range(RECORDS):
                    producer.produce(topic, b"x" * 100, partition=partition)
                producer.flush()
        self._say(f"{len(self._groups):,} groups commit")
        self._commit()

    def _commit(self) -> None:
        """Every group at other offsets than before."""
        waiting: list[Future[Any]] = []
        for number, group in enumerate(self._groups):
            topic = self._topics[number % len(self._topics)]
            offsets = [
                TopicPartition(topic, partition, self._random.randrange(RECORDS + 1))
                for partition in range(self._partitions)
            ]
            asked = self._admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, offsets)])
            waiting += asked.values()
            if len(waiting) >= AT_ONCE:
                for one in waiting:
                    one.result(TIMEOUT_S)
                waiting.clear()
        for one in waiting:
            one.result(TIMEOUT_S)

    def _naive_loop(self) -> float:
        """A client per group, its offsets, then the ends: numbers only, without times, members or states."""
        began = time.perf_counter()
        for number, group in enumerate(self._groups):
            topic = self._topics[number % len(self._topics)]
            committed_offsets(self._config, group, [(topic, one) for one in range(self._partitions)])
        ends(self._admin, [(topic, one) for topic in self._topics for one in range(self._partitions)])
        return time.perf_counter() - began

    def _check(self, found: ClusterLag) -> None:
        """A fast look at the wrong numbers is worth nothing: one group in fifty is asked itself."""
        for group in found.groups[:: max(1, len(found.groups) // 50)]:
            places = [(one.topic, one.partition) for one in group.partitions]
            asked = committed_offsets(self._config, group.group, places)
            assert asked == {(one.topic, one.partition): one.committed for one in group.partitions}, group.group
            assert all(one.lag == RECORDS - (one.committed or 0) for one in group.partitions), group.group
