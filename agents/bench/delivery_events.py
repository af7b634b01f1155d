"""What the delivery bench sends, and to whom."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from streams.core import ids
from streams.core.events import Event
from streams.core.subscriptions import Ordering, Subscription, Webhook, succeed

SECRET: Final = "CURFEW_SECRET_BENCH"
SECRET_REF: Final = f"env:{SECRET}"
SECRET_VALUE: Final = "whsec_" + base64.b64encode(bytes(range(32))).decode()
#: The one endpoint of the comparison, and the queue of which it gets everything.
MAIN, QUEUE = "bench", "customer-events"
#: The queue of which a hundred endpoints get everything.
FAN_OUT: Final = "billing-events"
ACCOUNTS: Final = 1_000
#: Retries of an endpoint that did not answer are not the bench's: it lets go of it before they are due.
SCHEDULE_S: Final = (0, *[5] * 19)


def subscription(name: str, queue: str, url: str, concurrency: int, *, in_order: bool = True) -> Subscription:
    """Everything of ``queue``, in the order of each account unless told otherwise."""
    return succeed(
        None,
        Subscription(
            name=name, id="", version=0, created_at=datetime(2026, 1, 1, tzinfo=UTC), queue=queue,
            ordering=Ordering.IN_ORDER if in_order else Ordering.UNORDERED, max_concurrency=concurrency,
            schedule_s=SCHEDULE_S, webhook=Webhook(url=url, secret_ref=SECRET_REF),
        ),
    )  # fmt: skip


def make(first: int, count: int, now: datetime) -> Iterator[Event]:
    """State transitions of services, account after account, each with nine parameters; half a kilobyte as a body."""
    at = now.replace(microsecond=now.microsecond // 1000 * 1000)
    for number in range(first, first + count):
        account = f"a{number % ACCOUNTS}"
        yield Event(
            event_id=ids.event_id("service.state_transitioned", "service", f"s-{account}", number),
            type="service.state_transitioned",
            occurred_at=at,
            subject_kind="service",
            subject_id=f"s-{account}",
            account_id=account,
            sequence=number,
            facts={"from": "Active", "to": "Suspended"},
            previous={"state": "Active"},
            current={"state": "Suspended"},
            parameters={
                "account.currency": "EUR", "account.email": "customer@example.com", "account.locale": "de-DE",
                "account.name": f"customer {number % ACCOUNTS}", "account.status": "Active",
                "package.name": "Basic", "product.name": "Fibre", "rate_plan.name": "Basic 50",
                "service.name": f"line {number % ACCOUNTS}",
            },
        )  # fmt: skip
