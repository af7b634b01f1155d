"""The least rights with which each worker can work, from the manifest: `curfew acl` prints them, a test lives on them.

In Kafka, reading and writing imply describing; an idempotent producer needs no right of its own since Kafka 3.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agents.worker import CATALOGUE, WORKERS
from streams.core.errors import Misconfigured
from streams.kafka.manifest import QUEUE_PREFIX, Manifest
from streams.topics import DUE, FINDINGS, TICKS

CLOCK: Final = "clock"
#: Where the manifest names one writer of several.
ALSO_WRITES: Final = {"usage": (FINDINGS,)}
#: These write into queues, also such as are made later.
INTO_QUEUES: Final = ("events", "dispatch")
#: Clients without membership ask for a coordinator under names that begin so, and go on without an answer.
OURS: Final = "curfew-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """One thing that may be done; ``prefixed``: to all resources whose names begin so."""

    operation: str
    resource_type: str
    resource_name: str
    prefixed: bool = False


def rights(name: str, manifest: Manifest) -> tuple[Right, ...]:
    """Of the worker or clock called ``name``, in a stable order; raises Misconfigured for a name that is neither."""
    if name == CLOCK:
        found = [_topic("read", DUE), _topic("read", TICKS), _topic("write", TICKS)]
        return (*found, Right(operation="describe", resource_type="group", resource_name=OURS, prefixed=True))
    if name not in WORKERS:
        raise Misconfigured(f"no worker called {name!r}; there are: {', '.join((*WORKERS, CLOCK))}")
    return tuple(dict.fromkeys(_of_worker(name, manifest)))


def _of_worker(name: str, manifest: Manifest) -> Iterator[Right]:
    group = manifest.groups[name]
    yield Right(operation="read", resource_type="group", resource_name=name)
    prefix = f"{OURS}source-" if name == "sources" else OURS
    yield Right(
        operation="read" if name == "sources" else "describe",
        resource_type="group",
        resource_name=prefix,
        prefixed=True,
    )
    if name == "sources":
        yield Right(operation="describe", resource_type="group", resource_name=OURS, prefixed=True)
    for kind in WORKERS[name].catalogue:
        yield _topic("read", CATALOGUE[kind][0])
    for topic in manifest.read_by(name):
        yield _queue_or(topic.name, "read")
    for topic in manifest.topics.values():
        if topic.writer == name:
            yield _queue_or(topic.name, "write")
    for more in ALSO_WRITES.get(name, ()):
        yield _topic("write", more)
    if group.store:
        yield _topic("read", f"{name}-store-changelog")
    if any(topic.name == TICKS for topic in manifest.read_by(name)):
        yield _topic("write", DUE)
    if name in INTO_QUEUES:
        yield _queue_or(QUEUE_PREFIX, "write")


def _queue_or(topic: str, operation: str) -> Right:
    if topic.startswith(QUEUE_PREFIX):
        return Right(operation=operation, resource_type="topic", resource_name=QUEUE_PREFIX, prefixed=True)
    return _topic(operation, topic)


def _topic(operation: str, name: str) -> Right:
    return Right(operation=operation, resource_type="topic", resource_name=name)
