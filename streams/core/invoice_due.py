"""What of an invoice is due, and when: overdue after its terms, and the rules that count from its first delivery.

Pure. A **task** is a name: ``overdue 2018-11-30`` (one per due date) or ``plus <rule>`` (one per rule); each is raised
at most once for an invoice. The row of an invoice (:class:`InvoiceWork`, the payload of its timer) says which instants
are pending and what was raised.

Decisions depend on business time, not on the order in which topics are read: a change that occurred at or after a
pending instant came too late to prevent it, so the task is **pinned** to the state before, and raised when the clock
comes there. A change that occurred before the instant, and arrives before the clock has passed it, moves or ends it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import msgspec

from streams.core.event_rules import EventRule
from streams.core.midnight import UnknownZoneError, first_instant, local_date, local_instant
from streams.core.objects import Invoice, InvoiceState

OVERDUE = "overdue"
PLUS = "plus"

# No id of a billing system contains it (see streams/core/ids.py), so A1 is no prefix of A12.
_SEPARATOR = "\x1f"
_TIMERS = "invoice"

#: Before they are issued, and after they are withdrawn, invoices are nobody's debt.
_NO_DEBT = frozenset({InvoiceState.DRAFT, InvoiceState.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A rule as a partition has taken it over, at its business time ``since``: only later instants are raised, or a new
    rule would raise an event for every invoice of the past."""

    rule: EventRule
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """The invoice as it was when the instant of a task came, with the revision that it had."""

    revision: int
    invoice: Invoice


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceWork:
    """What one invoice waits for, and what it has raised.

    ``pending`` maps tasks to their instants. ``waits``: the account's zone is not known, so no instant is. ``revision``
    is the last change that was taken in: a repeated one must not be taken for one that comes too late.
    """

    revision: int = 0
    pending: dict[str, datetime] = field(default_factory=dict)
    pinned: dict[str, Pinned] = field(default_factory=dict)
    raised: tuple[str, ...] = ()
    waits: bool = False

    @property
    def next_at(self) -> datetime | None:
        """When the next task is due."""
        return min(self.pending.values(), default=None)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to remember."""
        return not (self.pending or self.raised or self.waits)


def timer_key(account_id: str, invoice_id: str = "") -> str:
    """Key of an invoice's timer; without an invoice the beginning of the keys of all invoices of the account."""
    return f"{_TIMERS}{_SEPARATOR}{account_id}{_SEPARATOR}{invoice_id}"


def ids_of(key: str) -> tuple[str, str]:
    """(account id, invoice id) of a timer's key."""
    _, account_id, invoice_id = key.split(_SEPARATOR)
    return account_id, invoice_id


pack = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.Decoder(InvoiceWork).decode


def first_delivery(before: Invoice | None, invoice: Invoice) -> Invoice:
    """``invoice`` with its first delivery: what was known of it stays, whatever is said of it later."""
    if before is None or before.delivered_at is None or before.delivered_at == invoice.delivered_at:
        return invoice
    return replace(invoice, delivered_at=before.delivered_at)


def instants(invoice: Invoice, zone: str, rules: Collection[Taken]) -> dict[str, datetime]:
    """Task → instant, of everything that this invoice will raise if it stays as it is; those of the past too.

    Raises UnknownZoneError. Instants that no calendar has are left out.
    """
    return dict(_instants(invoice, zone, rules))


def _instants(invoice: Invoice, zone: str, rules: Collection[Taken]) -> Iterator[tuple[str, datetime]]:
    if invoice.state == InvoiceState.CANCELLED:
        return
    unpaid = invoice.balance > 0
    if unpaid and invoice.state not in _NO_DEBT:
        try:
            breached = first_instant(zone, invoice.due_date + timedelta(days=invoice.grace_days + 1))
        except OverflowError:
            pass
        else:
            yield f"{OVERDUE} {invoice.due_date.isoformat()}", breached
    if invoice.delivered_at is None:
        return
    for taken in rules:
        rule = taken.rule
        if unpaid or not rule.only_while_unpaid:
            try:
                day = local_date(zone, invoice.delivered_at) + timedelta(days=rule.days)
                at = local_instant(zone, day, rule.local_time)
            except OverflowError:
                continue
            if at > taken.since:
                yield f"{PLUS} {rule.name}", at


def derive(work: InvoiceWork, invoice: Invoice | None, zone: str | None, rules: Collection[Taken]) -> InvoiceWork:
    """``work`` with the instants that follow from the invoice, the account's zone and the rules as they are now.

    What is pinned stays, what was raised does not come again. ``zone`` is None while the account is not known; an
    unknown zone is the same: the invoice waits until its account has one.
    """
    pending = {task: work.pending[task] for task in work.pinned}
    waits = False
    if invoice is not None:
        try:
            found = {} if zone is None else instants(invoice, zone, rules)
        except UnknownZoneError:
            zone, found = None, {}
        waits = zone is None and _has_work(invoice)
        for task, at in found.items():
            if task not in pending and task not in work.raised:
                pending[task] = at
    return replace(work, pending=pending, waits=waits)


def _has_work(invoice: Invoice) -> bool:
    return invoice.state != InvoiceState.CANCELLED and (invoice.balance > 0 or invoice.delivered_at is not None)


def pin(work: InvoiceWork, before: Invoice | None, revision: int, occurred_at: datetime) -> InvoiceWork:
    """``work`` before a change that occurred at ``occurred_at``: tasks whose instant had come then keep the state
    ``before`` it (of ``revision``)."""
    if before is None or all(at > occurred_at for at in work.pending.values()):
        return work
    came = {
        task: Pinned(revision=revision, invoice=before)
        for task, at in work.pending.items()
        if at <= occurred_at and task not in work.pinned
    }
    return replace(work, pinned={**work.pinned, **came})


@dataclass(frozen=True, slots=True, kw_only=True)
class Raise:
    """A task that is due: raise its event at ``at``, about ``invoice`` as it was then."""

    task: str
    at: datetime
    revision: int
    invoice: Invoice


def due(
    work: InvoiceWork,
    invoice: Invoice | None,
    revision: int,
    zone: str | None,
    rules: Collection[Taken],
    now: datetime,
) -> tuple[list[Raise], InvoiceWork]:
    """What is to be raised at ``now``, earliest first, and what the invoice waits for after it.

    Instants are derived again first, so a rule that has changed since is followed even if nothing else has looked at
    this invoice yet.
    """
    derived = derive(work, invoice, zone, rules)
    raises = []
    for task, at in sorted(derived.pending.items(), key=lambda item: (item[1], item[0])):
        if at > now:
            continue
        pinned = derived.pinned.get(task)
        if pinned is not None:
            raises.append(Raise(task=task, at=at, revision=pinned.revision, invoice=pinned.invoice))
        elif invoice is not None:
            raises.append(Raise(task=task, at=at, revision=revision, invoice=invoice))
    gone: Mapping[str, object] = {one.task: None for one in raises}
    after = replace(
        derived,
        pending={task: at for task, at in derived.pending.items() if task not in gone},
        pinned={task: state for task, state in derived.pinned.items() if task not in gone},
        raised=(*derived.raised, *gone),
    )
    return raises, after
