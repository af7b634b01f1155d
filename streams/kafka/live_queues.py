"""The queues of the cluster, also those that are made while a worker runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streams.core.errors import Transient
from streams.kafka.catalogue import patiently
from streams.kafka.manifest import QUEUE_PREFIX, Manifest, managed
from streams.settings import Settings

#: A broker that is there answers in milliseconds; the chunk that had to know waits, and is tried again afterwards.
TIMEOUT_S = 5.0


class LiveQueues(Collection[str]):
    """Names without the prefix. A name that is not known is asked for, so a queue exists as soon as it was created.

    Asking raises Transient when Kafka does not answer: whoever has to know decides later, not wrongly.
    """

    def __init__(self, settings: Settings, manifest: Manifest) -> None:
        self._manifest = manifest
        self._admin = AdminClient(settings.kafka())
        self._names: frozenset[str] = frozenset()
        patiently(self._look)

    def __contains__(self, name: object) -> bool:
        if name not in self._names:
            self.known_now()
        return name in self._names

    def known_now(self) -> frozenset[str]:
        """All queues that there are at this moment; blocks, raises Transient."""
        try:
            self._look()
        except KafkaException as error:
            raise Transient(f"Kafka does not say which queues there are: {error.args[0].str()}") from error
        return self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _look(self) -> None:
        topics = self._admin.list_topics(timeout=TIMEOUT_S).topics
        self._names = frozenset(
            name for name in managed(self._manifest, topics).queues if QUEUE_PREFIX + name in topics
        )
