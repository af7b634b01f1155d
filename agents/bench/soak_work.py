"""What the world sends on each evening of the soak: plan changes for tomorrow, and services that change their state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime

from agents.demo.billing import SERVICES, SOURCE
from agents.demo.catalogue import ELEMENTS
from agents.demo.fleet import Fleet
from agents.demo.script import Sending
from streams.core.objects import Op, Service, ServiceChange, ServiceState
from streams.core.plan_change.matrix import DateRule, MatrixElement
from streams.core.plan_change.messages import Request, RequestKind
from streams.topics import REQUESTS

#: One in so many services changes its state each evening; it is never the one whose plan changes.
STATE_CHANGES = 8


class Work:
    """Evenings one after another; every service whose plan can change for ever does so every night."""

    def __init__(self, fleet: Fleet) -> None:
        self.ordered = 0
        self._plan = {plan.service_id: plan.rate_plan_id for plan in fleet.plans}
        self._flips = {one.id: (one, 1) for number, one in enumerate(fleet.services) if number % STATE_CHANGES == 0}
        self._changes = [
            one for one in fleet.services if one.id not in self._flips and one.state is ServiceState.ACTIVE
        ]
        self._elements: dict[str, MatrixElement] = {}
        for element in ELEMENTS:
            # Those that lead to any date, and on: nothing ends at fibre or family plans, which have no way back.
            ends = element.to_product_id == "mobile-family" or element.date_rule is DateRule.NEXT_BILL_DAY
            if element.allow_without_cancel and not ends:
                self._elements.setdefault(element.from_rate_plan_id, element)

    def evening(self, now: datetime, night: date) -> Iterator[Sending]:
        """Everything that is sent at ``now`` for the midnights of ``night``."""
        for service in self._changes:
            element = self._elements.get(self._plan[service.id])
            if element is not None:
                self._plan[service.id] = element.to_rate_plan_id
                yield self._order(service, element, now, night)
        for id, (service, revision) in self._flips.items():
            active = service.state is ServiceState.ACTIVE
            later = replace(service, state=ServiceState.SUSPENDED if active else ServiceState.ACTIVE)
            self._flips[id] = later, revision + 1
            change = ServiceChange(
                op=Op.UPDATED, previous=service, current=later, revision=revision + 1, occurred_at=now, source=SOURCE
            )
            yield Sending(at=now, topic=SERVICES, key=service.account_id, value=change)

    def _order(self, service: Service, element: MatrixElement, now: datetime, night: date) -> Sending:
        self.ordered += 1
        request = Request(
            request_id=f"R{self.ordered:08}",
            kind=RequestKind.ORDER,
            account_id=service.account_id,
            service_id=service.id,
            element_key=element.key,
            effective_date=night if element.date_rule is DateRule.DATE_GIVEN else None,
            silent=False,
            apply_fees=True,
            options=(),
            channel=element.channels[0],
            expected_revision=None,
            requested_at=now,
        )
        return Sending(at=now, topic=REQUESTS, key=service.account_id, value=request)
