"""The outbox on a real Kafka: whoever waits, waits for the own records and for no others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message

from streams.core.errors import Fatal
from streams.kafka import outbox as outbox_module
from streams.kafka.outbox import Delivery, DeliveryFailed, Outbox
from tests.support.brokers import Brokers
from tests.support.fatal import fail_for_good
from tests.support.kafka_io import create_topic, read_partition

pytestmark = pytest.mark.kafka


def on_a_loop(
    kafka: Brokers,
    body: Callable[[Outbox], Coroutine[Any, Any, None]],
    *,
    purged: bool = False,
    config: Mapping[str, Any] | None = None,
) -> None:
    """``purged``: what is left at the end is not waited for."""

    async def run() -> None:
        outbox = Outbox(
            {"bootstrap.servers": kafka.bootstrap_servers, "allow.auto.create.topics": False, **(config or {})}
        )
        outbox.start()
        try:
            await body(outbox)
        finally:
            outbox.stop()
            if purged:
                outbox._producer.purge()
            await asyncio.to_thread(outbox.close)

    asyncio.run(run())


def test_a_chunk_does_not_wait_for_the_records_of_another(kafka: Brokers, unique: Callable[[str], str]) -> None:
    """A record for a topic that is not there is kept, in case that it comes; others pass it."""
    topic, nowhere = unique("there"), unique("nowhere")
    create_topic(kafka.bootstrap_servers, topic)

    async def body(outbox: Outbox) -> None:
        stuck, own, rows = Delivery(), Delivery(), Delivery()
        outbox.emit(nowhere, "k", b"1", None, -1, stuck)
        waiting = asyncio.ensure_future(outbox.delivered(stuck))
        outbox.emit(topic, "k", b"1", None, -1, own)
        await outbox.delivered(own)
        outbox.emit_rows(topic, 0, [{"key": b"k", "value": b"2"}, {"key": b"l", "value": b"3"}], rows)
        await outbox.delivered(rows)
        outbox.stop()
        with pytest.raises(DeliveryFailed, match="stopped"):
            await waiting

    # longer than any machine is busy: whether it is still waited for must not depend on time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox_module, "DELIVERY_TIMEOUT_MS", 120_000)
        on_a_loop(kafka, body, purged=True)

    assert read_partition(kafka.bootstrap_servers, topic) == [b"1", b"2", b"3"]


def test_a_record_that_is_not_acknowledged_fails_its_chunk(
    kafka: Brokers, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chunk is decided and sent again."""
    monkeypatch.setattr(outbox_module, "DELIVERY_TIMEOUT_MS", 1_000)

    async def body(outbox: Outbox) -> None:
        delivery = Delivery()
        outbox.emit(unique("nowhere"), "k", b"1", None, -1, delivery)
        with pytest.raises(DeliveryFailed, match="did not acknowledge"):
            await outbox.delivered(delivery)

    on_a_loop(kafka, body)


def test_a_queue_that_is_full_loses_nothing(kafka: Brokers, unique: Callable[[str], str]) -> None:
    """Neither of single records nor of rows that are handed over together; acknowledgements come meanwhile."""
    topic = unique("full")
    create_topic(kafka.bootstrap_servers, topic)

    async def body(outbox: Outbox) -> None:
        singles, rows = Delivery(), Delivery()
        for number in range(100):
            outbox.emit(topic, "k", b"%d" % number, None, -1, singles)
        outbox.emit_rows(topic, 0, [{"key": b"%d" % n, "value": b"%d" % n} for n in range(100, 200)], rows)
        await outbox.delivered(singles)
        await outbox.delivered(rows)
        assert (singles.outstanding, rows.outstanding) == (0, 0)

    on_a_loop(kafka, body, config={"queue.buffering.max.messages": 10})

    assert sorted(map(int, read_partition(kafka.bootstrap_servers, topic))) == list(range(200))


def test_an_error_in_a_callback_does_not_end_the_taking_of_acknowledgements(
    kafka: Brokers, unique: Callable[[str], str]
) -> None:
    """All others would wait for ever."""
    topic = unique("topic")
    create_topic(kafka.bootstrap_servers, topic)

    class Broken(Delivery):
        def __call__(self, error: KafkaError | None, message: Message) -> None:
            raise RuntimeError("a bug")

    async def body(outbox: Outbox) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        good = Delivery()
        outbox.emit(topic, "k", b"1", None, -1, Broken())
        outbox.emit(topic, "k", b"2", None, -1, good)
        await outbox.delivered(good)

    on_a_loop(kafka, body)


def test_a_producer_that_cannot_go_on_ends_every_wait(kafka: Brokers, unique: Callable[[str], str]) -> None:
    """It was fenced, for example; the worker leaves, and a restart begins where the last commit ended."""

    async def body(outbox: Outbox) -> None:
        delivery = Delivery()
        outbox.emit(unique("nowhere"), "k", b"1", None, -1, delivery)
        waiting = asyncio.ensure_future(outbox.delivered(delivery))
        await asyncio.sleep(0)
        fail_for_good(outbox._producer)
        with pytest.raises(Fatal, match="cannot go on"):
            await waiting

    on_a_loop(kafka, body, purged=True)


def test_nothing_to_wait_for_is_no_wait_and_a_stopped_outbox_is_told_of(kafka: Brokers) -> None:
    async def body(outbox: Outbox) -> None:
        await outbox.delivered(Delivery())
        outbox.stop()
        with pytest.raises(DeliveryFailed, match="stopped"):
            await outbox.delivered(Delivery())

    on_a_loop(kafka, body)
