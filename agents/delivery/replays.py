"""Replays of a subscription: which events a run would send again, and asking the delivery worker for them.

What became of an event is read from the topics: rows (open units), commands of runs, results, dead letters. A replay
that was delivered counts for the event that it repeats, so a second run finds what is still not delivered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final

from confluent_kafka import Message

from agents.delivery import redrive
from agents.delivery.letters import Wanted, entry, letters, record
from streams.codec import Codec
from streams.core import ids
from streams.core.delivery import units
from streams.core.delivery.messages import Header, Reopen, Replay, Result, Verdict
from streams.core.delivery.recipients import unit_ids
from streams.core.delivery.units import Activation, Done, Reached, State, Unit
from streams.core.errors import Poison
from streams.core.events import Event
from streams.core.subscription_filter import Acceptance
from streams.core.subscriptions import Subscription
from streams.filters import CelLanguage
from streams.kafka import changelog, dead_letters
from streams.kafka.admin import answering
from streams.kafka.lag.offset_fetch import committed_offsets
from streams.kafka.positions import Position
from streams.kafka.scan import Scanner, Span, Spans
from streams.settings import Settings
from streams.topics import REPLAYS, RESULTS

#: What the audit trail calls a run.
REPLAY: Final = "replay"
APP: Final = "delivery"
CHANGELOG: Final = "delivery-store-changelog"
_KINDS: Final = (units.UNIT, units.DONE, units.ACTIVATION, units.REPLAYS)
#: Commands that are sent together; each holds its event.
CHUNK: Final = 1_000
MESSAGE: Final = "msg_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a person wants again; one of the first four is given. ``event`` is an event id, or a webhook-id for one
    recipient. Instants are Unix milliseconds; ``partition`` narrows ``start`` and ``stop``."""

    event: str | None = None
    failed_since_ms: int | None = None
    missing_since_ms: int | None = None
    start: Position | None = None
    stop: Position | None = None
    partition: int | None = None

    @property
    def undelivered(self) -> bool:
        """Whether only what the receiver has not got is meant."""
        return self.failed_since_ms is not None or self.missing_since_ms is not None


@dataclass(slots=True, eq=False)
class History:
    """What became of the events of one subscription, as ids of their original units."""

    open: set[str] = field(default_factory=set)
    delivered: set[str] = field(default_factory=set)
    runs: dict[str, set[str]] = field(default_factory=dict)
    #: Queue partition → offset below which intake has seen everything.
    seen: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """``commands``: what would be sent, at most as many as were wanted; ``types``: all that would be, by event type;
    ``left_out``: why others are not."""

    commands: tuple[Replay, ...]
    types: Mapping[str, int]
    left_out: Mapping[str, int]

    @property
    def found(self) -> int:
        return sum(self.types.values())


def choose(settings: Settings, codec: Codec, subscription: Subscription, ask: Ask, run: str, most: int) -> Choice:
    """What a run would send; nothing is sent. Raises Transient."""
    config = answering(settings.kafka())
    commands: list[Replay] = []
    types, left_out = Counter[str](), Counter[str]()
    with Scanner(config) as scanner:
        history = _history(scanner, config, codec, subscription)
        if ask.failed_since_ms is not None:
            candidates = _failed(scanner, codec, subscription, ask.failed_since_ms, left_out)
        else:
            candidates = _in_queue(scanner, codec, subscription, ask, history, left_out)
        for event_type, command in candidates:
            command = replace(command, run=run)
            why = _left_out(command, history, ask)
            if why is not None:
                left_out[why] += 1
                continue
            types[event_type] += 1
            if len(commands) < most:
                commands.append(command)
    return Choice(commands=tuple(commands), types=types, left_out=left_out)


def _left_out(command: Replay, history: History, ask: Ask) -> str | None:
    if command.unit_id in history.runs.get(command.run, ()):
        return "sent in this run before"
    if command.unit_id in history.open:
        return "on their way already"
    if ask.undelivered and command.unit_id in history.delivered:
        return "delivered"
    return None


def send(
    settings: Settings, codec: Codec, subscription: Subscription, choice: Choice, by: str, asked: Mapping[str, Any]
) -> Iterator[int]:
    """Put the run on record, then ask for it; yields how many commands Kafka has after each chunk. Raises Transient."""
    run = choice.commands[0].run
    after = {"action": REPLAY, "run": run, "events": len(choice.commands), **asked}
    record(settings, codec, [entry(REPLAY, subscription.name, by, after)])
    left, count = iter(choice.commands), 0
    while chunk := list(islice(left, CHUNK)):
        count += redrive.send(settings, [_step(command, codec) for command in chunk])
        yield count


def _step(command: Replay, codec: Codec) -> redrive.Step:
    return redrive.Step(
        place=command.unit_id,
        topic=REPLAYS,
        partition=command.queue_partition,
        key=None,
        value=codec.encode(REPLAYS, command),
        headers=(),
    )


# -- what became of what ----------------------------------------------------------------------------------------------


def _history(scanner: Scanner, config: Mapping[str, Any], codec: Codec, subscription: Subscription) -> History:
    """The rows come first: what they say has ended has a result."""
    history, reached = History(), dict[int, int]()
    for (partition, key), value in changelog.rows(scanner, CHANGELOG, _KINDS).items():
        if key.startswith(units.UNIT):
            unit = units.decode(value, Unit)
            if unit.subscription_id == subscription.id:
                history.open.add(unit.replay_of or unit.unit_id)
        elif key == units.activation_key(subscription.id):
            history.seen[partition] = units.decode(value, Activation).through
        elif key == units.REPLAYS:
            reached[partition] = units.decode(value, Reached).through
        elif key.startswith(units.DONE):
            done = units.decode(value, Done)
            if done.subscription_id == subscription.id and done.state is State.DELIVERED and done.replay is None:
                history.delivered.add(key.rsplit(b"/", 1)[1].decode())
    for message, command in _decoded(scanner, REPLAYS, codec, Replay):
        if command.subscription_id == subscription.id:
            history.runs.setdefault(command.run, set()).add(command.unit_id)
            if (message.offset() or 0) >= reached.get(message.partition() or 0, 0):
                history.open.add(command.unit_id)
    for _, result in _decoded(scanner, RESULTS, codec, Result):
        if result.subscription_id == subscription.id and result.verdict is Verdict.DELIVERED:
            history.delivered.add(ids.unit_id(result.event_id, result.subscription_id, result.recipient))
    # Where intake has never met the subscription: it was not there yet when these records came by.
    topic = f"queue.{subscription.queue}"
    unmet = [(topic, number) for number in scanner.spans(topic) if number not in history.seen]
    for (_, number), offset in committed_offsets(config, APP, unmet).items():
        history.seen[number] = offset
    return history


def _decoded(
    scanner: Scanner, topic: str, codec: Codec, cls: type[Any], spans: Spans | None = None
) -> Iterator[tuple[Message, Any]]:
    """What can be read of ``spans``, or of all; the rest the worker has put aside, and nobody has ever had it."""
    decode = codec.decoder(cls)
    for message in scanner.read(topic, scanner.spans(topic) if spans is None else spans):
        try:
            yield message, decode(message.value())
        except Poison:
            continue


# -- candidates: (event type, command), in the order of each partition ------------------------------------------------


def _failed(
    scanner: Scanner, codec: Codec, subscription: Subscription, since_ms: int, left_out: Counter[str]
) -> Iterable[tuple[str, Replay]]:
    """What was given up since, by its dead letter, which is kept for longer than the queue's record."""
    wanted = Wanted(topic=dead_letters.topic(APP), subscription=subscription.id, since_ms=since_ms)
    found: dict[str, tuple[str, Replay]] = {}
    for letter in letters(scanner, codec, wanted):
        key, value, pairs = letter.message.key(), letter.message.value(), redrive.kept(letter.message)
        assert isinstance(key, bytes | None)
        assert isinstance(value, bytes | None)
        try:
            dead = redrive.reopening(letter.headers, pairs, key, value, codec)
            assert value is not None
            event_type = codec.decode(value, Event).type
        except Poison:
            left_out["cut or unreadable: they can never be delivered"] += 1
            continue
        found[dead.replay_of or dead.unit_id] = event_type, from_letter(dead)
    return sorted(found.values(), key=lambda one: (one[1].queue_partition, one[1].queue_offset))


def from_letter(dead: Reopen) -> Replay:
    return Replay(
        run="",
        unit_id=dead.replay_of or dead.unit_id,
        subscription_id=dead.subscription_id,
        subscription=dead.subscription,
        recipient=dead.recipient,
        queue=dead.queue,
        queue_partition=dead.queue_partition,
        queue_offset=dead.queue_offset,
        event_id=dead.event_id,
        key=dead.key,
        value=dead.value,
        headers=dead.headers,
    )


def _in_queue(
    scanner: Scanner, codec: Codec, subscription: Subscription, ask: Ask, history: History, left_out: Counter[str]
) -> Iterator[tuple[str, Replay]]:
    """What the queue still has, as far as intake has come: the rest comes by itself."""
    topic, acceptance, met = f"queue.{subscription.queue}", Acceptance(CelLanguage()), set[str]()
    for message, event in _decoded(scanner, topic, codec, Event, _spans(scanner, topic, ask, history)):
        recipients = {
            recipient: unit_id
            for recipient, unit_id in unit_ids(subscription, event).items()
            if ask.event is None or ask.event in (event.event_id, f"{MESSAGE}{unit_id}")
        }
        if recipients and not acceptance.accepts(subscription, event):
            left_out["not wanted by the subscription (types, filter, audience)"] += 1
            continue
        for recipient, unit_id in recipients.items():
            if unit_id in met:  # a repeated event
                continue
            met.add(unit_id)
            yield event.type, _command(message, event, subscription, recipient, unit_id)


def _command(message: Message, event: Event, subscription: Subscription, recipient: str, unit_id: str) -> Replay:
    key, value = message.key(), message.value()
    pairs: Any = message.headers() or []
    assert isinstance(key, bytes | None)
    assert isinstance(value, bytes)
    return Replay(
        run="",
        unit_id=unit_id,
        subscription_id=subscription.id,
        subscription=subscription.name,
        recipient=recipient,
        queue=subscription.queue,
        queue_partition=message.partition() or 0,
        queue_offset=message.offset() or 0,
        event_id=event.event_id,
        key=key,
        value=value,
        headers=tuple(Header(name=name, value=content or b"") for name, content in pairs),
    )


def _spans(scanner: Scanner, topic: str, ask: Ask, history: History) -> Spans:
    held = scanner.spans(topic)
    start = ask.start or Position("beginning")
    if ask.missing_since_ms is not None:
        start = Position("instant", ask.missing_since_ms)
    first, last = _offsets(scanner, topic, held, start), _offsets(scanner, topic, held, ask.stop or Position("end"))
    return {
        number: Span(max(span.start, first[number]), min(span.end, last[number], history.seen.get(number, span.start)))
        for number, span in held.items()
        if ask.partition in (None, number)
    }


def _offsets(scanner: Scanner, topic: str, held: Spans, position: Position) -> dict[int, int]:
    if position.name == "instant":
        return {number: span.start for number, span in scanner.since(topic, held, position.number).items()}
    if position.name == "offset":
        return dict.fromkeys(held, position.number)
    return {number: span.start if position.name == "beginning" else span.end for number, span in held.items()}


def is_there(choice: Choice) -> bool:
    """Whether anything was found at all, also of what is left out."""
    return bool(choice.found or sum(choice.left_out.values()))
