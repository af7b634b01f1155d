"""Weeks of invoices around the nights on which clocks change, and a worker that is killed again and again."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agents.events.engine import totals
from streams.core.catalogue import CATALOGUE
from streams.core.event_rules import EventRule
from streams.core.invoice_due import Taken, instants
from streams.core.objects import Account, Invoice, Payment
from streams.core.routing import Route, RouteAudience
from streams.core.rows import count_key
from tests.core.billing import INVOICE, created, updated
from tests.events.scenarios.stage import BILL_RUN, Stage, Step
from tests.events.scenarios.table import SCENARIOS, account, at
from tests.events.works import Works
from tests.support.brokers import private
from tests.usage.makers import a_bucket, a_contract, a_sim, changed, removed

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(900)]

#: Every type, also those that somebody has to ask for by name.
RAISED = tuple(sorted(type for type, known in CATALOGUE.items() if known.raised))
ROUTE = Route(name="all", event_types=RAISED, queues=("operations",), audience=RouteAudience.ALL)
RULES = (EventRule(name="night", days=1, at="02:30"), EventRule(name="midnight", days=1, at="00:00"),
         EventRule(name="unpaid", days=2, at="01:30", only_while_unpaid=True))  # fmt: skip
ZONES = ("Europe/Berlin", "America/Sao_Paulo", "America/Havana", "Australia/Lord_Howe", "Asia/Kathmandu")
#: Of the usage and dispatch workers' own decisions: to this worker they are findings like others.
ELSEWHERE = {type for type in RAISED if not CATALOGUE[type].registered
             and type.partition(".")[0] in ("sim", "usage", "contract", "subscription")}  # fmt: skip
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SEED = 20181104
KILLS = 8


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A worker of its own, whose configuration is ROUTE and RULES."""
    with private(tmp_path / "stack") as address:
        made = Stage(address, tmp_path)
        try:
            made.start([ROUTE], RULES)
            yield made
        finally:
            made.close()


def an_account(zone: str) -> Account:
    return replace(account(zone.replace("/", "-")), zone=zone)


@pytest.mark.parametrize(
    "change", [date(2018, 10, 28), date(2018, 11, 4), date(2019, 3, 10), date(2019, 3, 31)], ids=str
)
def test_two_weeks_around_a_change_of_the_clocks(stage: Stage, change: date) -> None:
    """In five zones each day has an invoice, sent at noon and due that day: what it raises comes once, at the very tick
    of its instant, which the worker has told the clock."""
    first = datetime(change.year, change.month, change.day, 12, tzinfo=UTC) - 14 * DAY
    taken = [Taken(rule=rule, since=LONG_AGO) for rule in RULES]
    steps = [Step(at=first - DAY, value=created(an_account(zone))) for zone in ZONES]
    expected: dict[tuple[str, str], datetime] = {}
    for zone in ZONES:
        for number in range(28):
            sent = first + number * DAY
            invoice = replace(
                INVOICE, id=f"{zone}-{number}", account_id=an_account(zone).id, state="Posted",
                delivered_at=sent, due_date=sent.date(),
            )  # fmt: skip
            steps.append(at(sent, created(invoice)))
            for task, instant in instants(invoice, zone, taken).items():
                expected[invoice.id, task.partition(" ")[2] if task.startswith("plus") else "overdue"] = instant

    stage.play(steps, first + 40 * DAY)

    found = Counter(
        (event.subject_id, str(event.facts.get("rule", "overdue")), event.occurred_at)
        for event in stage.events("operations")
        if event.type in ("invoice.overdue", "invoice.delivered_plus")
    )
    assert len(expected) == 5 * 28 * 4
    assert found == Counter((id, name, instant) for (id, name), instant in expected.items())
    assert set(expected.values()) <= set(stage.ticks)


def a_month(accounts: int) -> list[Step]:
    """Accounts with invoices that are sent, paid in time, late or never, moved or cancelled; and payments."""
    rng = random.Random(SEED)
    first = datetime(2018, 10, 20, 12, tzinfo=UTC)
    steps: list[Step] = []
    for number in range(accounts):
        zone = rng.choice(ZONES)
        id = f"A{number}"
        late = rng.random() < 0.1  # the account comes after its invoices
        steps.append(
            Step(at=first + (5 * DAY if late else timedelta(0)), value=created(replace(account(id), zone=zone)))
        )
        if rng.random() < 0.1:
            moved = updated(replace(account(id), zone=zone), 2, zone=rng.choice(ZONES))
            steps.append(at(first + 8 * DAY, moved))
        for invoice in range(3):
            steps += _life(f"{id}-{invoice}", id, first + rng.randrange(240) * HOUR, rng)
    return steps


def _life(id: str, account_id: str, begin: datetime, rng: random.Random) -> list[Step]:
    state: Invoice = replace(
        INVOICE, id=id, account_id=account_id, state="Posted", due_date=begin.date() + rng.randrange(1, 8) * DAY,
        grace_days=rng.randrange(3),
    )  # fmt: skip
    steps = [at(begin, created(state))]
    now = begin
    deeds: list[Callable[[], dict[str, Any]]] = [
        lambda: {"delivered_at": now},
        lambda: {"balance": Decimal(0), "state": "Paid"},
        lambda: {"due_date": state.due_date + 3 * DAY},
        lambda: {"state": "Cancelled"},
        lambda: {"balance": Decimal(5), "state": "Posted"},
    ]
    for revision in range(2, 2 + rng.randrange(1, 5)):
        now += rng.randrange(1, 72) * HOUR
        change = updated(state, revision, **rng.choices(deeds, (5, 3, 2, 1, 1))[0]())
        state = change.current
        steps.append(at(now, change))
        if state.state == "Paid":
            paid = Payment(
                id=f"{id}-{revision}", account_id=account_id, invoice_id=id, amount=state.amount, currency="EUR",
                method="card", state=rng.choice(("Processed", "Failed")),
            )  # fmt: skip
            steps.append(at(now, created(paid)))
    return steps


def lives_of_others() -> Iterator[Step]:
    """What the usage worker sends on, created, changed and deleted: the scenarios have them in its own half."""
    first = datetime(2018, 10, 21, 12, tzinfo=UTC)
    for one in (a_sim(), a_bucket(), a_contract(100)):
        lives = changed(one), changed(one, 2), removed(one, 3)
        for number, change in enumerate(lives):
            yield Step(at=first + number * DAY, value=change)


def test_a_worker_that_is_killed_again_and_again_raises_the_same_events(stage: Stage) -> None:
    """All topics of object changes, findings and ticks flow, every type is raised; kill -9 at any moment. Ids and
    counts are those of a quiet worker without Kafka, which has read the same records at the same ticks: so they are
    those of any replay."""
    steps = [*a_month(40), *lives_of_others(), *(step for scenario in SCENARIOS for step in scenario.steps)]
    until = max(step.at for step in steps) + 40 * DAY
    rng, kills, next_at = random.Random(SEED), 0, 5

    def strike() -> None:
        nonlocal kills, next_at
        stage.supervisor.check()
        [worker] = stage.supervisor.children
        if kills < KILLS and len(stage.ticks) >= next_at and worker.process is not None:
            time.sleep(rng.random() * 0.05)  # anywhere between this tick and the next one
            worker.process.kill()
            worker.process.wait()
            worker.process, worker.restart_at = None, 0.0
            kills, next_at = kills + 1, len(stage.ticks) + rng.randrange(3, 25)

    stage.play_in_parts(steps, until, strike)

    quiet = Works(ROUTE)
    for rule in RULES:
        quiet.catalogue.put("event_rule", rule.name, rule)
    coming = sorted(steps, key=lambda step: step.at)
    quiet.feed("billing.bill-run", [created(BILL_RUN)])  # every stage has it from the start
    for now in stage.ticks:
        quiet.tick(now)
        while coming and coming[0].at <= now:
            step = coming.pop(0)
            quiet.feed(step.topic, [step.value])
    assert kills == KILLS
    wanted = {(event.type, event.event_id) for event in quiet.queued("operations")}
    assert {(event.type, event.event_id) for event in stage.events("operations")} == wanted
    assert {type for type, _ in wanted} == {*RAISED} - ELSEWHERE
    assert totals(stage.rows(count_key(""))) == quiet.counts
