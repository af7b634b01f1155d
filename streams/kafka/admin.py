"""Compare a cluster with the manifest, and bring it there. Nothing is deleted, no partition count is changed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # they are public, but the stubs do not say so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewTopic,
    ResourceType,
)

from streams.core.errors import CurfewError, Transient
from streams.kafka.manifest import Manifest, Topic, managed

REQUEST_TIMEOUT_S = 15.0  # a first connection to a broker that just started takes some seconds
VISIBLE_TIMEOUT_S = 15.0  # a topic just made is not at once in every broker's metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """The topic does not exist."""

    topic: str

    def __str__(self) -> str:
        return "does not exist"


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongConfig:
    """A setting differs; ``found`` is None where the broker does not know the setting."""

    topic: str
    setting: str
    found: str | None
    wanted: str

    def __str__(self) -> str:
        return f"{self.setting} is {self.found}, should be {self.wanted}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongPartitions:
    """The partition count differs; only a person can decide this."""

    topic: str
    found: int
    wanted: int

    def __str__(self) -> str:
        return (
            f"has {self.found} partitions, should have {self.wanted}: not changed, because keys would move to other "
            "partitions and away from their rows. Make a new topic and copy, or correct the manifest"
        )


Difference = Missing | WrongConfig | WrongPartitions


def admin_client(config: dict[str, Any]) -> AdminClient:
    """A client whose background log does not reach the terminal; errors come as exceptions."""
    return AdminClient(quiet(config))


def quiet(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a client in a terminal: what its background threads meet is not written between the output."""
    return {**config, "error_cb": lambda error: None, "log_level": 0}


def partition_counts(admin: AdminClient) -> dict[str, int]:
    """Topic → partitions, internal topics left out; raises Transient when no broker answers."""
    try:
        topics = admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics
    except KafkaException as error:
        raise Transient(f"no Kafka broker answers: {error.args[0].str()}; is bootstrap_servers right?") from error
    return {name: len(topic.partitions) for name, topic in topics.items() if not name.startswith("__")}


def diff(manifest: Manifest, admin: AdminClient) -> list[Difference]:
    """Everything in which the cluster differs from the manifest, by topic; empty when it does not."""
    counts = partition_counts(admin)
    topics = managed(manifest, counts).topics
    found = _configs(admin, [name for name in topics if name in counts])
    differences: list[Difference] = []
    for name, topic in sorted(topics.items()):
        if name not in counts:
            differences.append(Missing(topic=name))
            continue
        if counts[name] != topic.partitions:
            differences.append(WrongPartitions(topic=name, found=counts[name], wanted=topic.partitions))
        for setting, wanted in topic.kafka_config.items():
            value = found[name].get(setting)
            if value != wanted:
                differences.append(WrongConfig(topic=name, setting=setting, found=value, wanted=wanted))
    return differences


def apply(manifest: Manifest, admin: AdminClient, differences: Sequence[Difference]) -> list[WrongPartitions]:
    """Create what is missing, correct settings, and return what was not done. Applying twice changes nothing more."""
    missing = [manifest.topic(one.topic) for one in differences if isinstance(one, Missing)]
    create_topics(admin, missing)
    wrong: dict[str, list[WrongConfig]] = {}
    for one in differences:
        if isinstance(one, WrongConfig):
            wrong.setdefault(one.topic, []).append(one)
    _correct(admin, wrong)
    return [one for one in differences if isinstance(one, WrongPartitions)]


def create_topics(admin: AdminClient, topics: Sequence[Topic]) -> None:
    """Create, and return when every broker client can see them; a topic that exists already is left as it is."""
    if not topics:
        return
    new = [
        NewTopic(topic.name, topic.partitions, replication_factor=topic.replication, config=topic.kafka_config)
        for topic in topics
    ]
    for name, future in admin.create_topics(new, request_timeout=REQUEST_TIMEOUT_S).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another worker was quicker
                raise CurfewError(f"the topic {name} cannot be created: {error.args[0].str()}") from error
    end = time.monotonic() + VISIBLE_TIMEOUT_S
    while absent := {topic.name for topic in topics} - partition_counts(admin).keys():
        if time.monotonic() > end:
            raise Transient(f"created, but not visible after {VISIBLE_TIMEOUT_S:.0f} s: {', '.join(sorted(absent))}")
        time.sleep(0.05)


def _configs(admin: AdminClient, topics: Sequence[str]) -> dict[str, dict[str, str]]:
    if not topics:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    futures = admin.describe_configs(resources, request_timeout=REQUEST_TIMEOUT_S)
    return {
        resource.name: {entry.name: entry.value for entry in future.result().values()}
        for resource, future in futures.items()
    }


def _correct(admin: AdminClient, wrong: dict[str, list[WrongConfig]]) -> None:
    if not wrong:
        return
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            topic,
            incremental_configs=[
                ConfigEntry(
                    one.setting,
                    one.wanted,
                    source=ConfigSource.DYNAMIC_TOPIC_CONFIG,
                    incremental_operation=AlterConfigOpType.SET,
                )
                for one in settings
            ],
        )
        for topic, settings in wrong.items()
    ]
    for resource, future in admin.incremental_alter_configs(resources, request_timeout=REQUEST_TIMEOUT_S).items():
        try:
            future.result()
        except KafkaException as error:
            raise CurfewError(f"the settings of {resource.name} cannot be changed: {error.args[0].str()}") from error
