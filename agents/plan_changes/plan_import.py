"""Brings services with their plans into the billing store, and publishes each as its first revision."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import fields
from datetime import datetime
from typing import Any

import msgspec

from streams.codec import Codec
from streams.core.errors import Misconfigured
from streams.core.objects import Membership, OptionTerm, ServicePlan
from streams.kafka.outbox import Outbox
from streams.sinks.billing import BillingStore
from streams.topics import SERVICE_PLANS

_PARTS: dict[str, type[Any]] = {"memberships": Membership, "options": OptionTerm}
_NAMES: dict[type[Any], str] = {ServicePlan: "service plan", Membership: "membership", OptionTerm: "plan option"}


def read_plans(lines: Iterable[str], name: str) -> Iterator[ServicePlan]:
    """One plan per line of JSON; empty lines are left out. Raises Misconfigured naming line and field.

    A field that is none is refused: misspelt, it would silently leave a plan without its options.
    """
    decode = msgspec.json.Decoder(ServicePlan).decode
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            plan = decode(line)
        except msgspec.MsgspecError as error:
            raise Misconfigured(f"{name}, line {number}: {error}") from error
        problem = next(_unknown_fields(ServicePlan, msgspec.json.decode(line), ""), None)
        if problem is not None:
            raise Misconfigured(f"{name}, line {number}: service {plan.service_id}: {problem}")
        if plan.change_id is not None or not plan.memberships:
            what = "a plan that comes from outside has no change_id" if plan.memberships else "memberships is empty"
            raise Misconfigured(f"{name}, line {number}: service {plan.service_id}: {what}")
        yield plan


def _unknown_fields(cls: type[Any], found: dict[str, Any], path: str) -> Iterator[str]:
    known = [field.name for field in fields(cls)]
    for field, value in found.items():
        if field not in known:
            near = difflib.get_close_matches(field, known, n=1)
            meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            yield f"{path}{field} is no field of a {_NAMES[cls]}; {meant}"
        elif field in _PARTS:
            for index, one in enumerate(value):
                yield from _unknown_fields(_PARTS[field], one, f"{path}{field}[{index}].")


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
