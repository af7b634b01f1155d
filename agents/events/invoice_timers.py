"""Raises what time makes of invoices: overdue, and x days after delivery; follows rules that change meanwhile.

The decisions are in :mod:`streams.core.invoice_due`, the timers in :mod:`streams.core.timers`. Here are the rows: the
timer of each invoice that waits, and the rules as this partition has taken them over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from agents.timers import SLICE, SLICES_PER_BATCH, DueWork
from streams.codec import Codec
from streams.codec.rows import encode_row, row_decoder
from streams.core.event_rules import DELIVERED_PLUS, EventRule
from streams.core.events import Finding
from streams.core.invoice_due import InvoiceWork, Taken, derive, due, ids_of, pack, pin, timer_key, unpack
from streams.core.invoice_events import finding
from streams.core.midnight import TZ_VERSION
from streams.core.objects import Account, Invoice
from streams.core.rows import CountRow, Kind, ObjectRow, count_key, object_key
from streams.core.timers import Timer, Timers
from streams.kafka.chunks import Batch

#: The kind under which the catalogue keeps the rules.
RULE = "event_rule"
RULES_KEY = b"event-rules"
COUNTS_KEY = count_key("timers")

_INVOICES = object_key(Kind.INVOICE, "")
_RULES = "event rules"
_SLICE = "due slice"


class Catalogue(Protocol):
    """Topics that every worker reads whole."""

    def all(self, kind: str) -> Mapping[str, Any]: ...

    def version(self, kind: str) -> int: ...


class Desk(Protocol):
    """What a chunk knows of objects, and how it raises events."""

    def row(self, kind: Kind, id: str) -> ObjectRow[Any] | None: ...

    def raise_due(self, finding: Finding) -> list[str]:
        """Enrich, route and emit; returns what to count, nothing when the event was put aside."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesRow:
    """The rules as this partition has taken them over. ``cursor``: the rows of invoices from this key on have still to
    be looked at, because rules or time zone data (``tz_version``) have changed; None when all have been."""

    rules: tuple[Taken, ...] = ()
    tz_version: str = TZ_VERSION
    cursor: str | None = None


@dataclass(slots=True)
class _Held:
    """In memory of a partition: its rules, and the version of the catalogue that they come from."""

    row: RulesRow
    version: int | None = None


@dataclass(slots=True)
class _Slice:
    """What a slice of due timers raises; the counts have to become durable in front of the timers."""

    desk: Desk
    raised: list[tuple[str, str]] = field(default_factory=list)  # (event id, what to count)
    works: list[tuple[str, InvoiceWork]] = field(default_factory=list)


class InvoiceTimers:
    """The due work of the events app. ``desk`` makes a fresh desk for a batch."""

    def __init__(self, codec: Codec, catalogue: Catalogue, desk: Callable[[Batch], Desk], *, virtual: bool) -> None:
        self._catalogue = catalogue
        self._desk = desk
        self._virtual = virtual
        self._due = DueWork(codec, self._fire, virtual=virtual, close=self._close)
        self._decode_rules = row_decoder(RulesRow)
        self._decode_counts = row_decoder(CountRow)

    def open(self, batch: Batch) -> None:
        """Build the index of due work, and read the rules, from the rows."""
        self._due.open(batch)
        raw = batch.rows.get(RULES_KEY)
        batch.memory[_RULES] = _Held(RulesRow(tz_version="") if raw is None else self._decode_rules(raw))

    def run(self, batch: Batch) -> Iterator[None]:
        """All that is due; then rules that have changed; then the report to the clock."""
        yield from self._due.fire(batch)
        yield from self._follow_rules(batch)
        self._due.report(batch)

    def follow(
        self, batch: Batch, desk: Desk, kind: Kind, before: ObjectRow[Any] | None, row: ObjectRow[Any], change: Any
    ) -> None:
        """Set the timers that follow from a change of an account or invoice; ``row`` is the object's row after it."""
        if kind is Kind.INVOICE:
            self._follow_invoice(batch, desk, before, row, change)
        elif kind is Kind.ACCOUNT:
            zone = None if before is None or before.current is None else before.current.zone
            if before is None or zone != _zone(row):
                self._follow_account(batch, desk, row, change)

    def _follow_invoice(
        self, batch: Batch, desk: Desk, before: ObjectRow[Invoice] | None, row: ObjectRow[Invoice], change: Any
    ) -> None:
        account_id, timers = change.subject.account_id, self._due.timers(batch)
        key = timer_key(account_id, change.subject.id)
        timer = timers.get(key)
        work = InvoiceWork() if timer is None else unpack(timer.payload)
        if change.revision <= work.revision:
            return  # decided before a crash, which only the row of the invoice has not survived
        if before is not None:
            work = pin(work, before.current, before.revision, change.occurred_at)
        work = replace(work, revision=change.revision)
        zone = _zone(desk.row(Kind.ACCOUNT, account_id))
        _keep(timers, key, derive(work, row.current, zone, self._rules(batch)), known=timer is not None)

    def _follow_account(self, batch: Batch, desk: Desk, row: ObjectRow[Account], change: Any) -> None:
        """The account is new, gone, or in another zone: all its invoices that wait for something are moved."""
        timers, rules = self._due.timers(batch), self._rules(batch)
        for timer in list(timers.scan(timer_key(change.subject.id))):
            work = unpack(timer.payload)
            invoice = desk.row(Kind.INVOICE, ids_of(timer.key)[1])
            state, revision = (None, 0) if invoice is None else (invoice.current, invoice.revision)
            after = derive(pin(work, state, revision, change.occurred_at), state, _zone(row), rules)
            if after != work:
                _keep(timers, timer.key, after, known=True)

    # -- what is due ------------------------------------------------------------------------------------------------

    def _fire(self, batch: Batch, timers: Timers, timer: Timer) -> None:
        assert batch.now is not None  # nothing is due without time
        slice_: _Slice | None = batch.memory.get(_SLICE)
        if slice_ is None:
            slice_ = batch.memory[_SLICE] = _Slice(self._desk(batch))
        account_id, invoice_id = ids_of(timer.key)
        row = slice_.desk.row(Kind.INVOICE, invoice_id)
        state, revision = (None, 0) if row is None else (row.current, row.revision)
        zone, rules = _zone(slice_.desk.row(Kind.ACCOUNT, account_id)), self._rules(batch)
        raises, work = due(unpack(timer.payload), state, revision, zone, rules, batch.now)
        for one in raises:
            found = finding(one, rules)
            slice_.raised.extend((found.event_id, name) for name in slice_.desk.raise_due(found))
        slice_.works.append((timer.key, work))

    def _close(self, batch: Batch, timers: Timers) -> None:
        """Put the counts, then the timers: after a crash between them the timers come again, uncounted."""
        slice_: _Slice | None = batch.memory.pop(_SLICE, None)
        if slice_ is None:
            return
        if slice_.raised:
            raw = batch.rows.get(COUNTS_KEY)
            known = CountRow(next_offset=0, counts={}) if raw is None else self._decode_counts(raw)
            counts = Counter(known.counts)
            counted = frozenset(known.last)
            counts.update(name for id, name in slice_.raised if id not in counted)
            last = tuple(id for id, _ in slice_.raised)
            batch.rows.put(COUNTS_KEY, encode_row(CountRow(next_offset=0, counts=dict(counts), last=last)))
        for key, work in slice_.works:
            _keep(timers, key, work, known=False)

    # -- rules that change ------------------------------------------------------------------------------------------

    def _rules(self, batch: Batch) -> tuple[Taken, ...]:
        held: _Held = batch.memory[_RULES]
        return held.row.rules

    def _follow_rules(self, batch: Batch) -> Iterator[None]:
        """Take over rules that have changed, and look at the invoices again, as many as one batch may.

        Only when nothing is due any more: instants up to now belong to the old rules.
        """
        if not self._due.is_ready(batch) or self._due.is_due(batch):
            return
        held: _Held = batch.memory[_RULES]
        self._take_over(batch, held)
        slices = 0
        while held.row.cursor is not None and (self._virtual or slices < SLICES_PER_BATCH):
            if slices:
                yield
            slices += 1
            self._look_again(batch, held)

    def _take_over(self, batch: Batch, held: _Held) -> None:
        version = self._catalogue.version(RULE)
        if version == held.version:
            return
        assert batch.now is not None  # is_ready
        held.version = version
        known = {taken.rule: taken for taken in held.row.rules}
        all_rules: list[EventRule] = list(self._catalogue.all(RULE).values())
        active = [rule for rule in all_rules if rule.active and rule.type == DELIVERED_PLUS]
        rules = tuple(
            known.get(rule) or Taken(rule=rule, since=batch.now) for rule in sorted(active, key=lambda rule: rule.name)
        )
        if rules != held.row.rules or held.row.tz_version != TZ_VERSION:
            held.row = RulesRow(rules=rules, cursor="")
            batch.rows.put(RULES_KEY, encode_row(held.row))

    def _look_again(self, batch: Batch, held: _Held) -> None:
        """One slice of the invoices; when it is durable, so is how far it went."""
        desk, timers, cursor = self._desk(batch), self._due.timers(batch), None
        assert held.row.cursor is not None
        rows = batch.rows.scan(_INVOICES, held.row.cursor.encode())
        for number, (row_key, _) in enumerate(rows, 1):
            id = row_key[len(_INVOICES) :].decode()
            row = desk.row(Kind.INVOICE, id)
            if row is not None and row.current is not None:
                key = timer_key(row.current.account_id, id)
                timer = timers.get(key)
                work = InvoiceWork(revision=row.revision) if timer is None else unpack(timer.payload)
                zone = _zone(desk.row(Kind.ACCOUNT, row.current.account_id))
                after = derive(work, row.current, zone, held.row.rules)
                if after != work:
                    _keep(timers, key, after, known=timer is not None)
            if number == SLICE:
                cursor = f"{row_key.decode()}\0"
                break
        held.row = replace(held.row, cursor=cursor)
        batch.rows.put(RULES_KEY, encode_row(held.row))


def _keep(timers: Timers, key: str, work: InvoiceWork, *, known: bool) -> None:
    """Put what an invoice waits for, or forget it; ``known``: it may have a row."""
    if not work.is_empty:
        timers.set(key, work.next_at, pack(work))
    elif known:
        timers.cancel(key)


def _zone(row: ObjectRow[Account] | None) -> str | None:
    return None if row is None or row.current is None else row.current.zone
