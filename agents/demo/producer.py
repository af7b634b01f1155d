"""The demo's billing engine and CRM, as a process of their own with an ordinary Kafka producer.

Sends the fleet, then follows the ticks of the virtual clock in the consumer group ``demo-input``: at each tick it sends
all that is due up to it, waits until Kafka has it, tells the clock when it wants the next tick, and only then commits
the tick. So the clock, which waits for this group as for the workers, cannot move past something that was not sent.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from agents.demo import billing, fleet, script
from agents.demo.catalogue import ELEMENTS, PRODUCTS, RATE_PLANS
from agents.demo.script import Sending
from streams.codec import Codec, Registry
from streams.core.clock import NextDue, Tick
from streams.core.errors import CurfewError
from streams.kafka.catalogue import patiently
from streams.settings import Settings
from streams.topics import DUE, MATRIX_ELEMENTS, TICKS

GROUP = "demo-input"
POLL_S = 1.0
#: A broker that is killed comes back within a minute, on a busy machine; librdkafka tries for five.
FLUSH_S = 180.0
#: Without it librdkafka hashes keys otherwise than Java, Faust and aiokafka do, and joins find nothing.
PARTITIONER = "murmur2_random"


class DemoProducer:
    """Encodes and sends, and counts what Kafka has acknowledged."""

    def __init__(self, settings: Settings) -> None:
        self.codec = Codec(Registry(settings.schema_registry_url))
        self.sent: Counter[str] = Counter()
        self._failed: list[str] = []
        self._producer = Producer(
            settings.kafka(**{"acks": "all", "enable.idempotence": True, "partitioner": PARTITIONER, "linger.ms": 5})
        )

    def send(self, sendings: Iterable[Sending]) -> None:
        """Send, and return when all of it is durable; raises CurfewError when Kafka did not take a record."""
        for one in sendings:
            self.put(one.topic, one.key, one.value)
        self.flush()

    def put(self, topic: str, key: str, value: object) -> None:
        encoded = self.codec.encode(topic, value)
        while True:
            try:
                self._producer.produce(topic, value=encoded, key=key, on_delivery=self._on_delivery)
            except BufferError:
                self._producer.poll(0.1)
            else:
                break
        self._producer.poll(0)

    def flush(self) -> None:
        left = self._producer.flush(FLUSH_S)
        if left or self._failed:
            raise CurfewError(f"{left + len(self._failed)} records were not acknowledged: {self._failed[:3]}")

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed.append(f"{message.topic()}: {error.str()}")
        else:
            self.sent[str(message.topic())] += 1


def send_fleet(producer: DemoProducer, the_fleet: fleet.Fleet) -> None:
    """Catalogue first, then accounts, packages and services; plans come from the billing store's own import."""
    for product in PRODUCTS:
        producer.put("catalog.product", product.id, product)
    for plan in RATE_PLANS:
        producer.put("catalog.rate-plan", plan.id, plan)
    for element in ELEMENTS:
        producer.put(MATRIX_ELEMENTS, element.key, element)
    producer.send(billing.created(the_fleet))


def follow_clock(producer: DemoProducer, settings: Settings, story: list[Sending], until: datetime) -> None:
    """Send what is due at each tick, until the clock has reached ``until`` and has heard of it."""
    consumer = Consumer(settings.kafka(**{"group.id": GROUP, "enable.auto.commit": False}))
    numbers = sorted(consumer.list_topics(TICKS, timeout=10.0).topics[TICKS].partitions)
    starts = [TopicPartition(TICKS, number, 0) for number in numbers]
    # Assigned by hand: a group without members has no rebalances, and one reader is enough. The commit of the starts
    # tells the clock that the fleet has been sent.
    consumer.assign(starts)
    consumer.commit(offsets=starts, asynchronous=False)
    read_tick = producer.codec.decoder(Tick)
    seen: set[int] = set()
    position = 0
    while len(seen) < len(numbers):
        message = consumer.poll(POLL_S)
        if message is None:
            continue
        if message.error() is not None:
            raise CurfewError(f"cannot read {TICKS}: {message.error()}")
        now = read_tick(message.value()).now
        first = position
        while position < len(story) and story[position].at <= now:
            position += 1
        if position > first:
            producer.send(story[first:position])
            due = story[position].at if position < len(story) else None
            producer.put(DUE, f"{GROUP}/0", NextDue(group=GROUP, partition=0, due=due))
            producer.flush()
        patiently(partial(consumer.commit, message=message, asynchronous=False))
        if now >= until:
            seen.add(_number(message))
    consumer.close()


def _number(message: Any) -> int:
    number: int = message.partition()
    return number


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Send the demo's fleet, then its night, in step with the ticks.")
    parser.add_argument("--accounts", type=int, required=True)
    parser.add_argument("--changes", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args(arguments)
    settings = Settings()
    the_fleet = fleet.generate(options.accounts, options.seed)
    story = script.write(the_fleet, options.changes, options.seed)
    producer = DemoProducer(settings)
    send_fleet(producer, the_fleet)
    print(f"{datetime.now(UTC):%H:%M:%S} fleet sent: {dict(producer.sent)}", flush=True)
    follow_clock(producer, settings, list(story.sendings), script.ends(the_fleet))
    print(f"{datetime.now(UTC):%H:%M:%S} all sent: {dict(producer.sent)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
