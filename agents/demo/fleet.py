"""A company's accounts, services and plans: invented, realistic in shape, and the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property

from agents.demo.catalogue import CURRENCY, HELD, PRODUCT_OF
from streams.core.midnight import first_instant
from streams.core.objects import (
    Account,
    AccountStatus,
    Membership,
    OptionTerm,
    Package,
    PackageState,
    Service,
    ServicePlan,
    ServiceState,
)

#: The effective date of all changes. That night São Paulo has no midnight (clocks go from 23:59 to 01:00) and Havana
#: has two (from 00:59 back to 00:00).
NIGHT = date(2018, 11, 4)
#: When the fleet came to be, long before the night.
FOUNDED = datetime(2018, 3, 1, 6, tzinfo=UTC)

#: Zone → (share of the accounts, locale). From the first midnight of the night to the last.
ZONES: dict[str, tuple[int, str]] = {
    "Pacific/Auckland": (6, "en-NZ"),
    "Australia/Lord_Howe": (2, "en-AU"),
    "Australia/Sydney": (6, "en-AU"),
    "Asia/Tokyo": (9, "ja-JP"),
    "Asia/Kathmandu": (3, "ne-NP"),
    "Asia/Kolkata": (12, "en-IN"),
    "Africa/Johannesburg": (7, "en-ZA"),
    "Europe/Berlin": (13, "de-DE"),
    "UTC": (4, "en"),
    "America/Sao_Paulo": (11, "pt-BR"),
    "America/New_York": (11, "en-US"),
    "America/Havana": (4, "es-CU"),
    "America/Los_Angeles": (9, "en-US"),
    "Pacific/Honolulu": (3, "en-US"),
}
#: The account with thousands of services is where midnight is missing.
BIG_ZONE = "America/Sao_Paulo"
#: Its services, as a share of all accounts: 3,000 of 5,000.
BIG_SHARE = 0.6
#: Every tenth account has its bill day on the effective date.
BILL_DAYS = (NIGHT.day, 1, 1, 5, 10, 15, 15, 20, 28, 31)

_FIRST = ("Ana", "Bruno", "Chidi", "Dolores", "Emma", "Farid", "Grace", "Hiroshi", "Ines", "Kavita", "Mateus", "Noor")
_LAST = ("Adeyemi", "Baker", "Costa", "Diaz", "Fischer", "Gurung", "Haddad", "Ito", "Kumar", "Lima", "Moana", "Patel")
#: Starting plans and how often they occur.
_STARTS = {
    "mobile-s": 30,
    "mobile-m": 25,
    "mobile-l": 12,
    "family-m": 6,
    "fibre-100": 15,
    "fibre-500": 8,
    "fibre-1000": 4,
}


@dataclass(frozen=True)
class Fleet:
    """All objects as they are in the afternoon before the night."""

    accounts: tuple[Account, ...]
    packages: tuple[Package, ...]
    services: tuple[Service, ...]
    plans: tuple[ServicePlan, ...]

    @cached_property
    def account(self) -> dict[str, Account]:
        return {account.id: account for account in self.accounts}

    @cached_property
    def plan(self) -> dict[str, ServicePlan]:
        return {plan.service_id: plan for plan in self.plans}

    @cached_property
    def deadlines(self) -> dict[str, datetime]:
        """Zone → the first instant of the effective date there (UTC), in order of time."""
        zones = {account.zone for account in self.accounts}
        return dict(sorted(((zone, first_instant(zone, NIGHT)) for zone in zones), key=lambda item: item[1]))

    @property
    def big(self) -> Account:
        """The account with thousands of services."""
        return self.accounts[0]

    def deadline(self, account_id: str) -> datetime:
        return self.deadlines[self.account[account_id].zone]


def generate(accounts: int, seed: int) -> Fleet:
    """Make a fleet of so many accounts; one of them has 0.6 services per account, the others have one or two."""
    rng = random.Random(seed)
    made: list[Account] = []
    packages: list[Package] = []
    services: list[Service] = []
    plans: list[ServicePlan] = []
    for account in _accounts(accounts, rng):
        made.append(account)
        big = len(made) == 1
        starts = ["iot-100kb", "iot-1mb", "iot-10mb"] if big else list(_STARTS)
        weights = [5, 4, 1] if big else list(_STARTS.values())
        bought: dict[str, Package] = {}
        count = max(20, round(accounts * BIG_SHARE)) if big else rng.choice((1, 1, 2))
        for number, plan in enumerate(rng.choices(starts, weights, k=count), 1):
            package = bought.setdefault(PRODUCT_OF[plan], _package(account.id, PRODUCT_OF[plan]))
            service = Service(
                id=f"{account.id}-S{number:04}",
                account_id=account.id,
                name=f"SIM 8955{rng.randrange(10**9):09}" if big else f"{plan.split('-')[0]} line {number}",
                state=ServiceState.PREACTIVE if not big and rng.random() < 0.1 else ServiceState.ACTIVE,
                package_id=package.id,
            )
            services.append(service)
            plans.append(_plan(service, plan))
        packages += bought.values()
    return Fleet(tuple(made), tuple(packages), tuple(services), tuple(plans))


def _accounts(count: int, rng: random.Random) -> Iterator[Account]:
    zones = [BIG_ZONE, *ZONES]  # so that even a small fleet is in all of them
    zones += rng.choices(list(ZONES), [share for share, _ in ZONES.values()], k=max(0, count - len(zones)))
    for number, zone in enumerate(zones[:count]):
        name = "Metrô IoT Sensores S.A." if number == 0 else f"{rng.choice(_FIRST)} {rng.choice(_LAST)}"
        id = f"A{number:05}"
        yield Account(
            id=id,
            status=AccountStatus.ACTIVE,
            zone=zone,
            currency=CURRENCY,
            locale=ZONES[zone][1],
            name=name,
            email=f"{id.lower()}@example.com",
            billing_day=rng.choice(BILL_DAYS),
        )


def _package(account_id: str, product_id: str) -> Package:
    return Package(
        id=f"{account_id}-{product_id}",
        account_id=account_id,
        product_id=product_id,
        name=f"{product_id} package",
        state=PackageState.ACTIVE,
    )


def _plan(service: Service, rate_plan_id: str) -> ServicePlan:
    return ServicePlan(
        service_id=service.id,
        account_id=service.account_id,
        rate_plan_id=rate_plan_id,
        product_id=PRODUCT_OF[rate_plan_id],
        memberships=(Membership(rate_plan_id=rate_plan_id, valid_from=FOUNDED),),
        options=tuple(OptionTerm(option_id=option, valid_from=FOUNDED) for option in HELD.get(rate_plan_id, ())),
    )
