"""A real cluster against a manifest: differences found, corrected, and those that are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from confluent_kafka import Consumer, TopicPartition

from streams.core.errors import Misconfigured, Transient
from streams.kafka.admin import (
    Missing,
    WrongConfig,
    WrongPartitions,
    admin_client,
    answering,
    apply,
    create_topics,
    diff,
    missing_topics,
    partition_counts,
    quiet,
    require_topics,
    wait_for_leaders,
)
from streams.kafka.manifest import Manifest, Topic
from tests.support.brokers import Brokers
from tests.support.kafka_io import TIMEOUT_SECONDS, wait_until

pytestmark = pytest.mark.kafka


def _only(manifest: Manifest, topic: Topic) -> Manifest:
    return replace(manifest, topics={topic.name: topic})


@pytest.fixture
def topic(unique: Callable[[str], str]) -> Topic:
    return replace(Manifest.load().topics["events-store-changelog"], name=unique("changelog"), partitions=3)


@pytest.fixture
def manifest(topic: Topic) -> Manifest:
    return _only(Manifest.load(), topic)


def _of(name: str, differences: list[object]) -> list[object]:
    """Those of one topic: other tests make queues on the same cluster."""
    return [one for one in differences if getattr(one, "topic", None) == name]


def test_a_missing_topic_is_created_as_the_manifest_says(kafka: Brokers, manifest: Manifest, topic: Topic) -> None:
    """With partitions, compaction and the settings that compaction needs; then there is no difference."""
    admin = admin_client({"bootstrap.servers": kafka.bootstrap_servers})
    before = _of(topic.name, [*diff(manifest, admin)])

    refused = apply(manifest, admin, [Missing(topic=topic.name)])

    assert before == [Missing(topic=topic.name)]
    assert refused == []
    assert partition_counts(admin)[topic.name] == 3
    assert _of(topic.name, [*diff(manifest, admin)]) == []


def test_a_topic_just_made_can_be_asked_and_written_at_once(kafka: Brokers, topic: Topic) -> None:
    """All its partitions have leaders that know it, also for a client that was not there before."""
    many = replace(topic, name=f"{topic.name}-many", partitions=24)
    config = quiet({"bootstrap.servers": kafka.bootstrap_servers})

    create_topics(admin_client(config), [many])

    consumer = Consumer(config | {"group.id": "unused"})
    ends = [
        consumer.get_watermark_offsets(TopicPartition(many.name, number), timeout=TIMEOUT_SECONDS)
        for number in range(24)
    ]
    consumer.close()
    assert ends == [(0, 0)] * 24


def test_a_partition_without_a_leader_is_named(kafka: Brokers, topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition that does not exist (any more) is one that never gets a leader."""
    admin = admin_client({"bootstrap.servers": kafka.bootstrap_servers})
    create_topics(admin, [topic])
    monkeypatch.setattr("streams.kafka.admin.LEADER_TIMEOUT_S", 0.2)
    monkeypatch.setattr("streams.kafka.admin.partition_counts", lambda _: {topic.name: 4})

    with pytest.raises(Transient, match=rf"1 partitions have no leader .*{topic.name}\[3\]"):
        wait_for_leaders(admin, [topic.name])


def test_topics_that_are_not_there_are_named_with_what_makes_them(kafka: Brokers, unique: Callable[[str], str]) -> None:
    """A queue of our own is made by another command than those of the manifest."""
    admin, queue = admin_client({"bootstrap.servers": kafka.bootstrap_servers}), unique("q")

    with pytest.raises(Misconfigured, match=f"no such topic: queue.{queue}. Create it with: curfew queues create"):
        require_topics(admin, [f"queue.{queue}"])
    assert missing_topics(["billing.account"]).endswith("Create it with: curfew topics apply")


@pytest.mark.parametrize("servers", ["127.0.0.1:1", "127.0.0.1:1, PLAINTEXT://127.0.0.1:2", "no-port", ""])
def test_where_nobody_listens_is_told_at_once(servers: str) -> None:
    """With the setting that says where."""
    with pytest.raises(Transient, match="no Kafka broker answers at .*bootstrap_servers"):
        answering({"bootstrap.servers": servers})


def test_one_address_that_answers_is_enough(kafka: Brokers) -> None:
    """The others may be brokers that are away."""
    config = answering({"bootstrap.servers": f"127.0.0.1:1,{kafka.bootstrap_servers}"})

    assert config["log_level"] == 0


def test_a_setting_that_drifted_is_named_and_corrected(kafka: Brokers, manifest: Manifest, topic: Topic) -> None:
    """A changelog that was switched to delete loses rows without an error."""
    admin = admin_client({"bootstrap.servers": kafka.bootstrap_servers})
    create_topics(admin, [replace(topic, cleanup="delete")])

    found = [one for one in diff(manifest, admin) if one.topic == topic.name]
    apply(manifest, admin, found)

    assert found == [WrongConfig(topic=topic.name, setting="cleanup.policy", found="delete", wanted="compact")]
    # the controller has taken it; the broker that is asked hears of it a moment later
    wait_until(lambda: _of(topic.name, [*diff(manifest, admin)]) == [], "it is corrected")


def test_a_partition_count_is_never_changed(kafka: Brokers, manifest: Manifest, topic: Topic) -> None:
    """More partitions would be accepted by Kafka, and every key would be away from its row."""
    admin = admin_client({"bootstrap.servers": kafka.bootstrap_servers})
    create_topics(admin, [replace(topic, partitions=2)])

    found = [one for one in diff(manifest, admin) if one.topic == topic.name]
    refused = apply(manifest, admin, found)

    assert refused == [WrongPartitions(topic=topic.name, found=2, wanted=3)]
    assert "away from their rows" in str(refused[0])
    assert partition_counts(admin)[topic.name] == 2


def test_creating_twice_is_no_mistake(kafka: Brokers, topic: Topic) -> None:
    """Two workers may start at the same moment."""
    admin = admin_client({"bootstrap.servers": kafka.bootstrap_servers})

    create_topics(admin, [topic])
    create_topics(admin, [topic])

    assert partition_counts(admin)[topic.name] == 3


def test_no_broker_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which setting to look at."""
    monkeypatch.setattr("streams.kafka.admin.REQUEST_TIMEOUT_S", 0.5)

    with pytest.raises(Transient, match="bootstrap_servers"):
        partition_counts(admin_client({"bootstrap.servers": "127.0.0.1:1"}))
