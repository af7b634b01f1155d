"""SIMs, buckets, contracts and usage for tests: a test names only what it is about. Days count from 2026-03-01 UTC."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from streams.core.event_rules import DORMANT, EventRule
from streams.core.events import Finding
from streams.core.objects import Op
from streams.core.timers import TimerIndex
from streams.core.usage.desk import Desk
from streams.core.usage.dormancy import Rules
from streams.core.usage.meter_desk import Setup
from streams.core.usage.objects import (
    About,
    Bucket,
    BucketChange,
    CommitTier,
    Contract,
    ContractChange,
    Meter,
    PeriodRule,
    Sim,
    SimChange,
    Usage,
    UsageContext,
    UsageShare,
)
from streams.core.usage.rows import meter_key, meter_reader
from streams.kafka.store import MemoryStore, Overlay

DAY_0 = datetime(2026, 3, 1, tzinfo=UTC)
RETENTION = timedelta(days=62)
MARCH = PeriodRule(zone="UTC", starts_on=date(2026, 3, 1), months=1)


def on(day: float) -> datetime:
    """So many days after the beginning."""
    return DAY_0 + timedelta(days=day)


def a_sim(**fields: Any) -> Sim:
    return Sim(**{"id": "8955-1", "account_id": "A1", "service_id": "S1", "activated_at": on(0), **fields})


def a_bucket(**fields: Any) -> Bucket:
    own = {"id": "B1", "account_id": "A1", "service_id": "S1", "name": "Data", "unit": "MB", "period": MARCH}
    return Bucket(**{**own, "tiers": (Decimal(100), Decimal(50)), **fields})


def a_contract(*commits: float, **fields: Any) -> Contract:
    tiers = tuple(CommitTier(commit=Decimal(str(commit))) for commit in commits)
    own = {"id": "K1", "account_id": "A1", "name": "Fleet", "period": MARCH, "measure": "usage", "unit": "MB"}
    return Contract(**{**own, "tiers": tiers, **fields})


def some_usage(day: float, quantity: float | str = 1, **fields: Any) -> Usage:
    own: dict[str, Any] = {"id": f"u-{day}-{quantity}", "account_id": "A1", "service_id": "S1", "unit": "MB"}
    return Usage(**{**own, "quantity": Decimal(str(quantity)), "event_time": on(day), **fields})


def a_state(revision: int, day: float, state: str | None, before: str | None = None, **fields: Any) -> UsageContext:
    own = {"service_id": "S1", "account_id": "A1", "about": About.STATE, "since": on(day)}
    return UsageContext(**{**own, "revision": revision, "state": state, "previous_state": before, **fields})


def a_product(revision: int, product_id: str | None) -> UsageContext:
    return UsageContext(
        service_id="S1", account_id="A1", about=About.PRODUCT, revision=revision, since=on(0), product_id=product_id
    )


_CHANGES: dict[type[Any], type[Any]] = {Sim: SimChange, Bucket: BucketChange, Contract: ContractChange}


def a_rule(days: int, product_id: str | None = None, **fields: Any) -> EventRule:
    """A rule for dormancy."""
    return EventRule(**{"name": f"r-{product_id}", "type": DORMANT, "days": days, "product_id": product_id, **fields})


def changed(current: Any, revision: int = 1, day: float = 0, previous: Any = None) -> Any:
    """A change to ``current``; the first one creates it."""
    op = Op.CREATED if revision == 1 else Op.UPDATED
    return _CHANGES[type(current)](
        op=op, previous=None if revision == 1 else previous or current, current=current, revision=revision,
        occurred_at=on(day), source="test",
    )  # fmt: skip


def removed(previous: Any, revision: int, day: float = 0) -> Any:
    return _CHANGES[type(previous)](
        op=Op.DELETED, previous=previous, revision=revision, occurred_at=on(day), source="test"
    )


class Partition:
    """The usage worker's decisions in one partition, which takes all its topics; every call is one chunk."""

    def __init__(self, *rules: EventRule) -> None:
        self.store = MemoryStore()
        self.index = TimerIndex()
        self.setup = Setup(rules=Rules(rules), retention=RETENTION)
        self.now: datetime | None = None
        self.told: list[Any] = []
        self.writes: list[bytes] = []
        self._offset = 0

    def take(self, *values: Any) -> list[Any]:
        """Findings that these values cause; shares go round at once."""
        found: list[Any] = []
        waiting = list(values)
        while waiting:
            value = waiting.pop(0)
            if isinstance(value, datetime):
                found += self.tick(value)
                continue
            self._offset += 1
            rows = self.overlay()
            desk = Desk(rows, self.index, self.setup, self.now)
            effects = list(self._dispatch(desk, value))
            self.apply(rows)
            found += [effect for effect in effects if isinstance(effect, Finding)]
            waiting[:0] = [effect for effect in effects if isinstance(effect, UsageShare)]
        self.told += found
        return found

    def _dispatch(self, desk: Desk, value: Any) -> Any:
        match value:
            case Usage():
                return desk.usage(value, self._offset)
            case UsageShare():
                return desk.share(value, self._offset)
            case SimChange():
                return desk.sim(value, value.subject.service_id)
            case BucketChange():
                return desk.bucket(value, value.subject.service_id or value.subject.id)
            case ContractChange():
                return desk.contract(value)
            case _:
                return desk.context(value)

    def tick(self, now: datetime) -> list[Any]:
        """Time passes."""
        self.now = now
        rows = self.overlay()
        desk = Desk(rows, self.index, self.setup, now)
        found: list[Finding] = []
        while desk.is_due:
            found += desk.fire()
        self.apply(rows)
        return found

    def overlay(self) -> Overlay:
        return Overlay(self.store)

    def apply(self, rows: Overlay) -> None:
        self.writes += list(rows.writes)
        self.store.write(rows.writes.items(), None)

    def row(self, meter: Meter, id: str) -> Any:
        raw = self.store.get(meter_key(meter, id).encode())
        return None if raw is None else meter_reader(meter)(raw)

    @property
    def ids(self) -> set[str]:
        return {finding.event_id for finding in self.told}


def types(findings: list[Any]) -> list[str]:
    return [finding.type for finding in findings]
