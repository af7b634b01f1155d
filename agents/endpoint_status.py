"""How the endpoint of a subscription fares, for people: what the dispatch worker has written down of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from agents.config_records import read_rows
from streams.core.delivery.endpoint import Health, success_rate
from streams.core.delivery.made import decode_health, endpoint_key
from streams.core.ids import instant_text
from streams.core.subscriptions import Subscription
from streams.settings import Settings

ROWS: Final = "dispatch-store-changelog"


def endpoint_status(settings: Settings, subscription: Subscription) -> dict[str, Any] | None:
    """As JSON; None when nothing was attempted yet. Raises Transient, or Misconfigured without the topic."""
    for _, row in read_rows(settings, ROWS, endpoint_key(subscription.id)):
        return described(decode_health(row), subscription, datetime.now(UTC))
    return None


def described(health: Health, subscription: Subscription, now: datetime) -> dict[str, Any]:
    """``state`` is well, failing, paused by the breaker, or disabled; the rest says since when and why."""
    now_ms = int(now.timestamp() * 1000)
    current = health.version >= subscription.version  # a newer version begins anew, whatever the former one met
    if current and health.disabled_ms is not None:
        state = "disabled"
    elif current and health.open:
        state = "breaker open"
    elif current and health.failures:
        state = "failing"
    else:
        state = "well"
    return {
        "state": state,
        "failures_in_a_row": health.failures if current else 0,
        "failing_since": _instant(health.failing_since_ms) if current else None,
        "next_try_after": _instant(health.open_until_ms) if state == "breaker open" else None,
        "disabled_at": _instant(health.disabled_ms) if current else None,
        "last_success": _instant(health.last_success_ms),
        "last_failure": _instant(health.last_failure_ms),
        "last_reason": health.last_reason,
        "last_detail": health.last_detail,
        "last_status": health.last_status,
        "success_rate_of_a_day": success_rate(health, now_ms),
    }


def _instant(ms: int | None) -> str | None:
    return None if ms is None else instant_text(datetime.fromtimestamp(ms / 1000, UTC))
