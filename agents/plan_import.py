"""Brings services with their plans into the billing store, and publishes each as its first revision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import msgspec

from streams.codec import Codec
from streams.core.errors import Misconfigured
from streams.core.objects import ServicePlan
from streams.kafka.outbox import Outbox
from streams.sinks.billing import BillingStore

SERVICE_PLANS = "billing.service-plan"


def read_plans(lines: Iterable[str], name: str) -> Iterator[ServicePlan]:
    """One plan per line of JSON; empty lines are left out. Raises Misconfigured naming line and field."""
    decode = msgspec.json.Decoder(ServicePlan).decode
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            plan = decode(line)
        except msgspec.MsgspecError as error:
            raise Misconfigured(f"{name}, line {number}: {error}") from error
        if plan.change_id is not None or not plan.memberships:
            what = "a plan that comes from outside has no change_id" if plan.memberships else "memberships is empty"
            raise Misconfigured(f"{name}, line {number}: service {plan.service_id}: {what}")
        yield plan


def import_plans(
    store: BillingStore, codec: Codec, kafka: dict[str, Any], plans: Iterable[ServicePlan], *, occurred_at: datetime
) -> int:
    """Returns how many services were brought in; those that are there already keep the plan that they have.

    May be repeated: the same first revisions are published again, and change nothing. Raises Misconfigured naming the
    plan that the store refuses, Transient when Kafka or the database cannot be reached.
    """
    store.migrate()
    changes = store.load_plans(plans, occurred_at=occurred_at)
    outbox = Outbox(kafka)
    try:
        for change in changes:
            outbox.emit(SERVICE_PLANS, change.subject.account_id, codec.encode(SERVICE_PLANS, change))
        outbox.flush(0)
    finally:
        outbox.close()
    return len(changes)
