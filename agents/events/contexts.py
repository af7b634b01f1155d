"""Tells the scheduler what pending plan changes depend on: an account's zone, and which accounts and services ended.

Changes of a service are in the partition of the service, so what is true of an account goes to every partition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streams.codec import Codec
from streams.core.objects import Account, AccountStatus, Service, ServiceState
from streams.core.plan_change.messages import Context
from streams.core.rows import Kind, ObjectRow
from streams.kafka.chunks import Batch
from streams.topics import PLAN_CONTEXTS


class Contexts:
    """Emits a context where an object change makes one; most do not."""

    def __init__(self, codec: Codec, partitions: int) -> None:
        self._encode: Callable[[Context], bytes] = codec.encoder(PLAN_CONTEXTS, Context)
        self._partitions = partitions

    def tell(self, batch: Batch, kind: Kind, before: ObjectRow[Any] | None, change: Any) -> None:
        """``before``: the row until now; None for an object that is new here, one without state if it was deleted."""
        context = context_of(kind, before, change)
        if context is None:
            return
        value = self._encode(context)
        if context.service_id is not None:
            batch.emit(PLAN_CONTEXTS, key=context.service_id, value=value)
            return
        for partition in range(self._partitions):
            batch.emit(PLAN_CONTEXTS, key=context.account_id, value=value, partition=partition)


def context_of(kind: Kind, before: ObjectRow[Any] | None, change: Any) -> Context | None:
    """The context that this object change makes, if any. An object that is new here cannot have pending changes; one
    that was deleted and comes back can."""
    if before is None or kind not in (Kind.ACCOUNT, Kind.SERVICE):
        return None
    was: Any = before.current
    after, subject = change.current, change.subject
    cancelled = _is_cancelled(after)
    other_end = cancelled != _is_cancelled(was)
    if kind is Kind.SERVICE:
        if not other_end:
            return None
        return Context(
            account_id=subject.account_id,
            service_id=subject.id,
            revision=change.revision,
            zone=None,
            cancelled=cancelled,
        )
    # Of one that was deleted and comes back cancelled nothing is news: its zone will be, with the end of that.
    if not other_end and (was is None or after is None or after.zone == was.zone):
        return None
    return Context(
        account_id=subject.id,
        service_id=None,
        revision=change.revision,
        zone=was.zone if after is None else after.zone,
        cancelled=cancelled,
    )


def _is_cancelled(state: Account | Service | None) -> bool:
    if isinstance(state, Account):
        return state.status == AccountStatus.CANCELLED
    return state is None or state.state == ServiceState.CANCELLED
