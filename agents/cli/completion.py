"""Names that the shell completes: topics, groups, queues and subscriptions as they are on the cluster now.

Somebody has pressed Tab and waits: a cluster that is away, slow or not ours to read completes nothing, in silence.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from streams.topics import SUBSCRIPTIONS

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

#: For the first byte, and for the whole answer; longer, and the shell seems to be stuck.
CONNECT_S: Final = 0.5
ANSWER_S: Final = 2.0


def topics(incomplete: str) -> list[str]:
    """Topics of the cluster, internal ones left out."""
    try:
        return _beginning(incomplete, _topics())
    except Exception:
        return []


def queues(incomplete: str) -> list[str]:
    """Queues of the cluster, without the prefix of their topics."""
    try:
        from streams.kafka.manifest import QUEUE_PREFIX

        names = [name.removeprefix(QUEUE_PREFIX) for name in _topics() if name.startswith(QUEUE_PREFIX)]
        return _beginning(incomplete, names)
    except Exception:
        return []


def groups(incomplete: str) -> list[str]:
    """Consumer groups of the cluster."""
    try:
        client = _client()  # one that nobody holds ends before it has answered
        listed = client.list_consumer_groups(request_timeout=ANSWER_S).result(ANSWER_S)
        return _beginning(incomplete, (one.group_id for one in listed.valid))
    except Exception:
        return []


def subscriptions(incomplete: str) -> list[str]:
    """Names of subscriptions: the keys of their topic, so that no registry is asked."""
    try:
        return _beginning(incomplete, _keys(SUBSCRIPTIONS))
    except Exception:
        return []


def workers(incomplete: str) -> list[str]:
    """The kinds of workers; known without a cluster."""
    try:
        from streams.kafka.manifest import Manifest

        return _beginning(incomplete, Manifest.load().groups)
    except Exception:
        return []


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})


def _config() -> dict[str, object]:
    from streams.kafka import admin
    from streams.settings import Settings

    admin.CONNECT_TIMEOUT_S = CONNECT_S  # this process does nothing else
    return admin.answering(Settings().kafka())


def _client() -> AdminClient:
    from streams.kafka.admin import admin_client

    return admin_client(_config())


def _topics() -> list[str]:
    return [name for name in _client().list_topics(timeout=ANSWER_S).topics if not name.startswith("__")]


def _keys(topic: str) -> set[str]:
    """The keys of a small compacted topic of one partition whose newest value is not a tombstone."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(_config() | {"group.id": "curfew-completion", "enable.auto.commit": False})
    try:
        place = TopicPartition(topic, 0)
        low, end = consumer.get_watermark_offsets(place, timeout=ANSWER_S)
        consumer.assign([TopicPartition(topic, 0, low)])
        values: dict[str, object] = {}
        deadline = time.monotonic() + ANSWER_S
        position = low
        while position < end and time.monotonic() < deadline:
            for message in consumer.consume(1_000, 0.1):
                key = message.key()
                if message.error() is None and isinstance(key, bytes):
                    values[key.decode()] = message.value()
            position = max(position, consumer.position([place])[0].offset)
        return {name for name, value in values.items() if value is not None}
    finally:
        consumer.close()
