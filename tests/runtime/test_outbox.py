"""The outbox on a real Kafka: whoever waits, waits for the own records and for no others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from streams.kafka import outbox as outbox_module
from streams.kafka.outbox import Delivery, DeliveryFailed, Outbox
from tests.support.brokers import Brokers
from tests.support.kafka_io import create_topic, read_partition

pytestmark = pytest.mark.kafka


def on_a_loop(kafka: Brokers, body: Callable[[Outbox], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        outbox = Outbox({"bootstrap.servers": kafka.bootstrap_servers})
        outbox.start()
        try:
            await body(outbox)
        finally:
            outbox.stop()
            await asyncio.to_thread(outbox.close)

    asyncio.run(run())


def test_a_chunk_does_not_wait_for_the_records_of_another(
    kafka: Brokers, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record for a topic that is not there yet is kept until it is, or its time is over; then only its own chunk is
    sent again."""
    monkeypatch.setattr(outbox_module, "DELIVERY_TIMEOUT_MS", 2_000)
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
        assert not waiting.done()
        with pytest.raises(DeliveryFailed):
            await waiting

    on_a_loop(kafka, body)

    assert read_partition(kafka.bootstrap_servers, topic) == [b"1", b"2", b"3"]


def test_nothing_to_wait_for_is_no_wait(kafka: Brokers) -> None:
    async def body(outbox: Outbox) -> None:
        await outbox.delivered(Delivery())

    on_a_loop(kafka, body)
