"""The checker of the ledger: computes it from the topics themselves, not from what the workers say of themselves.

It reads, in this order, the rows (changelog of the delivery store), the commands of replays, the dead letters, the
results, and the queues. The rows come first: whatever they say has ended, its result or dead letter was durable before.
Units of records that intake had not reached then are left out; that is lag, not difference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from streams.codec import Codec
from streams.core.delivery import units
from streams.core.delivery.ledger import Balance, Evidence, balance
from streams.core.delivery.messages import Replay, Result, Verdict
from streams.core.delivery.recipients import unit_ids
from streams.core.delivery.units import Activation, Done, Reached, State, Unit
from streams.core.errors import Poison
from streams.core.events import Event
from streams.core.filters import Unfit
from streams.core.ids import replayed_unit_id
from streams.core.subscription_filter import Acceptance
from streams.core.subscriptions import Subscription
from streams.filters import CelLanguage
from streams.kafka import changelog
from streams.kafka.changelog import Rows
from streams.kafka.ledger_runs import Run, RunAccount
from streams.kafka.scan import Scanner, Span
from streams.topics import REPLAYS, RESULTS

UNIT_HEADER: Final = "curfew-unit-id"
SUBSCRIPTION_HEADER: Final = "curfew-subscription-id"
REPLAY_HEADER: Final = "curfew-replay-run"
OFFSET_HEADER: Final = "__connect.errors.offset"
PARTITION_HEADER: Final = "__connect.errors.partition"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerTopics:
    """Where the evidence is."""

    queue_prefix: str = "queue."
    results: str = RESULTS
    dead_letters: str = "dead-letters.delivery"
    changelog: str = "delivery-store-changelog"
    replays: str = REPLAYS


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The balance of one subscription. ``lag``: records of its queue that intake had not reached; ``unreadable``:
    records that are no events (in the dead letters, but nobody's units); ``unfit``: filtered ones for which the filter
    had no answer; ``oldest_pending_ms``: when the oldest unit that is not finished was accepted, Unix milliseconds;
    ``runs``: its replays, each with a balance of its own."""

    subscription: str
    subscription_id: str
    queue: str
    balance: Balance
    lag: int
    unreadable: int
    unfit: int = 0
    oldest_pending_ms: int | None = None
    runs: tuple[Run, ...] = ()

    @property
    def difference(self) -> int:
        """Of the events and of all replays."""
        return self.balance.difference + sum(run.balance.difference for run in self.runs)

    @property
    def oddities(self) -> frozenset[str]:
        """What is missing or nobody's, of the events and of all replays."""
        balances = (self.balance, *(run.balance for run in self.runs))
        return frozenset(
            f"{self.subscription_id} {one}" for found in balances for one in (*found.missing, *found.unexpected)
        )


#: Unit id → (partition, offset) of its event in the queue.
Found = dict[str, tuple[int, int]]


@dataclass(slots=True, eq=False)
class _Account:
    """What is known of one subscription while the topics are read."""

    queue: str
    name: str
    activations: dict[int, Activation] = field(default_factory=dict)
    versions: dict[int, Subscription] = field(default_factory=dict)
    pending: Found = field(default_factory=dict)
    discarded: Found = field(default_factory=dict)
    delivered: Found = field(default_factory=dict)
    dead: Found = field(default_factory=dict)
    accepted: dict[str, bool] = field(default_factory=dict)
    windows: dict[int, Span] = field(default_factory=dict)
    lag: int = 0
    unreadable: int = 0
    unfit: int = 0
    oldest_ms: int | None = None
    runs: dict[str, RunAccount] = field(default_factory=lambda: defaultdict(RunAccount))

    def evidence(self) -> Evidence:
        return Evidence(
            accepted=self.accepted,
            pending=self._counted(self.pending),
            delivered=self._counted(self.delivered),
            dead=self._counted(self.dead),
            discarded=self._counted(self.discarded),
        )

    def covers(self, partition: int, offset: int) -> bool:
        """Whether the record counts for this subscription."""
        window = self.windows.get(partition)
        return window is not None and window.start <= offset < window.end

    def _counted(self, found: Found) -> set[str]:
        """Units of records in the windows; and those of earlier records of which a window holds a repetition."""
        return {unit_id for unit_id, place in found.items() if unit_id in self.accepted or self.covers(*place)}


def check(config: Mapping[str, Any], codec: Codec, topics: LedgerTopics | None = None) -> list[Line]:
    """The balance of every subscription that intake has seen, by name.

    ``config`` is librdkafka's. Raises :class:`streams.core.errors.Transient` when Kafka or the registry do not answer.
    """
    topics = topics or LedgerTopics()
    with Scanner(config) as scanner:
        rows = changelog.rows(scanner, topics.changelog, _KINDS)
        accounts = _opened(rows)
        _read_replays(scanner, topics.replays, accounts, rows, codec)
        _read_rows(rows, accounts)
        _read_dead_letters(scanner, topics.dead_letters, accounts)
        _read_results(scanner, topics.results, accounts, codec)
        for queue in sorted({account.queue for account in accounts.values()}):
            _read_queue(scanner, f"{topics.queue_prefix}{queue}", accounts, queue, codec)
    return [
        Line(
            subscription=account.name,
            subscription_id=subscription_id,
            queue=account.queue,
            balance=balance(account.evidence()),
            lag=account.lag,
            unreadable=account.unreadable,
            unfit=account.unfit,
            oldest_pending_ms=account.oldest_ms,
            runs=tuple(run.closed(name) for name, run in sorted(account.runs.items()) if run.known),
        )
        for subscription_id, account in sorted(accounts.items(), key=lambda item: (item[1].name, item[0]))
    ]


_KINDS: Final = (units.UNIT, units.ACTIVATION, units.VERSION, units.DONE, units.REPLAYS)


def _opened(rows: Rows) -> dict[str, _Account]:
    accounts: dict[str, _Account] = {}
    for (partition, key), value in rows.items():
        if key.startswith(units.ACTIVATION):
            row = units.decode(value, Activation)
            account = accounts.setdefault(row.subscription_id, _Account(queue=row.queue, name=row.subscription))
            account.activations[partition] = row
    return accounts


def _read_replays(scanner: Scanner, topic: str, accounts: dict[str, _Account], rows: Rows, codec: Codec) -> None:
    """A subscription that has seen no event yet may have replays."""
    decode = codec.decoder(Replay)
    reached = {
        partition: units.decode(value, Reached).through
        for (partition, key), value in rows.items()
        if key == units.REPLAYS
    }
    for message in scanner.read(topic, scanner.spans(topic)):
        try:
            wanted = decode(message.value())
        except Poison:
            continue
        account = accounts.setdefault(wanted.subscription_id, _Account(queue=wanted.queue, name=wanted.subscription))
        run = account.runs[wanted.run]
        if (message.offset() or 0) < reached.get(message.partition() or 0, 0):
            run.asked.add(replayed_unit_id(wanted.run, wanted.unit_id))
        else:
            run.lag += 1


def _read_rows(rows: Rows, accounts: dict[str, _Account]) -> None:
    for (partition, key), value in rows.items():
        if key.startswith(units.UNIT):
            unit = units.decode(value, Unit)
            if unit.subscription_id in accounts and unit.replay is not None:
                accounts[unit.subscription_id].runs[unit.replay].pending.add(unit.unit_id)
            elif unit.subscription_id in accounts:
                account = accounts[unit.subscription_id]
                account.pending[unit.unit_id] = partition, unit.offset
                account.oldest_ms = min(unit.accepted_ms, account.oldest_ms or unit.accepted_ms)
        elif key.startswith(units.VERSION):
            subscription = units.decode(value, Subscription)
            if subscription.id in accounts:
                accounts[subscription.id].versions[subscription.version] = subscription
        elif key.startswith(units.DONE):
            done = units.decode(value, Done)
            if done.state is State.DISCARDED and done.subscription_id in accounts:
                account, unit_id = accounts[done.subscription_id], key.rsplit(b"/", 1)[1].decode()
                if done.replay is not None:
                    account.runs[done.replay].discarded.add(unit_id)
                else:
                    account.discarded[unit_id] = partition, done.offset


def _read_dead_letters(scanner: Scanner, topic: str, accounts: dict[str, _Account]) -> None:
    for message in scanner.read(topic, scanner.spans(topic)):
        headers = dict(message.headers() or ())
        account = accounts.get(_text(headers, SUBSCRIPTION_HEADER))
        run = _text(headers, REPLAY_HEADER)
        if account is not None and run:
            account.runs[run].dead.add(_text(headers, UNIT_HEADER))
        elif account is not None:
            place = int(_text(headers, PARTITION_HEADER) or -1), int(_text(headers, OFFSET_HEADER) or -1)
            account.dead[_text(headers, UNIT_HEADER)] = place


def _text(headers: Mapping[str, Any], name: str) -> str:
    return bytes(headers.get(name) or b"").decode("utf-8", "replace")


def _read_results(scanner: Scanner, topic: str, accounts: dict[str, _Account], codec: Codec) -> None:
    decode = codec.decoder(Result)
    for message in scanner.read(topic, scanner.spans(topic)):
        try:
            result = decode(message.value())
        except Poison:
            continue  # the delivery worker has dead-lettered it; if it was a success, the unit shows as missing
        account = accounts.get(result.subscription_id)
        if account is None or result.verdict is not Verdict.DELIVERED:
            continue
        if result.replay is not None:
            account.runs[result.replay].deliver(result, result.replay)
        else:
            account.delivered[result.unit_id] = result.queue_partition, result.queue_offset


def _read_queue(scanner: Scanner, topic: str, accounts: dict[str, _Account], queue: str, codec: Codec) -> None:
    decode, acceptance = codec.decoder(Event), Acceptance(CelLanguage())
    spans = scanner.spans(topic)
    here = {one: account for one, account in accounts.items() if account.queue == queue}
    wanted: dict[int, Span] = {}
    for account in here.values():
        for partition, activation in account.activations.items():
            held = spans.get(partition, Span(0, 0))
            # Retention may have removed the oldest records; units of what is gone are outside of the window too.
            window = Span(max(activation.start, held.start), min(activation.through, held.end))
            account.windows[partition] = window
            account.lag += max(0, held.end - activation.through)
            known = wanted.get(partition, window)
            wanted[partition] = Span(min(known.start, window.start), max(known.end, window.end))
    for message in scanner.read(topic, wanted):
        partition, offset = message.partition() or 0, message.offset() or 0
        reading = [(one, account) for one, account in here.items() if account.covers(partition, offset)]
        try:
            event = decode(message.value())
        except Poison:
            for _, account in reading:
                account.unreadable += 1
            continue
        for _, account in reading:
            version = account.versions[account.activations[partition].version_at(offset)]
            try:
                accepted = acceptance.decide(version, event)
            except Unfit:
                accepted = False
                account.unfit += 1
            for unit_id in unit_ids(version, event).values():
                account.accepted[unit_id] = account.accepted.get(unit_id, False) or accepted
