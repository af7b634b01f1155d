"""Sends dead letters back to the topic from which they came, after a look at what would happen.

What was added when the record was put aside is taken away again, and what is added says where it comes from
(``replayed-from``) and how often that has been tried (``replay-count``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from confluent_kafka import KafkaException, Message, Producer

from agents.delivery.letter_reasons import explained, incurable
from agents.delivery.units import REOPENS
from streams.codec import Codec
from streams.codec.wire_types import wire_class
from streams.core.delivery import hops
from streams.core.delivery.messages import Header, Reopen
from streams.core.errors import Poison, Transient
from streams.core.events import Event
from streams.kafka import dead_letters
from streams.kafka.admin import answering
from streams.kafka.manifest import Manifest
from streams.kafka.partitioner import PARTITIONER
from streams.kafka.scan import Scanner, Span
from streams.settings import Settings

#: Of what entries of the audit trail about dead letters speak.
LETTER: Final = "dead-letter"
FROM: Final = "replayed-from"
COUNT: Final = "replay-count"
#: A person looks at what they send: beyond so many in one click, the command line has filters and a limit.
MOST: Final = 500
DELIVERED_WITHIN_S: Final = 20.0
PREFIX: Final = dead_letters.topic("")
#: Removed besides: a trace that has ended would be continued days later by the record that is sent again.
_ADDED: Final = (dead_letters.CONNECT, dead_letters.SPRING, "curfew-", FROM, COUNT, "traceparent", "tracestate")
#: librdkafka's "by the key".
PARTITION_UA: Final = -1
#: What the loop guard has counted stays: a redrive is no way around it.
_KEPT: Final = (hops.HOPS, hops.PATH, hops.REPLAY)
#: Reasons that reading a value again confirms or not.
_OF_READING: Final = frozenset({"not_avro", "unknown_schema_id", "wrong_type", "undecodable", "invalid"})
UNIT: Final = "curfew-unit-id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What would be, or was, done with one letter. ``refused`` says why it cannot be sent; ``doubt`` why it would
    probably come back. Without a key it goes to the ``partition`` from which it came."""

    place: str
    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    refused: str | None = None
    doubt: str | None = None

    @property
    def doubt_reason(self) -> str | None:
        """The code with which ``doubt`` begins; the rest may quote the record."""
        return None if self.doubt is None else self.doubt.partition(":")[0]

    @property
    def replays(self) -> int:
        return int(dict(self.headers)[COUNT] or b"0")


def parse(place: str) -> tuple[str, int, int]:
    """``dead-letters.events/0/12`` → topic, partition, offset; raises ValueError for what is no dead letter."""
    topic, partition, offset = place.rsplit("/", 2)
    if not topic.startswith(PREFIX):
        raise ValueError(f"{place} is no dead letter")
    return topic, int(partition), int(offset)


def plan(settings: Settings, codec: Codec, places: Iterable[str]) -> list[Step]:
    """Read these letters and say what would be done with each; nothing is sent. Raises Transient without Kafka.

    A letter that retention has removed since is left out.
    """
    manifest = Manifest.load()
    found = []
    with Scanner(answering(settings.kafka())) as scanner:
        for topic, partition, offset in sorted({parse(place) for place in places}):
            span = scanner.spans(topic).get(partition)
            if span is None or not span.start <= offset < span.end:
                continue
            messages = scanner.read(topic, {partition: Span(offset, offset + 1)})
            found += steps(list(messages), codec, manifest, scanner)
    return found


def steps(messages: Iterable[Message], codec: Codec, manifest: Manifest, scanner: Scanner) -> list[Step]:
    """What would be done with each of these letters; Kafka is asked once for each topic. Raises Transient."""
    exists = cache(lambda topic: _exists(scanner, topic))
    return [_step(message, codec, manifest, exists) for message in messages]


def send(settings: Settings, steps: Sequence[Step]) -> int:
    """Send those that are not refused; returns how many, when Kafka has them all. Raises Transient."""
    config = {"partitioner": PARTITIONER, "enable.idempotence": True, "allow.auto.create.topics": False}
    producer = Producer(answering(settings.kafka()) | config)
    problems: list[str] = []
    wanted = [one for one in steps if one.refused is None]

    def on_delivery(error: Any, _message: Any) -> None:
        if error is not None:
            problems.append(error.str())

    for one in wanted:
        producer.produce(
            one.topic,
            value=one.value,
            key=one.key,
            partition=one.partition if one.key is None else PARTITION_UA,
            headers=list(one.headers),
            on_delivery=on_delivery,
        )
    left = producer.flush(DELIVERED_WITHIN_S)
    if left or problems:
        raise Transient(
            f"{left + len(problems)} of {len(wanted)} letters were not sent ({(problems or ['no answer'])[0]}): "
            "look which ones came back before you send them again"
        )
    return len(wanted)


def _step(message: Message, codec: Codec, manifest: Manifest, exists: Callable[[str], bool]) -> Step:
    pairs: Any = message.headers() or []
    headers: Mapping[str, bytes] = {name: bytes(text or b"") for name, text in pairs}
    key, value = message.key(), message.value()
    assert isinstance(key, bytes | None)
    assert isinstance(value, bytes | None)
    topic = headers.get(f"{dead_letters.CONNECT}topic", b"").decode("utf-8", "replace")
    place = f"{message.topic()}/{message.partition()}/{message.offset()}"
    before = headers.get(COUNT, b"")
    count = (int(before) if before.isdigit() else 0) + 1
    original = kept(message)
    if UNIT in headers:
        return _reopened(place, headers, original, key, value, codec, count)
    return Step(
        place=place,
        topic=topic,
        partition=int(headers.get(f"{dead_letters.CONNECT}partition", b"0") or b"0"),
        key=key,
        value=value,
        headers=(*original, (FROM, place.encode()), (COUNT, str(count).encode())),
        refused=_refusal(topic, headers, exists),
        doubt=_doubt(topic, value, codec, manifest, headers.get("curfew-reason", b"").decode("utf-8", "replace")),
    )


def kept(message: Message) -> tuple[tuple[str, bytes | None], ...]:
    """The headers that the record had before it was put aside."""
    pairs: Any = message.headers() or []
    return tuple((name, text) for name, text in pairs if name in _KEPT or not name.startswith(_ADDED))


def _reopened(
    place: str,
    headers: Mapping[str, bytes],
    original: tuple[tuple[str, bytes | None], ...],
    key: bytes | None,
    value: bytes | None,
    codec: Codec,
    count: int,
) -> Step:
    """A delivery is not sent to its queue again, where all subscriptions would hear of it, but begun again."""
    refused, command, partition = None, None, 0
    try:
        reopen = reopening(headers, original, key, value, codec)
        command, partition = codec.encode(REOPENS, reopen), reopen.queue_partition
    except Poison as error:
        refused = error.detail
    return Step(
        place=place,
        topic=REOPENS,
        partition=partition,
        key=None,
        value=command,
        headers=((FROM, place.encode()), (COUNT, str(count).encode())),
        refused=refused,
    )


def reopening(
    headers: Mapping[str, bytes],
    kept: Iterable[tuple[str, bytes | None]],
    key: bytes | None,
    value: bytes | None,
    codec: Codec,
) -> Reopen:
    """The command that begins a dead delivery again; raises Poison for one that can never be delivered."""

    def text(name: str) -> str:
        return headers.get(name, b"").decode("utf-8", "replace")

    if "curfew-truncated" in headers or value is None:
        raise Poison("too_large", "the letter was cut, since the event was too large; it can never be delivered")
    return Reopen(
        unit_id=text(UNIT),
        subscription_id=text("curfew-subscription-id"),
        subscription=text("curfew-subscription"),
        recipient=text("curfew-recipient"),
        queue=text(f"{dead_letters.CONNECT}topic").removeprefix("queue."),
        queue_partition=int(text(f"{dead_letters.CONNECT}partition")),
        queue_offset=int(text(f"{dead_letters.CONNECT}offset")),
        event_id=codec.decode(value, Event).event_id,
        lane=text("curfew-lane") or None,
        attempts=int(text("curfew-attempts") or 0),
        replay=text("curfew-replay-run") or None,
        replay_of=text("curfew-replay-of") or None,
        key=key,
        value=value,
        headers=tuple(Header(name=name, value=content or b"") for name, content in kept),
    )


def _refusal(topic: str, headers: Mapping[str, bytes], exists: Callable[[str], bool]) -> str | None:
    if "curfew-truncated" in headers:
        return "the letter was cut, since the record was too large; the original lies where its headers say"
    if not topic or not exists(topic):
        return f"there is no topic {topic or 'in its headers'} any more"
    return None


def _exists(scanner: Scanner, topic: str) -> bool:
    try:
        return bool(scanner.spans(topic))
    except KafkaException as error:
        raise Transient(f"cannot ask Kafka about {topic}: {error.args[0].str()}") from error


def _doubt(topic: str, value: bytes | None, codec: Codec, manifest: Manifest, reason: str) -> str | None:
    """Why it would come back, as far as can be seen without handling it: it cannot be read, or is itself at fault."""
    known = manifest.topics.get(topic)
    if known is None:
        return None
    if value is not None and known.value is not None:
        try:
            codec.decode(value, wire_class(known.value))
        except Poison as error:
            return str(error)
        if reason in _OF_READING:  # it can be read by now: there is a newer schema, or a newer Curfew
            return None
    return f"{reason}: {'; '.join(explained(reason))}" if incurable(reason) else None
