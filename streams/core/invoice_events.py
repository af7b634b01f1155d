"""The events of invoices that time raises, see :mod:`streams.core.invoice_due`."""

from __future__ import annotations

from collections.abc import Collection

from streams.core.catalogue import CATALOGUE
from streams.core.detectors import plain_state
from streams.core.event_rules import DELIVERED_PLUS
from streams.core.events import Finding, Value
from streams.core.ids import event_id
from streams.core.invoice_due import OVERDUE, Raise, Taken
from streams.core.rows import Kind

INVOICE_OVERDUE = "invoice.overdue"


def finding(due: Raise, rules: Collection[Taken]) -> Finding:
    """The event of a task that is due. Its id comes from the invoice and the due date, or the name of the rule, and not
    from the instant: moved by another zone, or by a rule that was changed, it is still the same event."""
    what, _, cause = due.task.partition(" ")
    type = INVOICE_OVERDUE if what == OVERDUE else DELIVERED_PLUS
    invoice = due.invoice
    return Finding(
        event_id=event_id(type, Kind.INVOICE, invoice.id, cause),
        type=type,
        occurred_at=due.at,
        subject_kind=Kind.INVOICE,
        subject_id=invoice.id,
        account_id=invoice.account_id,
        sequence=due.revision,
        current=plain_state(Kind.INVOICE, invoice),
        facts=_overdue(due) if what == OVERDUE else _delivered_plus(due, cause, rules),
        audience=CATALOGUE[type].audience,
    )


def _overdue(due: Raise) -> dict[str, Value]:
    invoice = due.invoice
    return {
        "due_date": invoice.due_date,
        "grace_days": invoice.grace_days,
        "overdue_at": due.at,
        "balance": invoice.balance,
    }


def _delivered_plus(due: Raise, name: str, rules: Collection[Taken]) -> dict[str, Value]:
    # The rule is gone when it was taken away after the instant, but before the clock came there.
    rule = next((taken.rule for taken in rules if taken.rule.name == name), None)
    return {
        "rule": name,
        "days": None if rule is None else rule.days,
        "at": None if rule is None else rule.at,
        "delivered_at": due.invoice.delivered_at,
        "due_at": due.at,
    }
