"""The usage worker dies again and again, at places of every kind, while two months pass: the same events by id."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agents import supervisor
from agents.clock import barrier_reads
from agents.configuration.records import read_rows
from streams.codec.registration import register_all
from streams.core.events import Finding
from streams.core.usage.objects import ContractChange, Meter, PeriodRule, Usage, UsageContext
from streams.core.usage.rows import meter_key, meter_reader
from streams.kafka import admin as kafka_admin
from streams.kafka.scan import Scanner
from tests.events.scenarios.stage import Stage
from tests.support.brokers import private
from tests.usage.makers import MARCH, Partition, a_bucket, a_contract, a_rule, a_sim, a_state, changed, on, some_usage
from tests.usage.scenarios.stage import UsageStep

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(1800)]

SEED = 20260301
SERVICES = 60
DAYS = 65
POOL, CONTRACT = "POOL", "K"
CHANGELOG = "usage-store-changelog"
#: Where each incarnation of the worker dies, and at which pass; the last one lives. Rows that break off in the middle,
#: outputs without rows, rows without a commit, recoveries that are interrupted.
DEATHS = [
    f"{point}:{nth}"
    for nth in (2, 15, 35)
    for point in (
        *("changelog.middle", "outputs.durable", "changelog.durable", "outputs.middle", "apply.middle", "decide.end"),
        *("done.marked",),
    )
] + ["recovery.end:2", "recovery.middle:1", "changelog.middle:5"]


class UsageAlone(Stage):
    """The usage worker, with the test in the place of billing and of the events worker."""

    def __post_init__(self) -> None:
        Stage.__post_init__(self)
        self.reads = barrier_reads({"usage": self.manifest.groups["usage"]}, self.manifest.topics)
        self._deaths = iter(DEATHS)
        self.died: Counter[int | None] = Counter()

    def start(self, routes: Any = (), rules: Any = ()) -> None:
        wanted = {CHANGELOG, "dead-letters.usage", "events.findings", "usage.sims", "usage.buckets"}
        topics = [
            topic
            for topic in self.manifest.topics.values()
            if "usage" in topic.readers or topic.read_whole or topic.name in wanted
        ]
        kafka_admin.create_topics(kafka_admin.admin_client(self.kafka()), topics)
        subjects = self.manifest.subjects()
        names = [f"{topic.name}-value" for topic in topics]
        register_all(self.registry, {name: subjects[name] for name in names if name in subjects})
        self.write("config.event-rules", {rule.name: rule for rule in rules})
        self._doom()
        self.supervisor.add("usage", "worker", "usage")

    def _doom(self) -> None:
        """The next incarnation dies at the next place."""
        self.supervisor.env = {**self.supervisor.env, "CURFEW_FAILPOINT": next(self._deaths, "")}

    def check(self) -> None:
        """Start the worker again when it has died."""
        [child] = self.supervisor.children
        code = None if child.process is None else child.process.poll()
        if code is not None:
            self.died[code] += 1
            self._doom()
        self.supervisor.check()

    def findings(self) -> list[Finding]:
        with Scanner(self.kafka()) as scanner:
            records = list(scanner.read("events.findings", scanner.spans("events.findings")))
        return [self.codec.decode(record.value(), Finding) for record in records]


class KillStep(UsageStep):
    """A step whose value may also be what the events worker would have told."""

    @property
    def topic(self) -> str:
        told = {UsageContext: "usage.contexts", ContractChange: "usage.contracts"}
        return told.get(type(self.value)) or super().topic

    @property
    def key(self) -> str:
        if isinstance(self.value, UsageContext):
            return self.value.service_id
        return self.value.subject.id if isinstance(self.value, ContractChange) else super().key


def story() -> list[KillStep]:
    """What happens to the services, always the same: usage in time, late, corrected and twice; suspensions; a pool."""
    rng = random.Random(SEED)
    steps: list[KillStep] = []

    def at(day: float, value: Any) -> None:
        steps.append(KillStep(at=on(int(day) + 0.5), value=value))

    at(0, changed(a_bucket(id=POOL, service_id=None, tiers=tuple(Decimal(n) for n in (300, 300, 300)))))
    for number in range(SERVICES):
        service = f"S{number}"
        sim, bucket = a_sim(id=f"sim-{number}", service_id=service), a_bucket(id=f"B{number}", service_id=service)
        defined = rng.choice((0, 0, 0, 12))  # some are defined after their usage
        at(defined, changed(sim, day=0))
        at(rng.choice((0, 12)), changed(bucket))
        at(0, a_state(1, 0, "Active", service_id=service))
        if number % 5 == 0:
            at(10, a_state(2, 10, "Suspended", "Active", service_id=service))
            at(17, a_state(3, 17, "Active", "Suspended", service_id=service))
        for _ in range(rng.randrange(6)):
            day = rng.randrange(DAYS - 25)
            own = rng.random() < 0.6
            quantity = rng.randrange(1, 120) if not own or rng.random() < 0.8 else -rng.randrange(1, 60)
            one = some_usage(
                day + 0.25, quantity, id=f"u{len(steps)}", service_id=service, sim_id=sim.id,
                bucket_id=bucket.id if own else POOL, pooled=not own, contract_id=CONTRACT,
            )  # fmt: skip
            sent = day + rng.choice((0, 0, 0, 3, 20))
            at(sent, one)
            if rng.random() < 0.2:
                at(sent + rng.randrange(3), one)  # again
    # After the contract was judged: one of its commitments is met after all.
    at(80, some_usage(60.25, 200_000, id="late", service_id="S0", contract_id=CONTRACT))
    return sorted(steps, key=lambda step: step.at)


def contract() -> Any:
    rule: PeriodRule = replace(MARCH, ends_on=on(61).date())
    return changed(a_contract(1_000, 100_000, id=CONTRACT, period=rule, grace_hours=24 * 14))


def expected(steps: list[KillStep]) -> Partition:
    """The same, decided in one partition without a worker."""
    partition = Partition(a_rule(10))
    days = sorted({step.at for step in steps})
    for instant in days:
        partition.told += partition.tick(instant)
        partition.take(*(step.value for step in steps if step.at == instant))
    partition.take(on(DAYS + 25))
    return partition


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UsageAlone]:
    monkeypatch.setattr(supervisor, "RESTART_AFTER_S", (0.0,))
    with private(tmp_path / "stack") as address:
        made = UsageAlone(address, tmp_path)
        try:
            yield made
        finally:
            killed = made.close()
    assert killed == []


def test_two_months_of_deaths_tell_the_same_events(stage: UsageAlone) -> None:
    """Ids, and the sums and states in the changelog, as if nothing had happened."""
    steps = [KillStep(at=on(0), value=contract()), *story()]
    reference = expected(steps)
    stage.start(rules=[a_rule(10)])
    for day in range(0, DAYS + 26, 10):  # each part has its own time to come to an end
        part = [step for step in steps if on(day) <= step.at < on(day + 10)]
        stage.play(part, min(on(day + 10), on(DAYS + 25)), meanwhile=stage.check)
    told = stage.findings()
    rows = dict(read_rows(stage.settings, CHANGELOG, b""))

    assert stage.died[-9] == sum(stage.died.values())
    assert stage.died[-9] >= len(DEATHS) * 2 // 3, "the worker lived too long: the story is too short for its deaths"
    assert Counter(one.type for one in {one.event_id: one for one in told}.values()) == Counter(
        one.type for one in {one.event_id: one for one in reference.told}.values()
    )
    assert {one.event_id for one in told} == reference.ids
    for meter, id in (
        (Meter.POOL, POOL),
        (Meter.CONTRACT, CONTRACT),
        *((Meter.BUCKET, f"B{n}") for n in range(SERVICES)),
    ):
        found, wanted = rows.get(meter_key(meter, id).encode()), reference.row(meter, id)
        assert _sums(None if found is None else meter_reader(meter)(found)) == _sums(wanted), id
    lines = {key: value for key, value in rows.items() if key.startswith(b"line/")}
    assert lines == dict(reference.store.scan(b"line/"))
    assert [key for key in rows if key.startswith(b"redo/")] == []


def _sums(row: Any) -> dict[datetime, Any]:
    if row is None:
        return {}
    return {tally.start: (tally.quantities, tally.count, sorted(tally.raised)) for tally in row.tallies}


def test_the_story_has_what_it_is_to_prove() -> None:
    """Each type is told, usage comes late and twice: else the deaths would prove nothing."""
    steps = story()
    steps.insert(0, KillStep(at=on(0), value=contract()))
    types = Counter(one.type for one in expected(steps).told)
    usages = [step.value for step in steps if isinstance(step.value, Usage)]

    assert types["sim.dormant"] > 50
    assert types["sim.active_again"] > 20
    assert any(one.facts.get("correction") for one in expected(steps).told)
    assert types["usage.threshold_exceeded"] > 20
    assert types["contract.under_commit"] > 1
    assert types["contract.commit_met"] == 1
    assert len(usages) > len({one.id for one in usages})
