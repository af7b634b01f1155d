"""Publish what a billing system knows, from Python: typed objects in, right keys and headers, no silent loss.

::

    with Publisher(Settings()) as publisher:
        publisher.publish(ServiceChange(op=Op.CREATED, current=service, revision=1, occurred_at=now, source="billing"))

Everything is checked before it leaves: types when the object is built, the schema when it is encoded. A record that
Kafka does not acknowledge is told by :class:`NotDelivered`, at the latest when the block ends.
"""

from __future__ import annotations

from dataclasses import dataclass, is_dataclass
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.codec import Codec, Registry
from streams.core.errors import Fatal, Misconfigured, Transient
from streams.core.ids import event_id, instant_text
from streams.core.objects import Change
from streams.kafka.manifest import Manifest, Topic
from streams.kafka.partitioner import PARTITIONER
from streams.kafka.record_keys import key_of
from streams.settings import Settings

#: How long Kafka may take to acknowledge a record, including a broker's restart.
DELIVERY_TIMEOUT_S: Final = 30.0
#: Topics of these writers are Curfew's own: a second writer would make revisions and ids meaningless.
_OURS: Final = frozenset({"curfew", "workers", "clock"})
#: Failures that an error names; the others have the same reason.
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Undelivered:
    """One record that Kafka has not acknowledged; it may or may not be there. Publishing it again does no harm."""

    topic: str
    key: str
    record: object
    reason: str


class NotDelivered(Transient):
    """Records that were not acknowledged in time, in ``undelivered``; publish these again."""

    def __init__(self, undelivered: tuple[Undelivered, ...]) -> None:
        shown = "; ".join(f"{one.topic} key {one.key}: {one.reason}" for one in undelivered[:_SHOWN])
        more = f"; and {len(undelivered) - _SHOWN} more" if len(undelivered) > _SHOWN else ""
        super().__init__(f"{len(undelivered)} records were not delivered, publish them again: {shown}{more}")
        self.undelivered = undelivered


class Publisher:
    """Writes object changes, catalogue objects and requests to their topics; for one thread.

    The producer is idempotent: its own retries neither repeat nor reorder. Who publishes a change again, with the same
    revision, changes nothing: Curfew knows it by object and revision.
    """

    def __init__(self, settings: Settings, *, delivery_timeout_s: float = DELIVERY_TIMEOUT_S) -> None:
        self._codec = Codec(Registry(settings.schema_registry_url))
        self._timeout_s = delivery_timeout_s
        self._topics = {topic.value: topic for topic in _writable(Manifest.load()) if topic.value is not None}
        self._undelivered: list[Undelivered] = []
        self._producer = Producer(
            settings.kafka(
                **{
                    "enable.idempotence": True,
                    "compression.type": "lz4",
                    "linger.ms": 5,
                    "partitioner": PARTITIONER,
                    "allow.auto.create.topics": False,
                    "delivery.timeout.ms": int(delivery_timeout_s * 1000),
                    "log_level": 0,  # what matters is in the delivery reports
                    "error_cb": lambda error: None,
                }
            )
        )

    def publish(self, record: object) -> None:
        """Hand one record over; it is sent in the background, in the order of its key.

        Raises Misconfigured for what is no publishable type or has no key, Fatal for a value that its schema cannot
        hold, Transient when the registry does not answer, and :class:`NotDelivered` for records before this one.
        """
        self._raise_undelivered()
        topic = self._topic_of(record)
        key = key_of(topic, record)
        value = self._codec.encode(topic.name, record)

        def on_delivery(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failed = Undelivered(topic=topic.name, key=key, record=record, reason=error.str())
                self._undelivered.append(failed)

        while True:
            try:
                self._producer.produce(
                    topic.name, key=key, value=value, headers=_headers(record), on_delivery=on_delivery
                )
                break
            except BufferError:  # more than the client may hold: wait until Kafka has taken some
                self._producer.poll(0.1)
            except KafkaException as error:
                raise Fatal(f"{topic.name} key {key}: {error.args[0].str()}") from error
        self._producer.poll(0)

    def flush(self) -> None:
        """Return when everything published so far is durable; raises :class:`NotDelivered` otherwise."""
        # the client gives up on a record by itself; the second is for reports that are on their way
        self._producer.flush(self._timeout_s + 1.0)
        self._raise_undelivered()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Flush. After an error of the block what was accepted is still sent, and that error goes on."""
        if error is None:
            self.flush()
        else:
            self._producer.flush(self._timeout_s)

    def _raise_undelivered(self) -> None:
        if self._undelivered:
            failed, self._undelivered = tuple(self._undelivered), []
            raise NotDelivered(failed)

    def _topic_of(self, record: object) -> Topic:
        cls = type(record)
        found = self._topics.get(self._codec.schemas.name_of(cls)) if is_dataclass(cls) else None
        if found is None:
            names = sorted(name.rpartition(".")[2] for name in self._topics)
            raise Misconfigured(f"a {cls.__name__} cannot be published; these can: {', '.join(names)}")
        return found


def _writable(manifest: Manifest) -> list[Topic]:
    """Topics of which the writer is somebody else's system."""
    return [topic for topic in manifest.topics.values() if topic.writer not in {*manifest.groups, *_OURS}]


def _headers(record: object) -> list[tuple[str, str | bytes | None]]:
    """CloudEvents' headers of a change; its id is that of the event that is raised where changes are registered."""
    if not isinstance(record, Change):
        return []
    changes: Change[Any] = record
    kind = _kind(type(record).__name__)
    type_name = f"{kind}.{changes.op}"
    return [
        ("ce_id", event_id(type_name, kind, changes.subject.id, changes.revision)),
        ("ce_type", type_name),
        ("ce_source", changes.source),
        ("ce_specversion", "1.0"),
        ("ce_time", instant_text(changes.occurred_at)),
        ("ce_subject", f"{kind}/{changes.subject.id}"),
        ("content-type", "application/avro"),
    ]


def _kind(class_name: str) -> str:
    """``BillRunChange`` → ``bill_run``."""
    words = class_name.removesuffix("Change")
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in words).lstrip("_")
