"""How the endpoint of a subscription fares: the circuit breaker, and when it is disabled.

::

    closed ──10 failures in a row──▶ open ──after a pause──▶ half open: one probe ──success──▶ closed
                                       ▲                                  │
                                       └───────── longer pause ───────────┘ failure

Nothing but failures for ``disable_after_s`` disables it (410 does at once), until a newer version of the subscription.
One partition of the dispatch worker has all attempts of a subscription, so there is one :class:`Health` for each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from streams.core.delivery.messages import Verdict
from streams.core.subscriptions import Subscription

#: Fewer could be one receiver's restart, and a breaker that opens then delays what the next second would have taken.
OPEN_AFTER: Final = 10
#: A receiver that is down gets one probe per pause instead of all that waits. Doubled each time up to the longest,
#: which is how late a receiver that has come back hears of it.
PAUSE_MS, LONGEST_PAUSE_MS = 5_000, 300_000
#: Shares of ``disable_after_s`` at which operators are told; the last disables.
TOLD_AT: Final = (50, 70, 90, 100)
#: The success rate is that of the last day.
HOURS: Final = 24
HOUR_MS: Final = 3_600_000
GONE: Final = 410
#: Failures that are not the endpoint's.
NOT_ITS_FAULT: Final = frozenset({"interrupted", "no_subscription"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """Attempts of one hour; ``number`` counts hours since 1970."""

    number: int
    delivered: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The row ``endpoint/<subscription id>`` of the dispatch worker. ``failures`` are those in a row, the first of them
    at ``failing_since_ms``; ``told`` is the share that operators know of."""

    subscription_id: str
    subscription: str
    version: int
    failures: int = 0
    failing_since_ms: int | None = None
    openings: int = 0
    open_until_ms: int = 0
    told: int = 0
    disabled_ms: int | None = None
    last_success_ms: int | None = None
    last_failure_ms: int | None = None
    last_reason: str | None = None
    last_detail: str | None = None
    last_status: int | None = None
    hours: tuple[Hour, ...] = ()

    @property
    def open(self) -> bool:
        """Whether the breaker has opened and no probe has succeeded since."""
        return self.openings > 0

    @property
    def well(self) -> bool:
        """Whether a success would change nothing but its instant and the counts."""
        return not (self.failures or self.openings or self.told) and self.failing_since_ms is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Tell operators: ``percent`` of the time after which the endpoint is disabled has passed; 100 means that it is."""

    health: Health
    percent: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """How one attempt ended, as far as the endpoint is concerned."""

    verdict: Verdict
    reason: str | None
    detail: str | None
    status: int | None
    at_ms: int


def begin(known: Health | None, subscription: Subscription) -> Health:
    """The health that counts for this version: a newer one starts anew, with what the past hours were."""
    if known is not None and known.version >= subscription.version:
        return known
    return Health(
        subscription_id=subscription.id,
        subscription=subscription.name,
        version=subscription.version,
        last_success_ms=known.last_success_ms if known is not None else None,
        hours=known.hours if known is not None else (),
    )


def note(health: Health, subscription: Subscription, done: Attempted) -> tuple[Health, tuple[Notice, ...]]:
    """The health after an attempt, and what operators should hear."""
    if done.verdict is Verdict.DELIVERED:
        return delivered(health, 1, done.at_ms), ()
    if done.verdict is not Verdict.FAILED or done.reason in NOT_ITS_FAULT:
        return health, ()
    failing = replace(
        health,
        failures=health.failures + 1,
        failing_since_ms=health.failing_since_ms if health.failing_since_ms is not None else done.at_ms,
        last_failure_ms=done.at_ms,
        last_reason=done.reason,
        last_detail=done.detail,
        last_status=done.status,
        hours=_counted(health.hours, done.at_ms, delivered=0, failed=1),
    )
    if failing.failures >= OPEN_AFTER and done.at_ms >= failing.open_until_ms:
        pause = min(PAUSE_MS * 2**failing.openings, LONGEST_PAUSE_MS)
        failing = replace(failing, openings=min(failing.openings + 1, 16), open_until_ms=done.at_ms + pause)
    return _disabled_perhaps(failing, subscription, done)


def delivered(health: Health, count: int, at_ms: int) -> Health:
    """The health after so many successes without a failure between them, the last of them at ``at_ms``."""
    return replace(
        health,
        failures=0,
        failing_since_ms=None,
        openings=0,
        open_until_ms=0,
        told=0,
        last_success_ms=at_ms,
        hours=_counted(health.hours, at_ms, delivered=count, failed=0),
    )


def _disabled_perhaps(
    failing: Health, subscription: Subscription, done: Attempted
) -> tuple[Health, tuple[Notice, ...]]:
    if failing.disabled_ms is not None:
        return failing, ()
    assert failing.failing_since_ms is not None
    share = (done.at_ms - failing.failing_since_ms) * 100 // (subscription.disable_after_s * 1000)
    # Two failures with a quiet week between them are not a week of failures.
    reached = share if failing.failures >= OPEN_AFTER else 0
    if done.status == GONE:
        reached = 100
    due = [percent for percent in TOLD_AT if failing.told < percent <= reached]
    if done.status == GONE:
        due = due[-1:]
    if not due:
        return failing, ()
    disabled = done.at_ms if due[-1] == TOLD_AT[-1] else None
    after = replace(failing, told=due[-1], disabled_ms=disabled)
    return after, tuple(Notice(health=after, percent=percent, at_ms=done.at_ms) for percent in due)


def _counted(hours: tuple[Hour, ...], at_ms: int, *, delivered: int, failed: int) -> tuple[Hour, ...]:
    number = at_ms // HOUR_MS
    if hours and hours[-1].number >= number:
        last = hours[-1]
        now = replace(last, delivered=last.delivered + delivered, failed=last.failed + failed)
        return (*hours[:-1], now)
    kept = tuple(hour for hour in hours if hour.number > number - HOURS)
    return (*kept, Hour(number=number, delivered=delivered, failed=failed))


def success_rate(health: Health, now_ms: int) -> float | None:
    """Share of the attempts of the last day that were delivered; None when there were none."""
    hours = [hour for hour in health.hours if hour.number > now_ms // HOUR_MS - HOURS]
    attempts = sum(hour.delivered + hour.failed for hour in hours)
    return sum(hour.delivered for hour in hours) / attempts if attempts else None
