"""SIMs, buckets, contracts and usage as they travel, and what the usage worker and the events worker tell each other.

Quantities and amounts are exact decimals; local dates belong to the zone that is given beside them; ends are exclusive.
A value that contradicts itself raises ValueError when it is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

from streams.core.midnight import zone
from streams.core.objects import Change

#: Dates outside of these years are slips; arithmetic with them would leave the calendar and stop a worker.
YEARS = range(1970, 2201)
#: Ten years; a longer period is a slip.
MAX_MONTHS = 120
#: More tiers than any price list has. The rows hold what was raised for each.
MAX_TIERS = 100
#: A year: rows of usage are kept for as long as late usage is taken, so an endless grace would be endless rows.
MAX_GRACE_HOURS = 366 * 24


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodRule:
    """Periods by local dates in ``zone`` (of the account): every ``months`` from ``starts_on`` until ``ends_on``.

    Without ``months`` there is one period, [starts_on, ends_on). A day that a month does not have is its last day, so
    ``starts_on`` 2026-01-31 with months = 1 gives Feb 28, Mar 31, …
    """

    zone: str
    starts_on: date
    ends_on: date | None = None
    months: int | None = None

    def __post_init__(self) -> None:
        zone(self.zone)  # raises UnknownZoneError, a ValueError, with the remedy
        if self.starts_on.year not in YEARS or (self.ends_on is not None and self.ends_on.year not in YEARS):
            raise ValueError(f"a period from {self.starts_on} to {self.ends_on}: years are {YEARS[0]} to {YEARS[-1]}")
        if self.ends_on is not None and self.ends_on <= self.starts_on:
            raise ValueError(f"ends_on {self.ends_on} is not after starts_on {self.starts_on}; it is exclusive")
        if self.months is None and self.ends_on is None:
            raise ValueError("a period rule needs months (every so many months), ends_on (one period), or both")
        if self.months is not None and not 1 <= self.months <= MAX_MONTHS:
            raise ValueError(f"months is {self.months}; it must be 1 to {MAX_MONTHS}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sim:
    """A SIM; ``id`` is its ICCID. Its days without usage are counted from ``activated_at`` on, and not before."""

    id: str
    account_id: str
    service_id: str
    activated_at: datetime | None = None
    imsi: str | None = None
    msisdn: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """What may be used per period before ``tiers`` are used up, one after the other, in ``unit``.

    ``service_id`` None: pooled over the services of the account. ``carried_over`` from an earlier period is used first;
    it counts in the period that starts on the local date ``carried_into``, which only a bucket of one period may omit.
    """

    id: str
    account_id: str
    service_id: str | None = None
    name: str
    unit: str
    period: PeriodRule
    tiers: tuple[Decimal, ...]
    carried_over: Decimal | None = None
    carried_into: date | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.tiers) <= MAX_TIERS or any(tier <= 0 for tier in self.tiers):
            raise ValueError(f"bucket {self.id} needs 1 to {MAX_TIERS} tiers, each with an amount above zero")
        if self.carried_over is not None and self.carried_over < 0:
            raise ValueError(f"carried_over of bucket {self.id} is {self.carried_over}; it must not be negative")
        if self.carried_over and self.carried_into is None and self.period.months is not None:
            raise ValueError(f"bucket {self.id} carries over: carried_into must say into which period")

    @property
    def pooled(self) -> bool:
        """Whether it belongs to the account and not to one service."""
        return self.service_id is None


class Measure(StrEnum):
    """What a contract commits to."""

    USAGE = "usage"
    AMOUNT = "amount"
    COUNT = "count"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitTier:
    """One commitment of a contract; a tier that is not enabled is not judged."""

    commit: Decimal
    enabled: bool = True
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """Commits an account to so much per period: of usage in ``unit``, of money in ``currency``, or of records.

    A period is judged ``grace_hours`` after its end, so that late usage still counts.
    """

    id: str
    account_id: str
    name: str
    period: PeriodRule
    measure: str
    unit: str | None = None
    currency: str | None = None
    tiers: tuple[CommitTier, ...]
    grace_hours: int = 0

    def __post_init__(self) -> None:
        if self.measure not in tuple(Measure):
            raise ValueError(f"contract {self.id} measures {self.measure!r}; it can be {', '.join(Measure)}")
        if self.measure == Measure.USAGE and self.unit is None:
            raise ValueError(f"contract {self.id} measures usage: say in which unit")
        if self.measure == Measure.AMOUNT and self.currency is None:
            raise ValueError(f"contract {self.id} measures amounts: say in which currency")
        if len(self.tiers) > MAX_TIERS:
            raise ValueError(f"contract {self.id} has {len(self.tiers)} tiers; at most {MAX_TIERS}")
        if not 0 <= self.grace_hours <= MAX_GRACE_HOURS:
            raise ValueError(f"grace_hours of contract {self.id} is {self.grace_hours}; 0 to {MAX_GRACE_HOURS}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One rated usage record, or with a negative ``quantity`` the correction of one. Its ``id`` comes once.

    It belongs to the service; it may name its SIM (otherwise it counts for every SIM of the service), the bucket that
    it is taken from (``pooled``: one of the account), and the contract that it counts for. ``records`` is how many it
    stands for in a contract by count; None: 1, and −1 for a correction.
    """

    id: str
    account_id: str
    service_id: str
    sim_id: str | None = None
    bucket_id: str | None = None
    pooled: bool = False
    contract_id: str | None = None
    quantity: Decimal
    unit: str
    records: int | None = None
    amount: Decimal | None = None
    currency: str | None = None
    event_time: datetime

    def __post_init__(self) -> None:
        if self.event_time.year not in YEARS:
            raise ValueError(f"event_time of usage {self.id} is {self.event_time}: years are {YEARS[0]} to {YEARS[-1]}")
        if (self.amount is None) != (self.currency is None):
            raise ValueError(f"usage {self.id}: an amount needs a currency, and a currency an amount")
        if self.pooled and self.bucket_id is None:
            raise ValueError(f"usage {self.id} is pooled: bucket_id must say in which bucket")

    @property
    def count(self) -> int:
        """What it adds to a count of records."""
        if self.records is not None:
            return self.records
        return -1 if self.quantity < 0 else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SimChange(Change[Sim]):
    """A change of a SIM. One that moves it to another service is sent under both services' keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketChange(Change[Bucket]):
    """A change of a bucket. One that makes it pooled, or the bucket of another service, is sent under both keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractChange(Change[Contract]):
    """A change of a contract."""


class Meter(StrEnum):
    """What counts usage; each is also the prefix of its rows."""

    BUCKET = "bucket"
    POOL = "pool"
    CONTRACT = "contract"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageShare:
    """A usage record on its way from its service's partition to the one of the pool or contract that it counts for."""

    meter: Meter
    meter_id: str
    usage: Usage


class About(StrEnum):
    """Which part of a service a :class:`UsageContext` tells."""

    STATE = "state"
    PRODUCT = "product"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageContext:
    """What dormancy depends on, told by the events worker: the state of a service, or the product that it is rated by.

    ``revision`` is the service's, or its plan's. ``state`` is None for a deleted service, ``previous_state`` for a new
    one; ``since`` is when it became so.
    """

    service_id: str
    account_id: str
    about: About
    revision: int
    since: datetime
    state: str | None = None
    previous_state: str | None = None
    product_id: str | None = None
