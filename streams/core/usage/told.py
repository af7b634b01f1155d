"""What meters tell: findings about buckets and contracts, one per tier and period, whatever makes it so."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from streams.core.catalogue import CATALOGUE
from streams.core.events import Finding, Value
from streams.core.graph import plain
from streams.core.ids import event_id, instant_text
from streams.core.rows import Kind
from streams.core.usage.metering import Crossed, MeterRow
from streams.core.usage.objects import Bucket, Contract

THRESHOLD, UNDER_COMMIT, COMMIT_MET = "usage.threshold_exceeded", "contract.under_commit", "contract.commit_met"


def exceeded(row: MeterRow[Bucket], one: Crossed, now: datetime | None) -> Finding:
    """A tier of a bucket is used up."""
    facts: dict[str, Value] = {
        "tier": one.tier,
        "tiers": one.tiers,
        "tier_amount": one.amount,
        "threshold": one.limit,
        "used": one.measured,
        "usage_id": one.usage_id,
        **_period(one, now is not None and now >= one.period.end),
    }
    return _finding(THRESHOLD, Kind.BUCKET, row, row.versions[-1].terms, one, facts)


def commitment(type: str, row: MeterRow[Contract], contract: Contract, one: Crossed, late: bool) -> Finding:
    """A commit tier was not met at the close of a period, or was met after that."""
    tier = contract.tiers[one.tier - 1]
    facts: dict[str, Value] = {
        "tier": one.tier,
        "tier_name": tier.name,
        "commit": one.limit,
        "measured": one.measured,
        "shortfall": max(one.limit - one.measured, Decimal(0)),
        **_period(one, late),
    }
    return _finding(type, Kind.CONTRACT, row, contract, one, facts)


def _period(one: Crossed, late: bool) -> dict[str, Value]:
    period = one.period
    return {
        "period_start": period.start,
        "period_end": period.end,
        "period_starts_on": period.starts_on,
        "period_ends_on": period.ends_on,
        "late": late,
    }


def _finding(
    type: str, kind: Kind, row: MeterRow[Any], subject: Bucket | Contract, one: Crossed, facts: dict[str, Value]
) -> Finding:
    return Finding(
        event_id=event_id(type, kind, row.id, f"{instant_text(one.period.start)} {one.tier}"),
        type=type,
        occurred_at=one.at,
        subject_kind=kind,
        subject_id=row.id,
        account_id=subject.account_id,
        sequence=row.revision,
        current=plain(kind, subject),
        facts=facts,
        audience=CATALOGUE[type].audience,
    )
