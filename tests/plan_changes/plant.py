"""The three plan change apps without Kafka: real handlers, codec and stores; the test plays clock and billing store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from agents.plan_changes.execution import Execution
from agents.plan_changes.orders import Orders
from agents.plan_changes.scheduler import ELEMENT, PlanChanges
from streams.codec import Codec, LocalIds, LocalSchemas
from streams.codec.rows import encode_row
from streams.core.hooks import Hook, HookRegistry
from streams.core.objects import Account, Membership, OptionTerm, Service, ServicePlan
from streams.core.plan_change.matrix import MatrixElement
from streams.core.plan_change.messages import Acknowledgement, Reply, Request, Settlement
from streams.core.rows import Kind, ObjectRow, object_key
from streams.kafka.chunks import Headers
from tests.plan_changes.makers import LONG_AGO, an_element
from tests.support.batch import Lane, Outputs, values

T = TypeVar("T")


class Elements:
    """The catalogue as far as the scheduler needs it."""

    def __init__(self, elements: tuple[MatrixElement, ...]) -> None:
        self._elements = {element.key: element for element in elements}

    def get(self, kind: str, id: str) -> Any:
        """An element or None."""
        assert kind == ELEMENT
        return self._elements.get(id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What the agents are given."""

    codec: Codec
    catalogue: Elements
    hooks: HookRegistry


@dataclass
class Plant:
    """One partition of each app. Whatever one app emits is handed to the next by ``pump``."""

    hooks: tuple[Hook, ...] = ()
    elements: tuple[MatrixElement, ...] = (an_element(),)
    sent: Outputs = field(default_factory=list)

    def __post_init__(self) -> None:
        schemas = LocalSchemas()
        self.codec = Codec(LocalIds(schemas), schemas)
        self.ports = Ports(codec=self.codec, catalogue=Elements(self.elements), hooks=HookRegistry.of(self.hooks))
        self.orders, self.scheduler, self.executor = (
            Orders(self.ports),
            PlanChanges(self.ports),
            Execution(self.ports),
        )
        self.events = Lane("events")
        self.changes = Lane("plan-changes", open=self.scheduler.open)
        self.execution = Lane("execution")

    def knows(self, account: Account, service: Service, plan: ServicePlan) -> None:
        """Put the rows that the events app keeps of an account."""
        for kind, found in ((Kind.ACCOUNT, account), (Kind.SERVICE, service), (Kind.SERVICE_PLAN, plan)):
            row = ObjectRow(revision=1, current=found)
            self.events.store.write([(object_key(kind, found.id), encode_row(row))], None)

    def request(self, *requests: Request, headers: Headers = ()) -> Outputs:
        """Requests go to the account's partition, what comes of them to the service's."""
        topic = "plan-change.requests"
        records = [(request.account_id, self.codec.encode(topic, request)) for request in requests]
        chunk = self.events.chunk(topic, records, [headers] * len(records))
        validated = self.events.replay(self.orders.requests, chunk)
        return self._hand("plan-change.validated", self.changes, self.scheduler.requests, validated)

    def tick(self, now: datetime) -> Outputs:
        """Move the scheduler's clock."""
        self.changes.now = now
        return self._keep(self.changes.run(self.scheduler.ticks, "clock.ticks", [(None, b"")]))

    def execute(self, outputs: Outputs) -> Outputs:
        """Commands among ``outputs`` go to the executor, its results to the scheduler."""
        results = self._hand("plan-change.commands", self.execution, self.executor.commands, outputs)
        return self._hand("plan-change.outcomes", self.changes, self.scheduler.outcomes, results)

    def acknowledge(self, *acknowledgements: Acknowledgement) -> Outputs:
        """What the billing store has committed."""
        topic = "plan-change.acknowledgements"
        records = [(ack.service_id, self.codec.encode(topic, ack)) for ack in acknowledgements]
        return self._keep(self.changes.run(self.scheduler.acknowledgements, topic, records))

    def read(self, outputs: Outputs, topic: str, cls: type[T]) -> list[T]:
        """The values that went to ``topic``."""
        decode: Callable[[bytes | None], T] = self.codec.decoder(cls)
        return values(outputs, topic, decode)

    def replies(self, outputs: Outputs) -> list[Reply]:
        """Answers among ``outputs``."""
        return self.read(outputs, "plan-change.replies", Reply)

    def settlements(self, outputs: Outputs) -> list[Settlement]:
        """Settlements among ``outputs``."""
        return self.read(outputs, "plan-change.settlements", Settlement)

    def _hand(self, topic: str, lane: Lane, handler: Any, outputs: Outputs) -> Outputs:
        found = [output for output in outputs if output.topic == topic]
        if not found:
            return []
        records = [(output.key if isinstance(output.key, str) else None, output.value) for output in found]
        chunk = lane.chunk(topic, records, [output.headers or () for output in found])
        return self._keep(lane.replay(handler, chunk))

    def _keep(self, outputs: Outputs) -> Outputs:
        self.sent += outputs
        return outputs


def an_account(**changed: Any) -> Account:
    """Account A1 in Berlin."""
    fields: dict[str, Any] = {
        "id": "A1",
        "status": "Active",
        "zone": "Europe/Berlin",
        "currency": "EUR",
        "locale": "de_DE",
        "name": "Ada",
        "email": "ada@example.com",
        "billing_day": 15,
    }
    return Account(**{**fields, **changed})


def a_service(**changed: Any) -> Service:
    """Service S1 of A1."""
    return Service(**{"id": "S1", "account_id": "A1", "name": "line", "state": "Active", **changed})


def a_plan(**changed: Any) -> ServicePlan:
    """Plan basic since long ago, with the option sms."""
    fields: dict[str, Any] = {
        "service_id": "S1",
        "account_id": "A1",
        "rate_plan_id": "basic",
        "product_id": "P1",
        "memberships": (Membership(rate_plan_id="basic", valid_from=LONG_AGO, valid_to=None),),
        "options": (OptionTerm(option_id="sms", valid_from=LONG_AGO, valid_to=None),),
    }
    return ServicePlan(**{**fields, **changed})
