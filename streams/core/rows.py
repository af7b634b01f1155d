"""How the events app lays out its store: one row per object, keyed by kind and id.

All agents of the app share the store of a partition, so the keys of everybody are here. A row is never removed: the row
of a deleted object keeps the revision that guards against replays.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")


class Kind(StrEnum):
    """The kinds of object that parameters and routes speak of; each is also the prefix of its rows."""

    ACCOUNT = "account"
    SERVICE = "service"
    PACKAGE = "package"
    INVOICE = "invoice"
    REFUND = "refund"
    CREDIT = "credit"
    PAYMENT = "payment"
    BILL_RUN = "bill_run"
    SERVICE_PLAN = "service_plan"
    SIM = "sim"
    BUCKET = "bucket"
    CONTRACT = "contract"
    #: Not an object of its own: the SIM of a service, by the service's id.
    SERVICE_SIM = "service_sim"
    # Below: not in the store of a partition, but read whole from the catalogue, or only a subject of events.
    PRODUCT = "product"
    RATE_PLAN = "rate_plan"
    RATE_PLAN_CHANGE = "rate_plan_change"
    SUBSCRIPTION = "subscription"


def object_key(kind: str, id: str) -> bytes:
    """Row key of an object: ``account/A1``. The plan of a service is ``service_plan/<service id>``."""
    return f"{kind}/{id}".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRow(Generic[T]):
    """What is known of an object: its last revision and its state then; ``current`` is None once it is deleted.

    ``gaps`` counts the revisions that were never seen: shown to people, not guessed over.
    """

    revision: int
    current: T | None = None
    gaps: int = 0


def follow(row: ObjectRow[T] | None, revision: int, current: T | None) -> ObjectRow[T] | None:
    """The row after a change with this revision and state; None for an older or repeated one, which changes nothing.

    Revisions that were skipped are added to ``gaps``; they count from 1, so a first change with revision 3 skips two.
    """
    seen, gaps = (0, 0) if row is None else (row.revision, row.gaps)
    if revision <= seen:
        return None
    return ObjectRow(revision=revision, current=current, gaps=gaps + revision - seen - 1)


def source_key(source: str, key: str) -> bytes:
    """Row key of a row of a data source that lies with its account: ``source/crm_segment/A1``."""
    return f"source/{source}/{key}".encode()


def count_key(topic: str) -> bytes:
    """Row key of what was counted for the records of one topic in this partition: ``count/billing.account``."""
    return f"count/{topic}".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class CountRow:
    """Counts that survive a crash exactly: only records from ``next_offset`` on may add to them.

    What timers raise has no offset; there ``last`` are the ids of the events that were counted last.
    """

    next_offset: int
    counts: dict[str, int]
    last: tuple[str, ...] = ()
