"""Where committed offsets come from: ``__consumer_offsets`` if it can be read, else each group is asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streams.core.lag.report import Place
from streams.kafka.lag.offset_fetch import committed_offsets
from streams.kafka.lag.offsets_topic import TOPIC, Committed, OffsetsTopic, Unusable
from streams.kafka.lag.survey import Survey

#: A first read of a large offsets topic goes on in the next look, so that a look ends at all.
TOPIC_S: Final = 20.0
#: Groups are asked for offsets one by one, some milliseconds each; who does not get a turn in this time is first next.
FETCH_S: Final = 6.0

log = structlog.get_logger(__name__)


class CommitSource:
    """What has been read and not been taken yet: ``commits`` from the topic, or ``answers`` by group. A look that fails
    half-way must not lose them, since the topic gives every commit once.

    ``why`` the topic cannot be read; None: it can. That is for good: a right that comes back is noticed at the next
    start.
    """

    def __init__(
        self, config: Mapping[str, Any], wanted: Callable[[str], bool], *, use_topic: bool, fetch_s: float = FETCH_S
    ) -> None:
        self._config = config
        self._wanted = wanted
        self._fetch_s = fetch_s
        self._topic: OffsetsTopic | None = None
        self._asked: dict[str, float] = {}
        self.why: str | None = None if use_topic else "as asked"
        self.commits: list[Committed] = []
        self.answers: dict[str, dict[Place, int]] = {}

    def close(self) -> None:
        if self._topic is not None:
            self._topic.close()

    def read(self, admin: AdminClient, found: Survey, groups: Iterable[str]) -> None:
        """Read what is new. Raises Transient when Kafka does not answer."""
        if self.why is None:
            try:
                return self._read_topic(admin, found)
            except Unusable as error:
                self.why = str(error)
                self.commits.clear()
                log.warning(
                    "lag.offsets_topic_unusable", why=self.why,
                    remedy=f"allow READ and DESCRIBE on the topic {TOPIC}: without it the times of commits are unknown",
                )  # fmt: skip
        return self._ask(found, groups)

    def is_complete(self, groups: Iterable[str]) -> bool:
        """Whether nothing is missing: the topic was read to its end, or each of these groups has been asked once."""
        if self.why is None:
            return self._topic is None or self._topic.caught_up
        return all(group in self._asked for group in groups)

    def _read_topic(self, admin: AdminClient, found: Survey) -> None:
        partitions = len(found.topics.get(TOPIC, ()))
        if not partitions:
            if found.groups:
                raise Unusable(f"the cluster does not show {TOPIC}")
            return  # a fresh cluster: nobody has ever committed
        if self._topic is None:
            self._topic = OffsetsTopic(self._config, self._wanted)
        self.commits.extend(self._topic.read(admin, partitions, deadline=time.monotonic() + TOPIC_S))

    def _ask(self, found: Survey, groups: Iterable[str]) -> None:
        """Those that were asked longest ago first, for as long as there is time."""
        places = [
            (topic, number) for topic, one in found.topics.items() if not topic.startswith("__") for number in one
        ]
        until = time.monotonic() + self._fetch_s
        for group in sorted(groups, key=lambda name: self._asked.get(name, 0.0)):
            if time.monotonic() > until:
                return
            try:
                self.answers[group] = committed_offsets(self._config, group, places)
            except KafkaException as error:  # its turn comes again
                log.debug("lag.group_not_asked", group=group, error=str(error))
            self._asked[group] = time.monotonic()
