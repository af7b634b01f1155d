"""The night's report: what was found, and whether all of it holds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from agents.demo.script import Fate, Script
from agents.demo.watch import Seen
from streams.kafka.ledger import Line
from streams.sinks.billing import BillingStore, Settled

#: Outcomes compared with their rows at once.
COMPARED = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that has to hold; ``found`` says what was found, in words."""

    name: str
    holds: bool
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhooks:
    """What the receiver got: ``delivered`` are distinct webhook ids that it accepted."""

    requests: int
    delivered: int
    unverified: int


@dataclass(slots=True, kw_only=True)
class Report:
    """Everything that the demo prints at its end; ``phases`` and ``night_s`` in seconds of the wall clock."""

    changes: dict[str, int]
    rejections: dict[str, int]
    zones: list[dict[str, Any]]
    slack_min: float | None
    missed: int
    events: dict[str, int]
    unrouted: dict[str, int]
    deliveries: list[dict[str, Any]]
    webhooks: Webhooks
    records: int
    records_per_s: int
    ticks: int
    phases: dict[str, float]
    checks: list[Check] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return all(check.holds for check in self.checks)

    def as_json(self) -> str:
        return json.dumps({**asdict(self), "holds": self.holds}, indent=2, default=str)


def final_states(seen: Seen) -> dict[str, str]:
    """Change id → final state of every order that was sent; ``open`` if the topics do not say how it ended."""
    states = {}
    for change_id, request in seen.orders().items():
        reply = seen.replies.get((request.service_id, request.request_id))
        if reply is None:
            states[change_id] = "no answer"
        elif not reply.accepted:
            states[change_id] = Fate.REJECTED.value
        elif change_id in seen.stages["cancelled"]:
            states[change_id] = Fate.CANCELLED.value
        elif change_id in seen.stages["superseded"]:
            states[change_id] = Fate.SUPERSEDED.value
        elif change_id in seen.released and change_id in seen.stages["completed"]:
            states[change_id] = Fate.EFFECTIVE.value
        else:
            states[change_id] = "open"
    return states


def rejections(seen: Seen) -> dict[str, int]:
    """Reason → answers that gave it."""
    reasons = Counter(reason for reply in seen.replies.values() if not reply.accepted for reason in reply.reasons)
    return dict(reasons.most_common())


def by_zone(seen: Seen, deadlines: Mapping[str, datetime]) -> list[dict[str, Any]]:
    """One row per zone, from the first midnight to the last."""
    return [
        {"zone": zone, "deadline": deadline, **seen.row(zone), "slack": seen.slack.get(zone)}
        for zone, deadline in deadlines.items()
    ]


def webhooks(log: Path) -> Webhooks:
    """Count the receiver's log."""
    # the receiver runs still: a webhook that comes a second time may be half a line
    whole = log.read_text().rpartition("\n")[0] if log.exists() else ""
    lines = [json.loads(line) for line in whole.splitlines()]
    return Webhooks(
        requests=len(lines),
        delivered=len({line["webhook_id"] for line in lines if line["status"] < 300}),
        unverified=sum(not line["verified"] for line in lines),
    )


def checks(
    seen: Seen,
    script: Script,
    store: BillingStore,
    lines: list[Line],
    got: Webhooks,
    counted: Counter[str],
    webhook_subscriptions: frozenset[str],
) -> Iterator[Check]:
    """Everything that has to hold at the end of the night; ``counted`` are the event worker's own counts."""
    states = final_states(seen)
    yield Check(
        name="every order sent has one answer, always the same",
        holds=seen.requests.keys() == seen.replies.keys() and not seen.contradictions,
        found=f"{seen.sent} requests sent, {len(seen.requests)} distinct, {len(seen.replies)} answered, "
        f"{seen.contradictions} contradictions",
    )
    wrong = Counter(
        f"{fate.value} became {states.get(change_id, 'unknown')}"
        for change_id, fate in script.fates.items()
        if states.get(change_id) != fate.value
    )
    wrong += Counter("not in the script" for change_id in states if change_id not in script.fates)
    yield Check(
        name="every change ends as the script wants it",
        holds=not wrong,
        found=f"{len(states)} changes" + "".join(f"; {count} {what}" for what, count in wrong.items()),
    )
    refused = sum(not reply.accepted for reply in seen.replies.values()) - Counter(states.values())["rejected"]
    yield Check(
        name="cancels after the start instant are refused",
        holds=refused == script.refused_cancels,
        found=f"{refused} refused, {script.refused_cancels} sent",
    )
    yield from _store_checks(seen, {change_id for change_id, state in states.items() if state == "effective"}, store)
    yield from _event_checks(seen, script, states, counted)
    yield from _delivery_checks(lines, got, webhook_subscriptions)


def _store_checks(seen: Seen, effective: set[str], store: BillingStore) -> Iterator[Check]:
    settled: dict[str, Settled] = {one.change_id: one for one in store.changes()}
    persisted = {id for id, one in settled.items() if one.persisted and one.plan_revision is not None}
    yield Check(
        name="orders, acknowledgements and billing store agree",
        holds=effective == seen.committed.keys() == seen.released == persisted,
        found=f"{len(effective)} effective by the orders and replies, {len(seen.committed)} persisted and "
        f"{len(seen.released)} released by the acknowledgements, {len(persisted)} in the billing store",
    )
    ids = sorted(settled)
    stored = [
        outcome
        for start in range(0, len(ids), COMPARED)
        for outcome in store.outcomes(ids[start : start + COMPARED]).values()
    ]
    matching = sum(outcome.rows_match for outcome in stored)
    yield Check(
        name="the billing store's rows are what was sealed",
        holds=matching == len(stored) == len(settled),
        found=f"{matching} of {len(settled)} outcomes match their rows",
    )
    missed = sum(one.missed or one.late for one in settled.values()) + len(seen.missed)
    yield Check(name="nothing missed its deadline", holds=missed == 0, found=f"{missed} missed or late")


def _event_checks(seen: Seen, script: Script, states: dict[str, str], counted: Counter[str]) -> Iterator[Check]:
    raised = Counter(seen.event_types.values())
    wanted = Counter(script.transitions)
    wanted["rate_plan_change.effective"] = Counter(states.values())["effective"]
    wrong = {type: (raised[type], count) for type, count in wanted.items() if raised[type] != count}
    yield Check(
        name="every change of the billing engine raised its event once",
        holds=not wrong,
        found=f"{sum(raised.values())} distinct events in the queues"
        + "".join(f"; {type}: {is_} instead of {should}" for type, (is_, should) in wrong.items()),
    )
    by_worker = Counter({name.removeprefix("raised "): n for name, n in counted.items() if name.startswith("raised ")})
    lost = sum(count for name, count in counted.items() if not name.startswith("raised "))
    yield Check(
        name="raised = routed + unrouted, no revision is missing",
        holds=by_worker == raised and lost == 0,
        found=f"{sum(by_worker.values())} raised by the worker's own count, {sum(raised.values())} in the queues, "
        f"{lost} unrouted, withheld or with gaps",
    )


def _delivery_checks(lines: list[Line], got: Webhooks, webhook_subscriptions: frozenset[str]) -> Iterator[Check]:
    difference = sum(line.difference for line in lines)
    open_ends = sum(line.balance.pending + line.balance.dead + line.lag + line.unreadable for line in lines)
    yield Check(
        name="published = delivered + pending + dead + filtered + discarded",
        holds=bool(lines) and difference == 0,
        found=f"difference {difference} over {len(lines)} subscriptions",
    )
    yield Check(
        name="nothing is left to deliver",
        holds=open_ends == 0,
        found=f"{open_ends} pending, dead, unreadable or not looked at",
    )
    delivered = sum(line.balance.delivered for line in lines if line.subscription in webhook_subscriptions)
    yield Check(
        name="every delivered webhook was received, with a good signature",
        holds=got.delivered == delivered and got.unverified == 0 and delivered > 0,
        found=f"{delivered} delivered, {got.delivered} received, {got.unverified} with a bad signature",
    )


def delivery_rows(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """One row per subscription, for the table."""
    return [
        {
            "subscription": line.subscription,
            "queue": line.queue,
            "published": line.balance.accepted,
            "delivered": line.balance.delivered,
            "pending": line.balance.pending,
            "dead": line.balance.dead,
            "filtered": line.balance.filtered,
            "difference": line.difference,
        }
        for line in lines
    ]


def least_slack(store: BillingStore) -> timedelta | None:
    """The least time between commit and deadline, by the billing store."""
    return min((one.deadline - one.committed_at for one in store.changes() if one.committed_at), default=None)
