"""Dead letters for commands: which there are, which were sent back, and sending them back in chunks.

That a letter was sent back stands in the audit trail, written after Kafka has the record: a redrive that is interrupted
loses nothing, and the next one repeats at most one chunk, the same records as before. The audit trail also has an
entry of the whole redrive before anything is sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

from confluent_kafka import Message

from agents.configuration.changes import AUDIT
from agents.configuration.records import write_keyed
from agents.delivery import redrive
from agents.delivery.redrive import LETTER
from streams.codec import Codec
from streams.core.audit import AuditEntry
from streams.core.errors import Poison
from streams.kafka import dead_letters
from streams.kafka.manifest import Manifest
from streams.kafka.scan import Scanner, Span
from streams.settings import Settings

#: What the audit trail calls a whole redrive, and a look at what is masked otherwise.
REDRIVE, REVEAL = "redrive", "dead-letter-reveal"
#: Letters that are sent and then recorded together; also the most that an interruption sends twice.
CHUNK: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which letters: all conditions hold. ``first`` and ``last`` are offsets of ``partition`` in ``topic``."""

    topic: str | None = None
    partition: int | None = None
    first: int = 0
    last: int | None = None
    reason: str | None = None
    subscription: str | None = None
    since_ms: int | None = None
    key: str | None = None

    def has(self, letter: Letter) -> bool:
        """Whether ``letter``, which lies in the range, is wanted by the other conditions."""
        return (
            (self.reason is None or self.reason == letter.reason)
            and (self.key is None or self.key.encode() == letter.key)
            and (self.subscription is None or self.subscription in letter.subscriptions)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One dead letter with its headers, of which the first of a name counts."""

    place: str
    app: str
    at_ms: int
    key: bytes | None
    headers: Mapping[str, bytes]
    redriven: bool
    message: Message

    @property
    def reason(self) -> str:
        return self.text("curfew-reason") or "unknown"

    @property
    def subscriptions(self) -> tuple[str, str]:
        """Name and id of the subscription whose delivery this was; empty otherwise."""
        return self.text("curfew-subscription"), self.text("curfew-subscription-id")

    def text(self, header: str) -> str:
        return self.headers.get(header, b"").decode("utf-8", "replace")


def parse_range(text: str) -> Wanted:
    """``dead-letters.events/0/12`` or ``…/0/12-99``; raises ValueError that says how to write one."""
    try:
        topic, partition, offsets = text.rsplit("/", 2)
        first, _, last = offsets.partition("-")
        found = Wanted(topic=topic, partition=int(partition), first=int(first), last=int(last or first))
    except ValueError:
        found = Wanted()
    if found.topic is None or not found.topic.startswith(redrive.PREFIX):
        raise ValueError(f"{text!r} is no dead letter: write TOPIC/PARTITION/OFFSET, or OFFSET-OFFSET for a range")
    return found


def redriven(scanner: Scanner, codec: Codec) -> set[str]:
    """The places of the letters that were sent back."""
    decode, found = codec.decoder(AuditEntry), set()
    for message in scanner.read(AUDIT, scanner.spans(AUDIT)):
        try:
            entry = decode(message.value())
        except Poison:
            continue
        if entry.what == LETTER:
            found.add(entry.name)
    return found


def letters(scanner: Scanner, codec: Codec, wanted: Wanted) -> Iterator[Letter]:
    """The letters that there are now, topic by topic, in the order of each partition. Raises Transient."""
    back = redriven(scanner, codec)
    for topic in [wanted.topic] if wanted.topic else scanner.topics(redrive.PREFIX):
        spans = scanner.spans(topic)
        if wanted.partition is not None:
            last = spans.get(wanted.partition, Span(0, 0)).end - 1 if wanted.last is None else wanted.last
            spans = {
                number: Span(max(span.start, wanted.first), min(span.end, last + 1))
                for number, span in spans.items()
                if number == wanted.partition
            }
        if wanted.since_ms is not None:
            spans = scanner.since(topic, spans, wanted.since_ms)
        for message in scanner.read(topic, spans):
            letter = _letter(topic, message, back)
            if wanted.has(letter):
                yield letter


def _letter(topic: str, message: Message, back: set[str]) -> Letter:
    pairs: Any = message.headers() or []
    headers: dict[str, bytes] = {}
    for name, text in pairs:
        headers.setdefault(name, bytes(text or b""))
    key, place = message.key(), f"{topic}/{message.partition()}/{message.offset()}"
    return Letter(
        place=place,
        app=topic.removeprefix(dead_letters.topic("")),
        at_ms=message.timestamp()[1],
        key=key.encode() if isinstance(key, str) else key,
        headers=headers,
        redriven=place in back,
        message=message,
    )


def planned(scanner: Scanner, codec: Codec, found: Sequence[Letter]) -> list[redrive.Step]:
    """What a redrive would do with each; nothing is sent."""
    return redrive.steps([one.message for one in found], codec, Manifest.load(), scanner)


def send_back(settings: Settings, codec: Codec, steps: Sequence[redrive.Step], by: str) -> Iterator[int]:
    """Send those that are not refused; yields how many are sent and recorded after each chunk. Raises Transient."""
    left = iter([one for one in steps if one.refused is None])
    count = 0
    while chunk := list(islice(left, CHUNK)):
        redrive.send(settings, chunk)
        entries = [
            entry(LETTER, one.place, by, {"action": "redrive", "to": one.topic, "replays": one.replays})
            for one in chunk
        ]
        record(settings, codec, entries)
        count += len(chunk)
        yield count


def entry(what: str, name: str, by: str, after: Mapping[str, Any]) -> AuditEntry:
    """An entry for now."""
    now = datetime.now(UTC)
    at = now.replace(microsecond=now.microsecond // 1000 * 1000)
    return AuditEntry(at=at, by=by, what=what, name=name, after=json.dumps(after, ensure_ascii=False))


def record(settings: Settings, codec: Codec, entries: Sequence[AuditEntry]) -> None:
    """They are durable when this returns."""
    write_keyed(settings, codec, AUDIT, [(f"{one.what}/{one.name}", one) for one in entries])
