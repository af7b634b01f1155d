"""Bytes ⇄ core types; the only importer of fastavro and of the schema registry's client."""

from streams.codec.cloudevents import CloudEvent, cloud_event, event_headers
from streams.codec.codec import Codec, Decoded
from streams.codec.registry import LocalIds, Registry, wait_for_registry
from streams.codec.schemas import LocalSchema, LocalSchemas
from streams.codec.subjects import subject_of

__all__ = [
    "CloudEvent",
    "Codec",
    "Decoded",
    "LocalIds",
    "LocalSchema",
    "LocalSchemas",
    "Registry",
    "cloud_event",
    "event_headers",
    "subject_of",
    "wait_for_registry",
]
