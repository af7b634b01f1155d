"""What the brokers say without being asked group by group: partitions, their ends, groups.

Through the admin client, but for its functions that go to a group's coordinator (offsets, members): they end the
process when a connection breaks (see group_members and offset_fetch).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but the stubs do not say so
    AdminClient,
    OffsetSpec,
)

from streams.core.errors import Transient
from streams.core.lag.report import PartitionState, Place

TIMEOUT_S: Final = 15.0
#: The first question of a look. A broker that is away is waited for no longer, so that it is told soon.
ANY_ANSWER_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group as the brokers list it."""

    state: str
    kind: str

    @property
    def may_have_members(self) -> bool:
        return self.state not in ("empty", "dead", "unlisted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The cluster, without offsets. ``topics`` has the internal ones too."""

    cluster_id: str
    controller: int
    brokers: Mapping[int, str]
    topics: Mapping[str, Mapping[int, PartitionState]]
    groups: Mapping[str, Group]


def survey(admin: AdminClient) -> Survey:
    """Two requests, however large the cluster is; raises Transient when a broker does not answer."""
    try:
        metadata: Any = admin.list_topics(timeout=ANY_ANSWER_S)
        listed = admin.list_consumer_groups(request_timeout=TIMEOUT_S).result()
        if listed.errors:  # no broker, or not all of them: an empty answer would look like "nothing is behind"
            raise KafkaException(listed.errors[0])
    except KafkaException as error:
        raise _unanswered(error) from error
    return Survey(
        cluster_id=str(metadata.cluster_id),
        controller=int(metadata.controller_id),
        brokers={number: f"{one.host}:{one.port}" for number, one in metadata.brokers.items()},
        topics={
            name: {
                number: PartitionState(leader=one.leader, replicas=tuple(one.replicas), in_sync=tuple(one.isrs))
                for number, one in sorted(topic.partitions.items())
            }
            for name, topic in sorted(metadata.topics.items())
            if topic.error is None
        },
        groups={
            one.group_id: Group(state=one.state.name.lower(), kind=one.type.name.lower())
            for one in sorted(listed.valid, key=lambda one: one.group_id)
        },
    )


def ends(
    admin: AdminClient, places: Iterable[Place], *, start: bool = False, committed: bool = False
) -> dict[Place, int]:
    """Where partitions end (all records, or with ``committed`` only those in front of an open transaction) or start.

    A partition that is gone or has no leader at the moment is left out. Raises Transient when nobody answers.
    """
    spec = OffsetSpec.earliest() if start else OffsetSpec.latest()  # type: ignore[no-untyped-call]
    wanted = {TopicPartition(*place): spec for place in places}
    if not wanted:
        return {}
    isolation = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    found, failed = {}, None
    for one, future in admin.list_offsets(wanted, isolation_level=isolation, request_timeout=TIMEOUT_S).items():
        try:
            found[one.topic, one.partition] = int(future.result().offset)
        except KafkaException as error:
            failed = error
    if failed is not None and not found:
        raise _unanswered(failed) from failed
    return found


def _unanswered(error: KafkaException) -> Transient:
    why = error.args[0]
    return Transient(f"offsets cannot be read: {why.name()}: {why.str()}; is bootstrap_servers right?")
