"""Tells the usage worker what it depends on: states of services, the products that they are rated by, and contracts.

The events worker has them, by account; SIMs are decided about by service, contracts are counted by contract.
"""

from __future__ import annotations

from typing import Any

from streams.codec import Codec
from streams.core.objects import Service, ServicePlan
from streams.core.rows import Kind
from streams.core.usage.objects import About, ContractChange, UsageContext
from streams.kafka.chunks import Batch
from streams.topics import CONTRACTS, USAGE_CONTEXTS


class UsageContexts:
    """Emits a context where an object change makes one."""

    def __init__(self, codec: Codec) -> None:
        self._context = codec.encoder(USAGE_CONTEXTS, UsageContext)
        self._contract = codec.encoder(CONTRACTS, ContractChange)

    def tell(self, batch: Batch, kind: Kind, before: Any, change: Any) -> None:
        """``before``: the state that was known until now; None for an object that is new here."""
        if kind is Kind.CONTRACT:
            batch.emit(CONTRACTS, key=change.subject.id, value=self._contract(change))
            return
        context = context_of(kind, before, change)
        if context is not None:
            batch.emit(USAGE_CONTEXTS, key=context.service_id, value=self._context(context))


def context_of(kind: Kind, before: Any, change: Any) -> UsageContext | None:
    """The context that this object change makes, if any: every first one, and then what is news."""
    if kind is Kind.SERVICE:
        return _state(before, change)
    return _product(before, change) if kind is Kind.SERVICE_PLAN else None


def _state(before: Service | None, change: Any) -> UsageContext | None:
    after: Service | None = change.current
    if before is not None and after is not None and after.state == before.state:
        return None
    known: Service | None = change.previous or before
    return UsageContext(
        service_id=change.subject.id,
        account_id=change.subject.account_id,
        about=About.STATE,
        revision=change.revision,
        since=change.occurred_at,
        state=None if after is None else after.state,
        previous_state=None if known is None else known.state,
    )


def _product(before: ServicePlan | None, change: Any) -> UsageContext | None:
    after: ServicePlan | None = change.current
    if before is not None and after is not None and after.product_id == before.product_id:
        return None
    return UsageContext(
        service_id=change.subject.id,
        account_id=change.subject.account_id,
        about=About.PRODUCT,
        revision=change.revision,
        since=change.occurred_at,
        product_id=None if after is None else after.product_id,
    )
