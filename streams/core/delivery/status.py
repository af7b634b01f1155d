"""How a subscription fares now, for people: derived from the rows of the delivery and the dispatch worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from streams.core.delivery.endpoint import OPEN_AFTER, Health, begin, success_rate
from streams.core.delivery.units import Disabled, State, Unit
from streams.core.subscriptions import Subscription

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Standing(StrEnum):
    """Inactive: it gets nothing. Paused, disabled: its events wait for a person. Failing: they are tried again."""

    ACTIVE = "active"
    FAILING = "failing"
    DISABLED = "disabled"
    PAUSED = "paused"
    INACTIVE = "inactive"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStatus:
    """``breaker`` is closed, open, or half_open when the next request finds out whether the receiver is back.
    ``last_failure_*`` are of this version of the subscription."""

    breaker: str
    open_until: datetime | None
    failures_in_a_row: int
    failing_since: datetime | None
    disabled_at: datetime | None
    disabled_because: str | None
    last_success_at: datetime | None
    last_failure_at: datetime | None
    last_failure_reason: str | None
    last_failure_detail: str | None
    last_failure_status: int | None
    delivered_percent_last_day: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """``waiting`` units were not tried yet, ``retrying`` ones have failed, ``in_flight`` ones are with the dispatcher;
    ``replays`` is how many of all these are replays. ``endpoint`` is None where nobody has been called yet."""

    state: Standing
    reason: str | None
    waiting: int
    retrying: int
    in_flight: int
    replays: int
    parked_keys: int
    oldest_accepted_at: datetime | None
    next_retry_at: datetime | None
    failing_units: dict[str, int] = field(default_factory=dict)
    endpoint: EndpointStatus | None


def status(
    subscription: Subscription,
    *,
    open_units: Iterable[Unit],
    parked_keys: int,
    gone: Disabled | None,
    health: Health | None,
    now_ms: int,
) -> Status:
    """``gone`` is the row of a receiver that has answered 410, ``health`` the one of its endpoint."""
    found = list(open_units)
    retrying = [unit for unit in found if unit.state is State.PENDING and unit.attempts > 0]
    reasons = Counter(unit.last_reason for unit in found if unit.last_reason is not None)
    asked_for_no_more = gone is not None and gone.version >= subscription.version
    endpoint = None
    if health is not None or asked_for_no_more:
        endpoint = _endpoint(begin(health, subscription), now_ms)
    if gone is not None and asked_for_no_more and endpoint is not None and endpoint.disabled_at is None:
        endpoint = replace(
            endpoint, disabled_at=_at(gone.at_ms), disabled_because="the receiver asked for no more (410)"
        )
    standing, reason = _standing(subscription, endpoint, reasons)
    return Status(
        state=standing,
        reason=reason,
        waiting=sum(unit.state is State.PENDING and unit.attempts == 0 for unit in found),
        retrying=len(retrying),
        in_flight=sum(unit.state is State.IN_FLIGHT for unit in found),
        replays=sum(unit.replay is not None for unit in found),
        parked_keys=parked_keys,
        oldest_accepted_at=_at(min((unit.accepted_ms for unit in found), default=None)),
        next_retry_at=_at(min((unit.due_ms for unit in retrying), default=None)),
        failing_units=dict(reasons.most_common()),
        endpoint=endpoint,
    )


def _standing(
    subscription: Subscription, endpoint: EndpointStatus | None, reasons: Counter[str]
) -> tuple[Standing, str | None]:
    name = subscription.name
    if not subscription.active:
        return Standing.INACTIVE, "active is false: it accepts nothing"
    if subscription.paused:
        return Standing.PAUSED, f"by a person: `curfew subscriptions resume {name}`"
    if endpoint is not None and endpoint.disabled_at is not None:
        why = endpoint.disabled_because or "nothing but failures"
        return Standing.DISABLED, f"{why}; correct it, then `curfew subscriptions resume {name}`"
    if endpoint is not None and endpoint.failures_in_a_row > 0:
        return Standing.FAILING, _because(endpoint.last_failure_reason, endpoint.last_failure_detail)
    if reasons:
        return Standing.FAILING, ", ".join(reason for reason, _ in reasons.most_common(3))
    return Standing.ACTIVE, None


def _because(reason: str | None, detail: str | None) -> str | None:
    return f"{reason}: {detail}" if reason and detail else reason


def _endpoint(health: Health, now_ms: int) -> EndpointStatus:
    rate = success_rate(health, now_ms)
    breaker = "closed" if not health.open else "open" if health.open_until_ms > now_ms else "half_open"
    because = _because(health.last_reason, health.last_detail)
    if because is not None and health.failures >= OPEN_AFTER:
        because = f"{health.failures} failures in a row, the last: {because}"
    return EndpointStatus(
        breaker=breaker,
        open_until=_at(health.open_until_ms) if breaker == "open" else None,
        failures_in_a_row=health.failures,
        failing_since=_at(health.failing_since_ms),
        disabled_at=_at(health.disabled_ms),
        disabled_because=None if health.disabled_ms is None else because,
        last_success_at=_at(health.last_success_ms),
        last_failure_at=_at(health.last_failure_ms),
        last_failure_reason=health.last_reason,
        last_failure_detail=health.last_detail,
        last_failure_status=health.last_status,
        delivered_percent_last_day=None if rate is None else round(rate * 100),
    )


def _at(ms: int | None) -> datetime | None:
    return None if ms is None else _EPOCH + timedelta(milliseconds=ms)
