"""Compare a cluster with the manifest, and bring it there. Nothing is deleted, no partition count is changed."""

from __future__ import annotations

import socket
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # they are public, but the stubs do not say so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from streams.core.errors import CurfewError, Misconfigured, Transient
from streams.kafka.manifest import QUEUE_PREFIX, Manifest, Topic, managed

REQUEST_TIMEOUT_S = 30.0  # a first connection to a broker that just started takes some seconds, on a busy machine more
VISIBLE_TIMEOUT_S = 60.0  # a topic just made is not at once in every broker's metadata
LEADER_TIMEOUT_S = 180.0  # a partition just made gets its leader in a moment, hundreds on a busy machine in a minute
CONNECT_TIMEOUT_S = 5.0  # a host that does not answer at all; one that refuses says so at once
ADMISSION_TIMEOUT_S = 10.0  # a broker that is busy may need some seconds for TLS and SCRAM
LOOK_EVERY_S = 0.05
#: A partition that is on its way to a leader; some of these are not retriable in the client's eyes.
MOVING = (
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._NOENT,  # "no leaders found": none of the partitions that were asked for has one
    KafkaError._TIMED_OUT,
)


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


def answering(config: dict[str, Any]) -> dict[str, Any]:
    """:func:`quiet` settings of a cluster at one of whose addresses somebody listens.

    Raises Transient at once otherwise, with addresses and remedy: the client itself would go on trying, and a command
    would say nothing for as long as its timeouts are.
    """
    servers = str(config.get("bootstrap.servers", ""))
    refused = []
    for server in filter(None, (one.strip() for one in servers.split(","))):
        host, _, port = server.rpartition("://")[2].rpartition(":")
        if not port.isdecimal():  # the client's own default
            host, port = server, "9092"
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
        except (OSError, OverflowError) as error:
            refused.append(f"{server}: {getattr(error, 'strerror', None) or error}")
        else:
            if why := refusal(config):
                raise Misconfigured(why)
            return quiet(config)
    raise Transient(
        f"no Kafka broker answers at {'; '.join(refused) or 'no address'}. Start it (a local one with `curfew dev "
        "start`), or correct the setting bootstrap_servers (CURFEW_BOOTSTRAP_SERVERS, --bootstrap-servers)"
    )


def refusal(config: dict[str, Any]) -> str | None:
    """Why a broker that listens does not let us in; None when it does, when nothing is secured, or nobody answers.

    The client itself tries a wrong password again for ever, and says only that nobody has answered.
    """
    if "security.protocol" not in config:
        return None
    heard: list[KafkaError] = []
    listening: dict[str, Any] = {**config, "error_cb": heard.append, "log_level": 0}
    client = AdminClient(listening)
    end = time.monotonic() + ADMISSION_TIMEOUT_S
    while time.monotonic() < end:
        try:
            client.list_topics(timeout=1.0)
            return None
        except KafkaException as error:
            heard.append(error.args[0])
        client.poll(0)  # tells what the connections have met
        for one in heard:
            if one.code() == KafkaError._AUTHENTICATION:
                return (
                    f"Kafka at {config['bootstrap.servers']} refuses user {config.get('sasl.username', '')!r}: wrong "
                    "user or password. Correct sasl_username and sasl_password (CURFEW_SASL_PASSWORD), sasl_mechanism"
                )
            if one.code() == KafkaError._SSL:
                return (
                    f"no TLS with Kafka at {config['bootstrap.servers']}: {one.str()[:200]}. Correct "
                    "security_protocol, ssl_ca_file (CURFEW_SSL_CA_FILE) or the name in bootstrap_servers"
                )
    return None


def require_topics(admin: AdminClient, topics: Collection[str]) -> None:
    """Raise Misconfigured, naming those that do not exist and what makes them; Transient when no broker answers."""
    if absent := sorted(set(topics) - partition_counts(admin).keys()):
        raise Misconfigured(missing_topics(absent))


def missing_topics(names: Sequence[str]) -> str:
    """What to say of topics that should exist."""
    made_by = sorted({_made_by(name) for name in names})
    return f"no such topic: {', '.join(names)}. Create it with: {' and '.join(made_by)}"


def _made_by(topic: str) -> str:
    if topic.startswith(QUEUE_PREFIX) and topic not in Manifest.load().topics:
        return f"curfew queues create {topic.removeprefix(QUEUE_PREFIX)}"
    return "curfew topics apply"


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
    """Create, and return when clients see them and all their partitions have leaders; what exists is left as it is."""
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
        time.sleep(LOOK_EVERY_S)
    wait_for_leaders(admin, [topic.name for topic in topics])


def wait_for_leaders(admin: AdminClient, topics: Iterable[str]) -> None:
    """Return when every partition of ``topics`` has a leader that answers, so that the next client finds it.

    Raises Transient, naming partitions, when one has none in time, and when no broker answers.
    """
    counts = partition_counts(admin)
    waiting = {(name, number) for name in topics for number in range(counts.get(name, 0))}
    end = time.monotonic() + LEADER_TIMEOUT_S
    while waiting := _without_leader(admin, waiting):
        if time.monotonic() > end:
            shown = ", ".join(f"{name}[{number}]" for name, number in sorted(waiting)[:5]) + (len(waiting) > 5) * ", …"
            raise Transient(
                f"{len(waiting)} partitions have no leader after {LEADER_TIMEOUT_S:.0f} s ({shown}): "
                "are all brokers up? Then run it again"
            )
        time.sleep(LOOK_EVERY_S)


def _without_leader(admin: AdminClient, partitions: Collection[tuple[str, int]]) -> set[tuple[str, int]]:
    """Asked of the leaders themselves: metadata name a leader before it knows that it is one."""
    if not partitions:
        return set()
    asked = {TopicPartition(*one): OffsetSpec.latest() for one in partitions}  # type: ignore[no-untyped-call]
    left = set()
    for one, future in admin.list_offsets(asked, request_timeout=REQUEST_TIMEOUT_S).items():
        try:
            future.result()
        except KafkaException as error:
            if not (error.args[0].retriable() or error.args[0].code() in MOVING):
                raise CurfewError(f"{one.topic}[{one.partition}] cannot be asked: {error.args[0].str()}") from error
            left.add((one.topic, one.partition))
    return left


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
