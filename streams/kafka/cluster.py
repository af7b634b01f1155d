"""What a worker has to know of the cluster before it starts: do its topics exist, and do their keys meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from streams.core.errors import Misconfigured

TIMEOUT_S = 10.0
#: The client's own time-out, which has an error to tell, has to come before the one of its future.
ANSWER_S = TIMEOUT_S + 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """``topic_ids`` are Kafka's own: a topic that was deleted and made again has another id under the same name."""

    cluster_id: str
    partitions: int
    topic_ids: dict[str, str]


def inspect_layout(config: dict[str, Any], topics: Sequence[str], changelog: str | None) -> Layout:
    """Read cluster id and topics.

    Raises :class:`streams.core.errors.Misconfigured` for a missing topic or for partition counts that differ (the same
    key would then be in different partitions, and joins would find nothing), KafkaException when nobody answers.
    """
    admin = AdminClient(config)
    wanted = [*topics, *([changelog] if changelog else [])]
    cluster = admin.describe_cluster(request_timeout=TIMEOUT_S).result(ANSWER_S)
    described = admin.describe_topics(TopicCollection(wanted), request_timeout=TIMEOUT_S)
    counts: dict[str, int] = {}
    ids: dict[str, str] = {}
    missing = []
    for topic, future in described.items():
        try:
            description = future.result(ANSWER_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
            missing.append(topic)
        else:
            counts[topic] = len(description.partitions)
            ids[topic] = str(description.topic_id)
    if missing:
        raise Misconfigured(f"no such topic: {', '.join(sorted(missing))}. Create it with: curfew topics apply")
    if len(set(counts.values())) > 1:
        raise Misconfigured(
            "topics that one worker reads need the same number of partitions, but "
            + ", ".join(f"{topic} has {count}" for topic, count in sorted(counts.items()))
            + ". A partition count cannot be changed later without moving keys: make the topic again."
        )
    return Layout(cluster_id=cluster.cluster_id, partitions=next(iter(counts.values()), 0), topic_ids=ids)
