"""Panel 3: records that could not be handled, by app and reason; the newest ones can be looked at."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Message

from agents.board import words
from agents.board.memory import Memory
from agents.configuration.changes import AUDIT
from agents.delivery.redrive import LETTER
from agents.record_json import bytes_json, headers_json, masked_json
from streams.codec import Codec, Registry
from streams.codec.readable import MASKED
from streams.core.audit import AuditEntry
from streams.core.errors import Poison
from streams.kafka import dead_letters
from streams.kafka.scan import Scanner, Span
from streams.settings import Settings

NAME: Final = "letters"
TITLE: Final = "Dead letters"
EVERY_S: Final = 5.0
#: Letters that can be looked at, the newest of all apps; with :data:`MAX_VALUE` this bounds the memory.
KEPT: Final = 500
MAX_VALUE: Final = 20_000
MAX_HEADER: Final = 500
#: Letters that the panel lists; the others are counted.
LISTED: Final = 20
_PREFIX: Final = dead_letters.topic("")
_ERRORS: Final = dead_letters.CONNECT
_NUMBERS: Final = (f"{dead_letters.SPRING}original-partition", f"{dead_letters.SPRING}original-offset")
#: An address, and what a receiver has said about the event.
_PERSONAL: Final = ("curfew-recipient", "curfew-response")
#: App, reason, and the topic from which the record is.
Sort = tuple[str, str, str]


class LetterSource:
    """Reads on where it was, joins no group."""

    panels: Sequence[str] = (NAME,)

    def __init__(self, settings: Settings, memory: Memory, *, every_s: float = EVERY_S) -> None:
        self.every_s = every_s
        self._kafka = settings.kafka(log_level=0, error_cb=lambda error: None)
        self._codec = Codec(Registry(settings.schema_registry_url))
        self._memory = memory
        self._next: dict[tuple[str, int], int] = {}
        self._entry = self._codec.decoder(AuditEntry)
        self._counts: Counter[Sort] = Counter()
        self._sorts: dict[str, Sort] = {}
        self._redriven: dict[str, dict[str, str | None]] = {}
        self._kept: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def read(self) -> Mapping[str, Mapping[str, Any]]:
        with Scanner(self._kafka) as scanner:
            for message in self._new(scanner, AUDIT):
                self._note(message.value())
            for topic in scanner.topics(_PREFIX):
                self._read(scanner, topic)
        kept = [one | {"redriven": self._redriven.get(one["place"])} for one in self._kept.values()]
        newest = sorted(kept, key=lambda one: (one["at_ms"], one["place"]), reverse=True)[:KEPT]
        self._kept = OrderedDict((one["place"], one) for one in reversed(newest))
        self._memory.keep("letter", dict(self._kept))
        return {NAME: view(self._counts, self._redriven_counts(), newest)}

    def close(self) -> None:
        """Nothing is held between two readings."""

    def _new(self, scanner: Scanner, topic: str) -> Iterator[Message]:
        spans = {
            number: Span(max(span.start, min(self._next.get((topic, number), 0), span.end)), span.end)
            for number, span in scanner.spans(topic).items()
        }
        yield from scanner.read(topic, spans)
        self._next |= {(topic, number): span.end for number, span in spans.items()}

    def _read(self, scanner: Scanner, topic: str) -> None:
        for message in self._new(scanner, topic):
            letter = self._letter(topic, message)
            sort = letter["app"], letter["reason"], letter["from_topic"]
            self._counts[sort] += 1
            self._sorts[letter["place"]] = sort
            self._kept[letter["place"]] = letter
            if len(self._kept) > 2 * KEPT:
                self._kept.popitem(last=False)

    def _note(self, value: object) -> None:
        """Who has sent which letter back."""
        try:
            entry = self._entry(value if isinstance(value, bytes) else None)
        except Poison:
            return
        if entry.what == LETTER:
            self._redriven[entry.name] = {"by": entry.by, "at": words.utc(entry.at)}

    def _redriven_counts(self) -> Counter[Sort]:
        return Counter(self._sorts[place] for place in self._redriven if place in self._sorts)

    def _letter(self, topic: str, message: Message) -> dict[str, Any]:
        pairs: Any = message.headers() or []
        headers = {name: bytes(text or b"").decode("utf-8", "replace") for name, text in pairs}
        value, key = message.value(), message.key()
        assert isinstance(value, bytes | None)
        [shown_key] = bytes_json("key", key.encode() if isinstance(key, str) else key).values()
        at_ms = message.timestamp()[1]
        return {
            "place": f"{topic}/{message.partition()}/{message.offset()}",
            "app": topic.removeprefix(_PREFIX),
            "topic": topic,
            "partition": message.partition(),
            "offset": message.offset(),
            "at_ms": at_ms,
            "key": shown_key,
            "reason": headers.get("curfew-reason", "unknown"),
            "message": headers.get(f"{_ERRORS}exception.message", ""),
            "from_topic": headers.get(f"{_ERRORS}topic", "unknown"),
            "from_partition": headers.get(f"{_ERRORS}partition"),
            "from_offset": headers.get(f"{_ERRORS}offset"),
            "bytes": 0 if value is None else len(value),
            "headers": headers_json([(name, _shown_header(name, bytes(text or b""))) for name, text in pairs]),
            **self._shown(value),
        }

    def _shown(self, value: bytes | None) -> dict[str, Any]:
        if value is not None and len(value) > MAX_VALUE:
            return {"value": None, "too_large": True}
        return masked_json(self._codec, value)


def _shown_header(name: str, text: bytes) -> bytes:
    """Spring's numbers are big-endian; the rest is text, of which the beginning is enough for a page."""
    if name in _PERSONAL:
        return MASKED.encode()
    if name in _NUMBERS:
        return str(int.from_bytes(text, signed=True)).encode()
    return text[:MAX_HEADER]


def view(counts: Counter[Sort], redriven: Counter[Sort], newest: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By app, reason and the topic from which the records are, the most first; and the newest letters.

    ``waiting`` are those that nobody has sent back.
    """
    shown = (
        "place",
        "app",
        "at_ms",
        "key",
        "reason",
        "message",
        "from_topic",
        "from_partition",
        "from_offset",
        "redriven",
    )
    waiting = sum(counts.values()) - sum(redriven.values())
    return {
        "word": words.ATTENTION if waiting else words.OK,
        "letters": sum(counts.values()),
        "waiting": waiting,
        "by_reason": [
            {
                "app": sort[0], "reason": sort[1], "from_topic": sort[2],
                "letters": count, "redriven": redriven[sort], "waiting": count - redriven[sort],
            }
            for sort, count in counts.most_common()
        ],
        "newest": [{name: one[name] for name in shown} for one in newest[:LISTED]],
    }  # fmt: skip
