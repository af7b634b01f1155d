"""Sealed outcomes that the persister could not write, as they lie among its dead letters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from confluent_kafka import Message

from streams.codec import Codec
from streams.core.errors import Poison
from streams.core.plan_change.messages import ExecutionResult
from streams.kafka import dead_letters
from streams.kafka.scan import Scanner, Spans

TOPIC: Final = dead_letters.topic("persistence")
_REASON: Final = "curfew-reason"
_MESSAGE: Final = f"{dead_letters.CONNECT}exception.message"


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One outcome, and why it was refused: ``reason`` is a code, ``message`` is for people, ``place`` is the record."""

    change_id: str
    revision: int
    service_id: str
    hash: str
    deadline: datetime
    reason: str
    message: str
    place: str


def read_letters(scanner: Scanner, spans: Spans, codec: Codec, topic: str = TOPIC) -> Iterator[Letter]:
    """Those of ``spans``, in order within a partition. Settlements are left out, and what nobody can read: of that the
    original is counted where it lies. Raises Transient when Kafka or the registry do not answer."""
    decode = codec.decoder(ExecutionResult)
    for message in scanner.read(topic, spans):
        try:
            result = decode(message.value())
        except Poison:
            continue
        if result.sealed is not None:
            yield _letter(message, result, topic)


def _letter(message: Message, result: ExecutionResult, topic: str) -> Letter:
    assert result.sealed is not None
    pairs: Any = message.headers() or ()
    headers = {name: bytes(text or b"").decode("utf-8", "replace") for name, text in pairs}
    outcome = result.sealed.outcome
    return Letter(
        change_id=outcome.change_id,
        revision=outcome.revision,
        service_id=outcome.service_id,
        hash=result.sealed.hash,
        deadline=outcome.effective_from,
        reason=headers.get(_REASON, "unknown"),
        message=headers.get(_MESSAGE, ""),
        place=f"{topic}[{message.partition()}]@{message.offset()}",
    )
