"""A Faust transport on librdkafka: agents, streams and topics are Faust's, records come in chunks from the pump.

Faust sees one event per chunk and never commits, seeks, pauses or recovers anything; see docs/adr for what in Faust's
own driver makes that necessary.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from faust.transport import base as faust_transport
from faust.transport.consumer import Consumer as FaustConsumer
from faust.transport.producer import Producer as FaustProducer
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode import Service

from streams.kafka.chunks import Chunk


class Producer(FaustProducer):
    """Never started: records leave through the outbox. Faust only asks whether its buffer is full, and to flush."""

    async def flush(self) -> None:
        return None


class Consumer(FaustConsumer):
    """Feeds chunks into Faust's conductor; group membership and offsets are the pump's affair."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._inbox: asyncio.Queue[Chunk] = asyncio.Queue()
        self._topics: set[str] = set()

    def deliver(self, chunk: Chunk) -> None:
        """Queue a chunk for its agent; called on the event loop."""
        self._inbox.put_nowait(chunk)

    @Service.task
    async def _deliver(self) -> None:
        while not self.should_stop:
            chunk = await self._inbox.get()
            await self.callback(self._to_message(TP(chunk.topic, chunk.partition), chunk))

    def _to_message(self, tp: TP, record: Chunk) -> ConsumerMessage:
        last = record.records[-1]
        return ConsumerMessage(
            tp.topic, tp.partition, last.offset, last.timestamp_ms / 1000.0, 0, [], None,
            cast("bytes", record), None, None, None, tp,
            generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    async def subscribe(self, topics: Any) -> None:
        """Tell the pump the topics of all agents: Faust's conductor calls it when agents are up, and when one came
        later (see ``following`` in :mod:`streams.kafka.runtime`)."""
        if set(topics) != self._topics:
            self._topics = set(topics)
            self.app.flow_control.resume()
            await self.app.curfew_subscribed(self._topics)  # type: ignore[attr-defined]

    def assignment(self) -> set[TP]:
        """Empty on purpose: Faust would pause, clear and seek what it believes to own."""
        return set()

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        return False

    async def on_stop(self) -> None:
        await self.app.curfew_stopping()  # type: ignore[attr-defined]

    # What Faust's interface asks for and nothing here uses.
    async def _commit(self, offsets: Any) -> bool:
        return False

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:
        return {}

    async def _seek(self, partition: TP, offset: int) -> None: ...

    async def seek_to_committed(self) -> dict[TP, int]:
        return {}

    async def seek_wait(self, partitions: Any) -> None: ...

    async def position(self, tp: TP) -> int | None:
        return None

    async def earliest_offsets(self, *partitions: TP) -> dict[TP, int]:
        return {}

    async def highwaters(self, *partitions: TP) -> dict[TP, int]:
        return {}

    async def create_topic(self, *args: Any, **kwargs: Any) -> None: ...

    def highwater(self, tp: TP) -> int:
        return 0

    def topic_partitions(self, topic: str) -> int | None:
        return None

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        return partition

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    def close(self) -> None: ...


class Transport(faust_transport.Transport):
    """Set as ``app.transport``."""

    Consumer = Consumer
    Producer = Producer
    driver_version = "curfew-librdkafka"
