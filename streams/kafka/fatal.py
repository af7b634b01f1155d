"""Which errors of a Kafka client are its end."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError

#: The client tells a fatal error under the code _FATAL with fatal() false: asked for fatal() only, a fenced worker
#: would stay as a zombie that polls for ever.
FATAL: Final = (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID)


def is_fatal(error: KafkaError) -> bool:
    """Whether the client can never go on. A producer raises that once, out of one poll, and tells no callback;
    afterwards it refuses everything with it."""
    return error.fatal() or error.code() in FATAL
