"""What operators hear of their own installation, as findings: routed, subscribed to and delivered like all events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from streams.core import ids
from streams.core.delivery.endpoint import Notice, success_rate
from streams.core.events import Audience, Finding
from streams.core.rows import Kind

FAILING: Final = "subscription.failing"
DISABLED: Final = "subscription.disabled"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def failing(notice: Notice) -> Finding:
    """``subscription.failing``: nothing but failures for a part of the time after which the endpoint is disabled."""
    return _finding(FAILING, notice)


def disabled(notice: Notice) -> Finding:
    """``subscription.disabled``: no more attempts until a person has corrected it."""
    return _finding(DISABLED, notice)


def _finding(type_: str, notice: Notice) -> Finding:
    health = notice.health
    episode = f"{health.version}/{health.failing_since_ms}/{notice.percent}"
    rate = success_rate(health, notice.at_ms)
    return Finding(
        event_id=ids.event_id(type_, Kind.SUBSCRIPTION, health.subscription_id, episode),
        type=type_,
        occurred_at=_instant(notice.at_ms),
        subject_kind=Kind.SUBSCRIPTION,
        subject_id=health.subscription_id,
        sequence=health.version,
        facts={
            "name": health.subscription,
            "version": health.version,
            "percent": notice.percent,
            "failures": health.failures,
            "failing_since": _instant(health.failing_since_ms or notice.at_ms),
            "reason": health.last_reason,
            "status": health.last_status,
            "success_percent": None if rate is None else round(rate * 100),
        },
        audience=Audience.INTERNAL,
    )


def _instant(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)
