"""The billing store: the database of record for rate plan memberships, options, products, and who met the deadline.

``port`` says what it promises, ``SqlBillingStore`` keeps it on SQLite and PostgreSQL. A chunk of sealed outcomes is one
transaction; the decision between persisted and missed is one unique key; nothing is acknowledged before COMMIT.
"""

from streams.sinks.billing.port import (
    BillingStore,
    Counts,
    Fence,
    Fenced,
    Finished,
    Released,
    Settled,
    Split,
    StoredOutcome,
)
from streams.sinks.billing.store import SqlBillingStore

__all__ = [
    "BillingStore",
    "Counts",
    "Fence",
    "Fenced",
    "Finished",
    "Released",
    "Settled",
    "Split",
    "SqlBillingStore",
    "StoredOutcome",
]
