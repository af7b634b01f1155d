"""Sends a plan change request and, if wanted, waits for its reply."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import typer

from agents.cli.output import Exit, TableOrJson, note, show
from agents.cli.plan_changes.options import WAIT_S, utc_or_none
from agents.cli.plan_changes.reasons import in_words

if TYPE_CHECKING:
    from streams.codec import Codec
    from streams.core.plan_change.messages import Reply, Request
    from streams.settings import Settings

FLUSH_S = 20.0

_REQUESTS = "plan-change.requests"
_REPLIES = "plan-change.replies"


def send(request: Request, wait: bool, timeout: float, style: TableOrJson) -> None:
    """Produce the request; with ``wait`` print the reply."""
    from streams.codec import Codec, Registry
    from streams.settings import Settings

    settings = Settings()
    reply = exchange(settings, Codec(Registry(settings.schema_registry_url)), request, timeout if wait else None)
    if not wait:
        show([{"request_id": request.request_id, "service_id": request.service_id}], style, columns=("request_id",))
        return
    if reply is None:
        note(f"no reply within {timeout:g} s: is `curfew up` running? Ask again with --request-id {request.request_id}")
        raise typer.Exit(Exit.FAILURE)
    show([_reply_row(reply)], style, columns=("accepted", "state", "reasons", "revision", "start_at", "deadline_at"))
    if style is TableOrJson.TABLE:
        for line in in_words(reply.reasons, reply.state):
            typer.echo(line)
    if not reply.accepted:
        raise typer.Exit(Exit.FAILURE)


def exchange(settings: Settings, codec: Codec, request: Request, wait_s: float | None) -> Reply | None:
    """Produce the request and wait for its reply; None when there is none in time, or ``wait_s`` is None.

    Replies are watched from before the request is sent. Raises Transient when Kafka does not answer.
    """
    from confluent_kafka import Producer

    from streams.core.errors import Transient
    from streams.kafka.admin import admin_client, answering, require_topics
    from streams.kafka.partitioner import PARTITIONER

    config = answering(settings.kafka())
    require_topics(admin_client(config), (_REQUESTS, _REPLIES))  # the client would wait for them, silently
    replies = None if wait_s is None else _Replies(config, codec)
    value, problems = codec.encode(_REQUESTS, request), list[str]()
    producer = Producer(config | {"partitioner": PARTITIONER, "acks": "all"})
    producer.produce(
        _REQUESTS,
        key=request.account_id,
        value=value,
        on_delivery=lambda error, message: problems.append(error.str()) if error is not None else None,
    )
    if producer.flush(FLUSH_S) or problems:
        raise Transient(f"the request was not delivered: {problems or 'no answer'}; is bootstrap_servers right?")
    return None if replies is None or wait_s is None else replies.wait_for(request, wait_s)


class _Replies:
    """Everything that is replied from now on."""

    def __init__(self, kafka: dict[str, Any], codec: Any) -> None:
        from confluent_kafka import Consumer, TopicPartition

        from streams.kafka.watermarks import watermarks

        self._codec = codec
        config = {**kafka, "group.id": f"curfew-replies-{uuid.uuid4()}", "enable.auto.commit": False}
        self._consumer = Consumer(config)
        numbers = self._consumer.list_topics(_REPLIES, timeout=WAIT_S).topics[_REPLIES].partitions
        ends = [
            TopicPartition(_REPLIES, number, watermarks(self._consumer, TopicPartition(_REPLIES, number), WAIT_S)[1])
            for number in numbers
        ]
        self._consumer.assign(ends)

    def wait_for(self, request: Request, timeout: float) -> Reply | None:
        from streams.core.plan_change.messages import Reply

        until = time.monotonic() + timeout
        try:
            while (left := until - time.monotonic()) > 0:
                message = self._consumer.poll(min(left, 0.5))
                if message is None or message.error() is not None:
                    continue
                reply: Reply = self._codec.decode(message.value(), Reply)
                if (reply.request_id, reply.service_id) == (request.request_id, request.service_id):
                    return reply
            return None
        finally:
            self._consumer.close()


def _reply_row(reply: Reply) -> dict[str, Any]:
    return {
        "request_id": reply.request_id,
        "service_id": reply.service_id,
        "change_id": reply.change_id,
        "revision": reply.revision,
        "accepted": reply.accepted,
        "state": reply.state,
        "reasons": list(reply.reasons),
        "start_at": utc_or_none(reply.start_at),
        "deadline_at": utc_or_none(reply.deadline_at),
    }
