"""`curfew ledger --upstream`: reads what :mod:`streams.core.upstream` compares, without a consumer group.

First the committed offsets, which say how far to look; whatever came of the records before them was durable before, so
everything else may be read later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaException, Message

from agents.events.feeds import CHANGELOG as CHANGELOG
from agents.events.feeds import FEEDS
from streams.codec import Codec
from streams.codec.rows import object_row_decoder, row_decoder
from streams.core.errors import Poison, Transient
from streams.core.events import Finding
from streams.core.rows import CountRow, count_key
from streams.core.upstream import Fold, Input, Raised
from streams.kafka import changelog, dead_letters
from streams.kafka.admin import answering
from streams.kafka.lag.offset_fetch import committed_offsets
from streams.kafka.scan import Scanner, Span
from streams.settings import Settings
from streams.topics import FINDINGS

GROUP: Final = "events"
QUEUES: Final = "queue."
_NOT_ROUTED: Final = ("unrouted", "withheld")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """All topics of the events worker, and the events that they raise."""

    inputs: tuple[Input, ...]
    events: tuple[Raised, ...]

    @property
    def oddities(self) -> frozenset[str]:
        """What is nowhere: places of records and ids of events."""
        lines: Iterable[Input | Raised] = (*self.inputs, *self.events)
        return frozenset(f"{line.topic} {one}" for line in lines for one in line.missing)


def check_upstream(settings: Settings, codec: Codec, since_ms: int) -> Upstream:
    """The two equations for the records since an instant. Raises Transient."""
    config = answering(settings.kafka())
    with Scanner(config) as scanner:
        held = {topic: scanner.spans(topic) for topic in (*FEEDS, FINDINGS)}
        try:
            taken = committed_offsets(config, GROUP, [(topic, one) for topic, spans in held.items() for one in spans])
        except KafkaException as error:
            raise Transient(f"cannot ask Kafka how far {GROUP} is: {error.args[0].str()}; is it running?") from error
        dead = set(_dead(scanner))
        folds = []
        for topic, spans in held.items():
            fold = Fold(topic, FEEDS[topic][0] if topic in FEEDS else None)
            fold.lag = sum(max(0, span.end - taken.get((topic, number), span.start)) for number, span in spans.items())
            recent = {
                number: Span(span.start, max(span.start, min(span.end, taken.get((topic, number), span.start))))
                for number, span in scanner.since(topic, spans, since_ms).items()
            }
            _fold(fold, scanner.read(topic, recent), codec, dead)
            folds.append(fold)
        revisions, counts = _rows(scanner, folds)
        in_queues = set(_event_ids(scanner))
    inputs = tuple(fold.input(lambda key: revisions.get(key, 0)) for fold in folds)
    events = tuple(line for fold in folds for line in fold.events(in_queues, counts.get(fold.topic, {})))
    return Upstream(inputs=inputs, events=events)


def _dead(scanner: Scanner) -> Iterator[str]:
    """The places from which dead letters are."""
    topic = dead_letters.topic(GROUP)
    for message in scanner.read(topic, scanner.spans(topic)):
        headers = {name: bytes(text or b"").decode("utf-8", "replace") for name, text in _headers(message)}
        yield "/".join(headers.get(f"{dead_letters.CONNECT}{part}", "") for part in ("topic", "partition", "offset"))


def _fold(fold: Fold, messages: Iterable[Message], codec: Codec, dead: set[str]) -> None:
    decode = codec.decoder(FEEDS[fold.topic][1] if fold.kind is not None else Finding)
    for message in messages:
        partition = message.partition() or 0
        place = f"{fold.topic}/{partition}/{message.offset()}"
        if place in dead:
            fold.put_aside()
            continue
        try:
            value = decode(message.value())
        except Poison:
            fold.unread(place)
            continue
        if fold.kind is None:
            fold.found(value)
        else:
            fold.changed(partition, place, value)


def _rows(scanner: Scanner, folds: list[Fold]) -> tuple[dict[tuple[int, bytes], int], dict[str, Counter[str]]]:
    """Revisions of the objects that the folds have met, and what was counted as unrouted, by topic and type."""
    wanted = {key: fold.topic for fold in folds for key in fold.objects}
    names = {key for _, key in wanted}
    rows = changelog.rows(
        scanner, CHANGELOG, (*(f"{kind}/".encode() for kind, _, _ in FEEDS.values()), count_key("")),
        lambda key, value: key in names or key.startswith(count_key("")),
    )  # fmt: skip
    decoders = {topic: object_row_decoder(cls) for topic, (_, _, cls) in FEEDS.items()}
    revisions = {key: decoders[topic](rows[key]).revision for key, topic in wanted.items() if key in rows}
    counts: dict[str, Counter[str]] = {}
    decode = row_decoder(CountRow)
    for (_, key), value in rows.items():
        if not key.startswith(count_key("")):
            continue
        found = counts.setdefault(key.removeprefix(count_key("")).decode(), Counter())
        for name, count in decode(value).counts.items():
            what, _, type = name.partition(" ")
            if what in _NOT_ROUTED:
                found[type] += count
    return revisions, counts


def _event_ids(scanner: Scanner) -> Iterator[str]:
    for topic in scanner.topics(QUEUES):
        for message in scanner.read(topic, scanner.spans(topic)):
            found = next((text for name, text in _headers(message) if name == "ce_id"), None)
            if found is not None:
                yield found.decode("utf-8", "replace")


def _headers(message: Message) -> list[tuple[str, bytes]]:
    pairs: Any = message.headers() or []
    return [(name, bytes(text or b"")) for name, text in pairs]
