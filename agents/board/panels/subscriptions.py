"""Panel 5: who gets their events, who does not, and when it is tried again."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from confluent_kafka import Message

from agents.board import words
from streams.codec import Codec, Registry
from streams.core.delivery import units
from streams.core.delivery.messages import Result, Verdict
from streams.core.delivery.units import Disabled, Parked, Unit
from streams.core.errors import Poison
from streams.core.subscriptions import Subscription
from streams.kafka.scan import Scanner, Span
from streams.settings import Settings
from streams.topics import RESULTS, SUBSCRIPTIONS

NAME: Final = "subscriptions"
TITLE: Final = "Subscriptions"
EVERY_S: Final = 5.0
ROWS: Final = "delivery-store-changelog"
#: Success is counted over so long; results older than that are not read again.
LATELY: Final = timedelta(hours=1)
_KINDS: Final = {units.UNIT: Unit, units.ENDPOINT: Disabled, units.LANE: Parked}
_NOT_SENT: Final = Verdict.POSTPONED


@dataclass(slots=True)
class Tally:
    """What is known of one subscription besides its configuration."""

    pending: int = 0
    failing: int = 0
    oldest_ms: int | None = None
    next_retry_ms: int | None = None
    parked_keys: int = 0
    disabled_version: int | None = None
    disabled_at_ms: int | None = None
    delivered: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, unit: Unit) -> None:
        self.pending += 1
        self.oldest_ms = min(unit.accepted_ms, self.oldest_ms or unit.accepted_ms)
        if unit.last_reason is not None:
            self.failing += 1
            self.reasons[unit.last_reason] += 1
            self.next_retry_ms = min(unit.due_ms, self.next_retry_ms or unit.due_ms)


class SubscriptionSource:
    """Follows configuration, rows and results without a group. The rows of finished units are not kept."""

    panels: Sequence[str] = (NAME,)

    def __init__(self, settings: Settings, *, every_s: float = EVERY_S) -> None:
        self.every_s = every_s
        self._kafka = settings.kafka(log_level=0, error_cb=lambda error: None)
        codec = Codec(Registry(settings.schema_registry_url))
        self._subscription, self._result = codec.decoder(Subscription), codec.decoder(Result)
        self._next: dict[tuple[str, int], int] = {}
        self._configured: dict[str, Subscription] = {}
        self._rows: dict[tuple[int, bytes], Any] = {}
        self._results: dict[tuple[str, Verdict], Counter[datetime]] = defaultdict(Counter)

    def read(self) -> Mapping[str, Mapping[str, Any]]:
        now = datetime.now(UTC)
        with Scanner(self._kafka) as scanner:
            for message in self._new(scanner, SUBSCRIPTIONS):
                self._configure(message.key(), message.value())
            for message in self._new(scanner, ROWS):
                self._row(message.partition() or 0, message.key(), message.value())
            for message in self._new(scanner, RESULTS, since=now - LATELY):
                self._count(message.value())
        for counts in self._results.values():
            for minute in [at for at in counts if at < now - LATELY]:
                del counts[minute]
        return {NAME: view(self._configured.values(), self._tallies(), now)}

    def close(self) -> None:
        """Nothing is held between two readings."""

    def _new(self, scanner: Scanner, topic: str, *, since: datetime | None = None) -> Iterator[Message]:
        """What has come since the last reading; the first time, all of it or all that came ``since``."""
        there = scanner.spans(topic)
        spans = {
            number: Span(max(span.start, min(self._next.get((topic, number), 0), span.end)), span.end)
            for number, span in there.items()
        }
        if since is not None and not any((topic, number) in self._next for number in there):
            spans = scanner.since(topic, there, int(since.timestamp() * 1000))
        yield from scanner.read(topic, spans)
        self._next |= {(topic, number): span.end for number, span in spans.items()}

    def _configure(self, key: Any, value: Any) -> None:
        name = bytes(key or b"").decode("utf-8", "replace")
        if value is None:
            self._configured.pop(name, None)
            return
        try:
            self._configured[name] = self._subscription(value)
        except Poison:  # the workers keep the last good one too
            return

    def _row(self, partition: int, key: Any, value: Any) -> None:
        kind = next((one for one in _KINDS if isinstance(key, bytes) and key.startswith(one)), None)
        if kind is None:
            return
        if value is None:
            self._rows.pop((partition, key), None)
            return
        try:
            row: Any = units.decode(value, _KINDS[kind])
        except msgspec.DecodeError:  # rows are the worker's own business, and may be of another version
            return
        if isinstance(row, Unit):
            # the event itself is not shown, and would be most of the memory
            row = replace(row, key=None, value=b"", headers=())
        self._rows[partition, key] = row

    def _count(self, value: Any) -> None:
        try:
            result = self._result(value)
        except Poison:
            return
        if result.verdict is not _NOT_SENT:
            minute = result.finished_at.replace(second=0, microsecond=0)
            self._results[result.subscription_id, result.verdict][minute] += 1

    def _tallies(self) -> dict[str, Tally]:
        found: dict[str, Tally] = defaultdict(Tally)
        for (_, key), row in self._rows.items():
            if isinstance(row, Unit):
                found[row.subscription_id].add(row)
            elif isinstance(row, Disabled):
                tally = found[key.removeprefix(units.ENDPOINT).decode()]
                tally.disabled_version = max(row.version, tally.disabled_version or 0)
                tally.disabled_at_ms = max(row.at_ms, tally.disabled_at_ms or 0)
            else:
                found[key.removeprefix(units.LANE).split(b"/", 1)[0].decode()].parked_keys += 1
        for (subscription_id, verdict), counts in self._results.items():
            number = sum(counts.values())
            if verdict is Verdict.DELIVERED:
                found[subscription_id].delivered += number
            else:
                found[subscription_id].failed += number
        return found


def view(subscriptions: Any, tallies: Mapping[str, Tally], now: datetime) -> dict[str, Any]:
    """The ones that do not deliver first."""
    rows = [_row(one, tallies.get(one.id, Tally()), now) for one in subscriptions]
    rows.sort(key=lambda row: (row["word"] == words.OK, row["name"]))
    return {"word": words.worst(*(row["word"] for row in rows)), "subscriptions": rows}


def _receiver(one: Subscription) -> str:
    """Where its events go."""
    if one.webhook is not None:
        # Only the host: whoever knows the path of a webhook can often write to it.
        return f"webhook of {urlsplit(one.webhook.url).netloc.rpartition('@')[2]}"
    if one.forward is not None:
        return f"queue.{one.forward.queue}"
    if one.calculation is not None:
        return f"calculation {one.calculation.name}"
    addresses = () if one.email is None else (*one.email.to, *one.email.to_parameters)
    return f"mail to {', '.join(addresses)}"


def _row(one: Subscription, tally: Tally, now: datetime) -> dict[str, Any]:
    disabled = one.webhook is not None and tally.disabled_version == one.version
    state = "active"
    if not one.active:
        state = "inactive"
    elif one.paused:
        state = "paused"
    elif disabled:
        state = "disabled: the receiver answered 410"
    elif tally.failing:
        state = f"failing: {', '.join(reason for reason, _ in tally.reasons.most_common(3))}"
    attempts = tally.delivered + tally.failed
    now_ms = now.timestamp() * 1000
    return {
        "name": one.name,
        "id": one.id,
        "version": one.version,
        "queue": one.queue,
        "to": _receiver(one),
        "state": state,
        "word": words.ATTENTION if one.active and (disabled or tally.failing or tally.parked_keys) else words.OK,
        "delivered_last_hour": tally.delivered,
        "failed_last_hour": tally.failed,
        "success": round(tally.delivered / attempts, 4) if attempts else None,
        "pending": tally.pending,
        "failing": tally.failing,
        "parked_keys": tally.parked_keys,
        "oldest_seconds": None if tally.oldest_ms is None else round((now_ms - tally.oldest_ms) / 1000, 1),
        "next_retry_at": None
        if tally.next_retry_ms is None or disabled
        else words.utc(datetime.fromtimestamp(tally.next_retry_ms / 1000, UTC)),
        "disabled_at": words.utc(datetime.fromtimestamp(tally.disabled_at_ms / 1000, UTC))
        if disabled and tally.disabled_at_ms
        else None,
    }
