"""The plan change orders of the night: most become effective, some are cancelled, superseded, repeated or refused."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from itertools import count
from typing import Any

from agents.demo.catalogue import ELEMENTS
from agents.demo.fleet import NIGHT, Fleet
from agents.demo.script import Fate, Sending
from streams.core import ids
from streams.core.errors import Misconfigured
from streams.core.objects import ServicePlan
from streams.core.plan_change.matrix import DateRule, MatrixElement
from streams.core.plan_change.messages import Request, RequestKind
from streams.topics import REQUESTS

#: Of a hundred changes: so many are for the account with thousands of services, so many are silent.
BIG_PERCENT, SILENT_PERCENT = 30, 10
#: One in so many is ordered and cancelled in time, superseded, sent twice, cancelled too late, refused.
CANCELLED, SUPERSEDED, REPEATED, TOO_LATE, REFUSED = 50, 100, 100, 100, 60
#: Orders come in the afternoon, in hours before midnight; with a lead of 8 hours some come after their start instant.
EARLIEST_H, LATEST_H = 11.0, 6.5

_BY_KEY = {element.key: element for element in ELEMENTS}


@dataclass(slots=True)
class Placed:
    """All requests of the night, and what has to become of them."""

    sendings: list[Sending] = field(default_factory=list)
    fates: dict[str, Fate] = field(default_factory=dict)
    refused_cancels: int = 0


def write(fleet: Fleet, changes: int, rng: random.Random) -> Placed:
    """Orders for ``changes`` services of the fleet and, in proportion, the ones that end otherwise."""
    desk = _Desk(fleet, rng)
    big, others = desk.orderable()
    from_big = min(len(big), changes * BIG_PERCENT // 100)
    extra = changes // CANCELLED + changes // SUPERSEDED + changes // REFUSED + 8
    if len(others) < changes - from_big + extra:
        raise Misconfigured(
            f"{changes} changes are too many for {len(fleet.accounts)} accounts with {len(fleet.services)} services; "
            "use fewer --changes or more --accounts"
        )
    chosen = big[:from_big] + others[: changes - from_big]
    rest = iter(others[changes - from_big :])
    for number, plan in enumerate(chosen):
        sent = desk.effective(plan)
        if number % REPEATED == 0:
            desk.again(sent)
        elif number % TOO_LATE == 1:
            desk.cancel_too_late(sent)
    for _ in range(max(2, changes // CANCELLED)):
        desk.cancelled(next(rest))
    for _ in range(max(2, changes // SUPERSEDED)):
        desk.superseded(next(rest))
    desk.refused(rest, max(7, changes // REFUSED), chosen)
    return desk.placed


class _Desk:
    """Writes requests; ids are numbered, so the same seed gives the same ids."""

    def __init__(self, fleet: Fleet, rng: random.Random) -> None:
        self.placed = Placed()
        self._fleet = fleet
        self._rng = rng
        self._numbers = count(1)
        self._elements: dict[str, list[MatrixElement]] = defaultdict(list)
        for element in ELEMENTS:
            if element.allow_without_cancel:
                self._elements[element.from_rate_plan_id].append(element)

    def orderable(self) -> tuple[list[ServicePlan], list[ServicePlan]]:
        """Services whose plan may change for the night: of the big account, and of all others; shuffled."""
        able = [plan for plan in self._fleet.plans if self._eligible(plan)]
        self._rng.shuffle(able)
        big = self._fleet.big.id
        return [one for one in able if one.account_id == big], [one for one in able if one.account_id != big]

    def effective(self, plan: ServicePlan) -> Sending:
        """An order in the afternoon."""
        hours = self._rng.uniform(LATEST_H, EARLIEST_H)
        return self._order(plan, self._pick(plan), self._before(plan, hours), Fate.EFFECTIVE)

    def again(self, sent: Sending) -> None:
        """The same request once more: it gets the same answer."""
        self.placed.sendings.append(replace(sent, at=sent.at + timedelta(minutes=40)))

    def cancel_too_late(self, sent: Sending) -> None:
        """One hour before midnight every change has started."""
        request = _request(sent)
        self._send(self._cancel(request, self._fleet.deadline(request.account_id) - timedelta(hours=1)))
        self.placed.refused_cancels += 1

    def cancelled(self, plan: ServicePlan) -> None:
        """Ordered, and cancelled before its start."""
        element = self._pick(plan)
        sent = self._order(plan, element, self._before(plan, element.lead_hours + 2.5), Fate.CANCELLED)
        self._send(self._cancel(_request(sent), self._before(plan, element.lead_hours + 1)))

    def superseded(self, plan: ServicePlan) -> None:
        """Ordered, and replaced by another order that names it, before its start."""
        element = self._pick(plan)
        self._order(plan, element, self._before(plan, element.lead_hours + 2.5), Fate.SUPERSEDED)
        later = self._before(plan, element.lead_hours + 1)
        self._order(plan, self._pick(plan), later, Fate.EFFECTIVE, expected_revision=1)

    def refused(self, plans: Iterator[ServicePlan], number: int, open_ones: list[ServicePlan]) -> None:
        """Orders that must be refused, each kind in turn."""
        for turn in range(number):
            plan, hours = next(plans), 9.0
            element = self._pick(plan)
            fields: dict[str, Any] = {}
            match turn % 7:
                case 0:
                    plan = replace(plan, service_id=f"{plan.account_id}-S9999")  # no such service
                case 1:
                    element = next(one for one in ELEMENTS if one.from_rate_plan_id != plan.rate_plan_id)
                case 2:
                    fields["channel"] = "carrier-pigeon"
                case 3:
                    fields["effective_date"] = date(2018, 10, 4)  # neither by the rule nor in the future
                case 4:
                    plan, hours = open_ones[turn], 6.1  # has an open change already
                    element = self._pick(plan)
                case 5:
                    fields["element_key"] = "no-such-element"
                case _:
                    # Its lead of 12 hours began at noon, and it may not be ordered when it cannot be cancelled.
                    mobile = (one for one in self._fleet.plans if one.rate_plan_id == "mobile-s")
                    plan, element = next(mobile), _BY_KEY["mobile-s-to-l"]
            self._order(plan, element, self._before(plan, hours), Fate.REJECTED, **fields)

    def _eligible(self, plan: ServicePlan) -> list[MatrixElement]:
        """Elements of the plan that lead to the night."""
        bill_day = self._fleet.account[plan.account_id].billing_day
        return [
            element
            for element in self._elements[plan.rate_plan_id]
            if element.date_rule is not DateRule.NEXT_BILL_DAY or bill_day == NIGHT.day
        ]

    def _pick(self, plan: ServicePlan) -> MatrixElement:
        return self._rng.choice(self._eligible(plan))

    def _before(self, plan: ServicePlan, hours: float) -> datetime:
        """So many hours before the midnight of the plan's account, in whole seconds."""
        return self._fleet.deadline(plan.account_id) - timedelta(seconds=round(hours * 3600))

    def _order(self, plan: ServicePlan, element: MatrixElement, at: datetime, fate: Fate, **fields: Any) -> Sending:
        silent = self._rng.random() * 100 < SILENT_PERCENT
        request = Request(
            **{
                "request_id": f"R{next(self._numbers):06}",
                "kind": RequestKind.ORDER,
                "account_id": plan.account_id,
                "service_id": plan.service_id,
                "element_key": element.key,
                "effective_date": NIGHT if element.date_rule is DateRule.DATE_GIVEN else None,
                "silent": silent,
                "apply_fees": self._rng.random() < 0.9,
                "options": ("music-stream",) if element.to_product_id == "mobile" and silent else (),
                "channel": self._rng.choice(element.channels),
                "expected_revision": None,
                "requested_at": at,
                **fields,
            }
        )
        self.placed.fates[ids.change_id(request.service_id, request.request_id)] = fate
        return self._send(request)

    def _cancel(self, request: Request, at: datetime) -> Request:
        return Request(
            request_id=f"R{next(self._numbers):06}",
            kind=RequestKind.CANCEL,
            account_id=request.account_id,
            service_id=request.service_id,
            element_key=None,
            effective_date=None,
            silent=request.silent,
            apply_fees=False,
            options=(),
            channel=request.channel,
            expected_revision=None,
            requested_at=at,
        )

    def _send(self, request: Request) -> Sending:
        sending = Sending(at=request.requested_at, topic=REQUESTS, key=request.account_id, value=request)
        self.placed.sendings.append(sending)
        return sending


def _request(sending: Sending) -> Request:
    assert isinstance(sending.value, Request)
    return sending.value
