"""What the events bench sends: services of a fleet that are suspended and go on, and the rows that they need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from streams.codec.rows import encode_row
from streams.core.objects import Account, Membership, Op, Product, RatePlan, Service, ServiceChange, ServicePlan
from streams.core.routing import Route
from streams.core.rows import ObjectRow, object_key

SOURCE, QUEUE = "billing.service", "customer-events"
#: As many as `bench stream` has rows.
SERVICES, ACCOUNTS = 10_000, 1_000
_FOUNDED = datetime(2018, 3, 1, tzinfo=UTC)

PRODUCT = Product(id="fibre", name="Fibre")
RATE_PLAN = RatePlan(id="basic", product_id="fibre", name="Basic 50")
ROUTE = Route(name="bench", event_types=("service.state_transitioned",), queues=(QUEUE,))


def account_id(service: int) -> str:
    """The account of the ``service``-th service."""
    return f"a{service % ACCOUNTS}"


def _service(number: int, state: str) -> Service:
    return Service(id=f"s{number}", account_id=account_id(number), name=f"line {number}", state=state, package_id="p")


def change(number: int, occurred_at: datetime) -> ServiceChange:
    """The ``number``-th change: every service in turn, suspended and active again."""
    service, turn = number % SERVICES, number // SERVICES
    states = ("Active", "Suspended") if turn % 2 == 0 else ("Suspended", "Active")
    before = _service(service, states[0])
    return ServiceChange(
        op=Op.UPDATED, previous=before, current=replace(before, state=states[1]), revision=turn + 2,
        occurred_at=occurred_at, source="bench",
    )  # fmt: skip


def rows(sent: int) -> Iterator[tuple[str, bytes, bytes]]:
    """(account, key, value) of all rows after so many changes."""
    for number in range(ACCOUNTS):
        account = Account(
            id=f"a{number}", status="Active", zone="Europe/Berlin", currency="EUR", locale="de-DE",
            name=f"customer {number}", email="customer@example.com", billing_day=1,
        )  # fmt: skip
        yield account.id, object_key("account", account.id), encode_row(ObjectRow(revision=1, current=account))
    for number in range(SERVICES):
        owner = account_id(number)
        turns = (sent - number + SERVICES - 1) // SERVICES
        service = _service(number, "Active" if turns % 2 == 0 else "Suspended")
        yield owner, object_key("service", service.id), encode_row(ObjectRow(revision=turns + 1, current=service))
        plan = ServicePlan(
            service_id=service.id, account_id=owner, rate_plan_id="basic", product_id="fibre",
            memberships=(Membership(rate_plan_id="basic", valid_from=_FOUNDED),),
        )  # fmt: skip
        yield owner, object_key("service_plan", service.id), encode_row(ObjectRow(revision=1, current=plan))
