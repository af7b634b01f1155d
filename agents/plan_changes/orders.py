"""Annotates plan change requests with what the account's rows say, and passes them on to the service's partition.

Runs in the events app: account, service and plan of an account are in the rows of its partition. What is found is a
statement and no decision: the service's partition alone decides, remembers and replies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from agents.events.limits import check_size
from streams.codec import Codec
from streams.codec.rows import object_row_decoder
from streams.core.errors import Poison
from streams.core.objects import Account, Service, ServicePlan
from streams.core.plan_change.eligibility import Known, annotated
from streams.core.plan_change.messages import Request, ValidatedRequest
from streams.core.rows import Kind, ObjectRow, object_key
from streams.kafka.chunks import Batch, Record
from streams.kafka.runtime import Runtime
from streams.topics import REQUESTS, VALIDATED

T = TypeVar("T")


class Ports(Protocol):
    """What this agent needs of the outside."""

    @property
    def codec(self) -> Codec: ...


def attach(runtime: Runtime, ports: Ports) -> None:
    """Register the validator of plan change requests with the events app's ``runtime``."""
    runtime.agent("orders", topics=[REQUESTS], handler=Orders(ports).requests)


class Orders:
    """The handler; it only reads rows."""

    def __init__(self, ports: Ports) -> None:
        self._decode = ports.codec.decoder(Request)
        self._encode = ports.codec.encoder(VALIDATED, ValidatedRequest)
        self._account = object_row_decoder(Account)
        self._service = object_row_decoder(Service)
        self._plan = object_row_decoder(ServicePlan)

    def requests(self, batch: Batch) -> None:
        """Annotate every request of the chunk; one that cannot be read becomes a dead letter."""
        for record in batch.records:
            try:
                check_size(record)
                request = self._decode(record.value)
                _check_key(record, request)
                value = self._encode(annotated(request, self._known(batch, request)))
                batch.emit(VALIDATED, key=request.service_id, value=value, cause=record)
            except Poison as error:
                batch.dead_letter(record, error)

    def _known(self, batch: Batch, request: Request) -> Known:
        return Known(
            account=_row(batch, self._account, Kind.ACCOUNT, request.account_id),
            service=_row(batch, self._service, Kind.SERVICE, request.service_id),
            plan=_row(batch, self._plan, Kind.SERVICE_PLAN, request.service_id),
        )


def _row(batch: Batch, decode: Callable[[bytes], ObjectRow[T]], kind: Kind, id: str) -> ObjectRow[T] | None:
    raw = batch.rows.get(object_key(kind, id))
    return None if raw is None else decode(raw)


def _check_key(record: Record, request: Request) -> None:
    if record.key != request.account_id.encode():
        raise Poison("wrong_key", f"the key is {record.key!r}, it must be the account {request.account_id!r}")
