"""Requests about a plan change: one is sent, and its reply awaited. For commands and the board."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from streams.topics import REPLIES, REQUESTS

if TYPE_CHECKING:
    from streams.codec import Codec
    from streams.core.plan_change.messages import Reply, Request, RequestKind
    from streams.settings import Settings

FLUSH_S = 20.0
#: Kafka answers questions about its topics within this, or says that it does not.
ANSWER_S = 30.0


def new_request(
    kind: RequestKind, service: str, account: str, *, request_id: str | None = None, **fields: Any
) -> Request:
    """A request of this kind: what an order does not say is left to the element, other kinds need nothing more."""
    from streams.core.plan_change.messages import Request

    given: dict[str, Any] = {
        "element_key": None,
        "effective_date": None,
        "silent": False,
        "apply_fees": True,
        "options": (),
        "channel": "curfew",
        "expected_revision": None,
        **fields,
    }
    return Request(
        request_id=request_id or str(uuid.uuid4()),
        kind=kind,
        account_id=account,
        service_id=service,
        requested_at=datetime.now(UTC),
        **given,
    )


def exchange(settings: Settings, codec: Codec, request: Request, wait_s: float | None) -> Reply | None:
    """Produce the request and wait for its reply; None when there is none in time, or ``wait_s`` is None.

    Replies are watched from before the request is sent. Raises Transient when Kafka does not answer.
    """
    from confluent_kafka import Producer

    from streams.core.errors import Transient
    from streams.kafka.admin import admin_client, answering, require_topics
    from streams.kafka.partitioner import PARTITIONER

    config = answering(settings.kafka())
    require_topics(admin_client(config), (REQUESTS, REPLIES))  # the client would wait for them, silently
    value, problems = codec.encode(REQUESTS, request), list[str]()
    with nullcontext() if wait_s is None else _replies(config, codec) as replies:
        producer = Producer(config | {"partitioner": PARTITIONER, "acks": "all"})
        producer.produce(
            REQUESTS,
            key=request.account_id,
            value=value,
            on_delivery=lambda error, message: problems.append(error.str()) if error is not None else None,
        )
        if producer.flush(FLUSH_S) or problems:
            raise Transient(f"the request was not delivered: {problems or 'no answer'}; is bootstrap_servers right?")
        return None if replies is None or wait_s is None else replies.wait_for(request, wait_s)


@contextmanager
def _replies(kafka: dict[str, Any], codec: Codec) -> Iterator[_Replies]:
    """Everything that is replied from now on."""
    from confluent_kafka import Consumer, TopicPartition

    from streams.kafka.watermarks import watermarks

    consumer = Consumer({**kafka, "group.id": f"curfew-replies-{uuid.uuid4()}", "enable.auto.commit": False})
    try:
        numbers = consumer.list_topics(REPLIES, timeout=ANSWER_S).topics[REPLIES].partitions
        ends = [
            TopicPartition(REPLIES, number, watermarks(consumer, TopicPartition(REPLIES, number), ANSWER_S)[1])
            for number in numbers
        ]
        consumer.assign(ends)
        yield _Replies(consumer, codec)
    finally:
        consumer.close()


class _Replies:
    """What a consumer reads."""

    def __init__(self, consumer: Any, codec: Codec) -> None:
        self._consumer = consumer
        self._codec = codec

    def wait_for(self, request: Request, timeout: float) -> Reply | None:
        from streams.core.errors import Poison
        from streams.core.plan_change.messages import Reply

        until = time.monotonic() + timeout
        while (left := until - time.monotonic()) > 0:
            message = self._consumer.poll(min(left, 0.5))
            if message is None or message.error() is not None:
                continue
            try:
                reply = self._codec.decode(message.value(), Reply)
            except Poison:  # the topic is everybody's; who waits for ours is not helped by an error about another one
                continue
            if (reply.request_id, reply.service_id) == (request.request_id, request.service_id):
                return reply
        return None
