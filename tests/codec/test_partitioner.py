"""One key, one partition, whoever produces it: our function, librdkafka with our setting, Kafka's Java client."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from confluent_kafka import Message, Producer

from agents.embedded import DEFAULT_KAFKA_VERSION, run_kafka_tool
from streams.kafka.partitioner import PARTITIONER, murmur2, partition_of
from tests.support.brokers import Brokers
from tests.support.kafka_io import create_topic

# the vectors of org.apache.kafka.common.utils.UtilsTest
PUBLISHED = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}
PARTITIONS = 7
NUMBERS = [str(number) for number in range(150)]  # what the Java tool uses as keys
KEYS = [*NUMBERS, *"abcdefgh", "abc", "abcd", "Kündigung", "日本語", "x" * 300]


@pytest.mark.parametrize(("data", "signed"), PUBLISHED.items())
def test_murmur2_gives_the_published_values(data: bytes, signed: int) -> None:
    """All four lengths of the tail are among them."""
    assert murmur2(data) == signed % 2**32


@pytest.mark.kafka
def test_librdkafka_puts_every_key_where_we_say(kafka: Brokers, unique: Callable[[str], str]) -> None:
    """With the setting that every producer of ours has."""
    landed: dict[str, int | None] = {}
    topic = unique("keys")
    create_topic(kafka.bootstrap_servers, topic, PARTITIONS)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "partitioner": PARTITIONER})

    def delivered(_error: object, message: Message) -> None:
        landed[(message.key() or b"").decode()] = message.partition()

    for key in KEYS:
        producer.produce(topic, key=key, value=b"", on_delivery=delivered)
    assert producer.flush(30) == 0

    assert landed == {key: partition_of(key, PARTITIONS) for key in KEYS}


@pytest.mark.kafka
def test_the_java_client_puts_every_key_where_we_say(kafka: Brokers, unique: Callable[[str], str]) -> None:
    """Kafka's own producer, with its defaults: the billing engine and the CRM are often written in Java."""
    topic = unique("keys")
    create_topic(kafka.bootstrap_servers, topic, PARTITIONS)

    finished = run_kafka_tool(
        "org.apache.kafka.tools.VerifiableProducer",
        [
            *("--bootstrap-server", kafka.bootstrap_servers, "--topic", topic),
            *("--max-messages", str(len(NUMBERS)), "--repeating-keys", str(len(NUMBERS))),
        ],
        kafka_version=DEFAULT_KAFKA_VERSION,
    )

    lines = [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("{")]
    landed = {line["key"]: line["partition"] for line in lines if line["name"] == "producer_send_success"}
    assert landed == {key: partition_of(key, PARTITIONS) for key in NUMBERS}
