"""Every type of event that the usage half raises, on a real Kafka: raised with its values, and not raised."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from streams.core.catalogue import CATALOGUE
from streams.core.events import Event
from streams.core.objects import Op, Service, ServiceChange, ServicePlan, ServicePlanChange
from streams.core.routing import Route, RouteAudience
from streams.core.usage.objects import Bucket, CommitTier, Contract, PeriodRule, Sim, Usage
from streams.kafka.scan import Scanner
from tests.core.billing import created as account_created
from tests.events.scenarios.table import account
from tests.support.brokers import private
from tests.usage.makers import a_rule, changed, on
from tests.usage.scenarios.stage import UsageStage, UsageStep

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

END = on(75)
TYPES = (
    "sim.dormant", "sim.active_again", "usage.threshold_exceeded", "contract.under_commit", "contract.commit_met",
)  # fmt: skip
ROUTES = (
    Route(name="all", event_types=(*TYPES, "sim.created", "bucket.created"), queues=("operations",),
          audience=RouteAudience.ALL),
    Route(name="states", event_types=("service.state_transitioned",), queues=("customer-events",),
          parameters=("sim.id", "sim.msisdn")),
)  # fmt: skip
#: Of the products of the stage, mobile has SIMs that are dormant after a week.
RULES = (a_rule(7, "mobile"),)
#: In the accounts' zone, Berlin: its clocks go forward in the night to March 29th.
MONTH = PeriodRule(zone="Europe/Berlin", starts_on=date(2026, 3, 1), months=1)
MARCH_ENDS = datetime(2026, 3, 31, 22, tzinfo=UTC)
#: A quarter of an hour before day 0.
EARLY = -1 / 96
Facts = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """An event; ``facts`` are those that matter here, of ``parameters`` all."""

    at: datetime
    facts: Facts
    parameters: Facts | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What happens to account ``id``, and exactly which events of ``type`` that raises."""

    type: str
    id: str
    steps: tuple[UsageStep, ...]
    expect: tuple[Expected, ...] = ()

    def __str__(self) -> str:
        return f"{self.type}-{self.id}"


# -- the world of one account -----------------------------------------------------------------------------------------


def at(day: float, value: Any) -> UsageStep:
    return UsageStep(at=on(day), value=value)


def service(id: str) -> Service:
    return Service(id=f"{id}-S", account_id=id, name="meter 17", state="Active")


def states(id: str, *turns: tuple[float, str]) -> list[UsageStep]:
    """The service changes its state."""
    steps, before = [], service(id)
    for revision, (day, state) in enumerate(turns, 2):
        after = replace(before, state=state)
        steps.append(
            at(day, ServiceChange(op=Op.UPDATED, previous=before, current=after, revision=revision,
                                  occurred_at=on(day), source="test"))
        )  # fmt: skip
        before = after
    return steps


def world(id: str, product: str = "fibre", *, sim: bool = True) -> list[UsageStep]:
    """Account, service, plan and SIM, from day 0. Topics have no order among them, so the SIM comes when the rest is
    known: its creation is an event with their parameters."""
    plan = ServicePlan(service_id=f"{id}-S", account_id=id, rate_plan_id="basic", product_id=product)
    steps = [
        at(EARLY, account_created(account(id))),
        at(EARLY, ServiceChange(op=Op.CREATED, current=service(id), revision=1, occurred_at=on(0), source="test")),
        at(EARLY, ServicePlanChange(op=Op.CREATED, current=plan, revision=1, occurred_at=on(0), source="test")),
    ]
    if sim:
        made = Sim(id=f"{id}-SIM", account_id=id, service_id=f"{id}-S", activated_at=on(0), msisdn="4915550100")
        steps.append(at(0, changed(made)))
    return steps


def usage(id: str, day: float, quantity: float | str = 1, *, sent: float | None = None, **fields: Any) -> UsageStep:
    """Usage of ``day``, sent then or later."""
    made = Usage(**{
        "id": f"{id}-{day}-{quantity}", "account_id": id, "service_id": f"{id}-S", "quantity": Decimal(str(quantity)),
        "unit": "MB", "event_time": on(day), **fields,
    })  # fmt: skip
    return at(day if sent is None else sent, made)


def bucket(id: str, **fields: Any) -> Bucket:
    own = {"id": f"{id}-B", "account_id": id, "service_id": f"{id}-S", "name": "Data", "unit": "MB", "period": MONTH}
    return Bucket(**{**own, "tiers": (Decimal(100), Decimal("50.5")), **fields})


def contract(id: str, **fields: Any) -> Contract:
    tiers = (
        CommitTier(commit=Decimal(100), name="Silver"),
        CommitTier(commit=Decimal(200), name="Gold", enabled=False),
        CommitTier(commit=Decimal(300), name="Platinum"),
    )
    own = {"id": f"{id}-K", "account_id": id, "name": "Fleet", "period": MONTH, "measure": "usage", "unit": "MB"}
    return Contract(**{**own, "tiers": tiers, **fields})


# -- what is to be raised ---------------------------------------------------------------------------------------------


def sim_parameters(id: str, product: str = "Fibre") -> Facts:
    return {
        "sim.id": f"{id}-SIM", "sim.msisdn": "4915550100", "service.name": "meter 17", "account.name": f"Ada {id}",
        "product.name": product,
    }  # fmt: skip


def silent(since: float, dormant: float, days: int = 30) -> Facts:
    return {"days": days, "silent_since": on(since), "dormant_at": on(dormant)}


def exceeded(id: str, day: float, tier: int, threshold: str, used: str, cause: str | None, **more: Any) -> Expected:
    facts = {
        "tier": tier,
        "tiers": 2,
        "threshold": Decimal(threshold),
        "used": Decimal(used),
        "usage_id": cause,
        **more,
    }
    name = more.pop("service", "meter 17")
    facts.pop("service", None)
    parameters = {"bucket.name": "Data", "bucket.unit": "MB", "service.name": name, "account.name": f"Ada {id}"}
    return Expected(at=on(day), subject=f"{id}-B", facts=facts, parameters=parameters)


def under(id: str, when: datetime, tier: int, name: str, commit: int, measured: str, **more: Any) -> Expected:
    shortfall = max(Decimal(commit) - Decimal(measured), Decimal(0))
    facts = {"tier": tier, "tier_name": name, "commit": Decimal(commit), "measured": Decimal(measured),
             "shortfall": shortfall, "period_starts_on": date(2026, 3, 1), "period_ends_on": date(2026, 4, 1),
             "late": False, **more}  # fmt: skip
    parameters = {"contract.name": "Fleet", "contract.measure": "usage", "contract.unit": "MB",
                  "contract.currency": None, "account.name": f"Ada {id}"}  # fmt: skip
    return Expected(at=when, subject=f"{id}-K", facts=facts, parameters=parameters)


def two_services(id: str) -> list[UsageStep]:
    """A second service of the account."""
    other = replace(service(id), id=f"{id}-S2")
    return [at(0, ServiceChange(op=Op.CREATED, current=other, revision=1, occurred_at=on(0), source="test"))]


APRIL = {"period_starts_on": date(2026, 4, 1), "period_ends_on": date(2026, 5, 1)}
MARCH = {"period_starts_on": date(2026, 3, 1), "period_start": on(-1 / 24)}

SCENARIOS = (
    Scenario(type="sim.dormant", id="never", steps=(*world("never"),),
             expect=(Expected(at=on(30), subject="never-SIM", facts=silent(0, 30),
                              parameters=sim_parameters("never")),)),
    Scenario(type="sim.dormant", id="silent", steps=(*world("silent"), usage("silent", 4.5), usage("silent", 12.25)),
             expect=(Expected(at=on(43), facts=silent(13, 43)),)),
    Scenario(type="sim.dormant", id="busy",
             steps=(*world("busy"), *(usage("busy", day + .5) for day in range(9, 75, 30)))),
    Scenario(type="sim.dormant", id="paused",
             steps=(*world("paused"), *states("paused", (10, "Suspended"), (24.25, "Active"))),
             expect=(Expected(at=on(45), facts=silent(0, 45)),)),
    Scenario(type="sim.dormant", id="stopped", steps=(*world("stopped"), *states("stopped", (29.9, "Cancelled")))),
    Scenario(type="sim.dormant", id="meter", steps=(*world("meter", "mobile"),),
             expect=(Expected(at=on(7), facts=silent(0, 7, 7), parameters=sim_parameters("meter", "Mobile")),)),
    Scenario(type="sim.active_again", id="again",
             steps=(*world("again"), usage("again", 40.5, sim_id="again-SIM"), usage("again", 41.5)),
             expect=(Expected(at=on(40.5), subject="again-SIM", parameters=sim_parameters("again"),
                              facts={**silent(0, 30), "usage_at": on(40.5), "correction": False}),)),
    Scenario(type="sim.active_again", id="late", steps=(*world("late"), usage("late", 20.5, sent=33)),
             expect=(Expected(at=on(20.5), facts={**silent(0, 30), "usage_at": on(20.5), "correction": True}),)),
    Scenario(type="sim.active_again", id="awake", steps=(*world("awake"), usage("awake", 29.5), usage("awake", 45))),
    Scenario(type="usage.threshold_exceeded", id="both",
             steps=(*world("both", sim=False), at(1, changed(bucket("both"))),
                    usage("both", 2, "99.5", bucket_id="both-B"), usage("both", 3, -20, bucket_id="both-B"),
                    usage("both", 4, "71.25", bucket_id="both-B")),
             expect=(exceeded("both", 4, 1, "100", "150.75", "both-4-71.25", tier_amount=Decimal(100), **MARCH),
                     exceeded("both", 4, 2, "150.5", "150.75", "both-4-71.25", late=False))),
    Scenario(type="usage.threshold_exceeded", id="below",
             steps=(*world("below", sim=False), at(1, changed(bucket("below"))),
                    usage("below", 2, "99.999999", bucket_id="below-B"),
                    usage("below", 2, "99.999999", bucket_id="below-B", sent=3),
                    usage("below", 32, "99.999999", bucket_id="below-B"),
                    usage("below", 4, 9, unit="SMS", bucket_id="below-B"))),
    Scenario(type="usage.threshold_exceeded", id="early",
             steps=(*world("early", sim=False), usage("early", 2, 101, bucket_id="early-B"),
                    usage("early", 3, -90, bucket_id="early-B"), at(5, changed(bucket("early")))),
             expect=(exceeded("early", 2, 1, "100", "101", "early-2-101"),)),
    Scenario(type="usage.threshold_exceeded", id="carried",
             steps=(*world("carried", sim=False), at(1, changed(bucket("carried"))),
                    at(31, changed(bucket("carried", carried_over=Decimal(25), carried_into=date(2026, 4, 1)), 2, 31)),
                    usage("carried", 32, 124, bucket_id="carried-B"), usage("carried", 33, 1, bucket_id="carried-B"),
                    usage("carried", 20, 100, sent=34, bucket_id="carried-B")),
             expect=(exceeded("carried", 20, 1, "100", "100", "carried-20-100", late=True, **MARCH),
                     exceeded("carried", 33, 1, "125", "125", "carried-33-1", late=False, **APRIL))),
    Scenario(type="usage.threshold_exceeded", id="pool",
             steps=(*world("pool", sim=False), *two_services("pool"), at(1, changed(bucket("pool", service_id=None))),
                    usage("pool", 2, 60, bucket_id="pool-B", pooled=True),
                    usage("pool", 3, 60, bucket_id="pool-B", pooled=True, service_id="pool-S2")),
             expect=(exceeded("pool", 3, 1, "100", "120", "pool-3-60", service=None),)),
    Scenario(type="contract.under_commit", id="short",
             steps=(*world("short", sim=False), at(1, changed(contract("short"))),
                    usage("short", 2, "99.5", contract_id="short-K")),
             expect=(under("short", MARCH_ENDS, 1, "Silver", 100, "99.5"),
                     under("short", MARCH_ENDS, 3, "Platinum", 300, "99.5"),
                     under("short", MARCH_ENDS + timedelta(days=30), 1, "Silver", 100, "0", **APRIL),
                     under("short", MARCH_ENDS + timedelta(days=30), 3, "Platinum", 300, "0", **APRIL))),
    Scenario(type="contract.under_commit", id="met",
             steps=(*world("met", sim=False), usage("met", 2, 250, contract_id="met-K"),
                    at(3, changed(contract("met", grace_hours=48, period=replace(MONTH, ends_on=date(2026, 4, 1))))),
                    usage("met", 30, 50, sent=32, contract_id="met-K"))),
    Scenario(type="contract.commit_met", id="lifted",
             steps=(*world("lifted", sim=False),
                    at(1, changed(contract("lifted", period=replace(MONTH, ends_on=date(2026, 4, 1))))),
                    usage("lifted", 2, 60, contract_id="lifted-K"),
                    usage("lifted", 5, 40, sent=40, contract_id="lifted-K")),
             expect=(under("lifted", on(5), 1, "Silver", 100, "100", late=True),)),
    Scenario(type="contract.commit_met", id="lost",
             steps=(*world("lost", sim=False),
                    at(1, changed(contract("lost", period=replace(MONTH, ends_on=date(2026, 4, 1))))),
                    usage("lost", 5, 40, sent=40, contract_id="lost-K"))),
)  # fmt: skip


@dataclass
class Played:
    """What the workers made of all scenarios; events by (account, type), in their order."""

    events: dict[tuple[str, str], list[Event]]
    states: list[Event]
    dead: int


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """All scenarios at once, on one stage."""
    directory = tmp_path_factory.mktemp("usage-scenarios")
    with private(directory / "stack") as address:
        stage = UsageStage(address, directory)
        try:
            stage.start(ROUTES, RULES)
            stage.play([step for scenario in SCENARIOS for step in scenario.steps], END)
            found: dict[tuple[str, str], list[Event]] = defaultdict(list)
            for event in stage.events("operations"):
                found[event.key, event.type].append(event)
            with Scanner(stage.kafka()) as scanner:
                dead = [
                    record
                    for topic in ("dead-letters.events", "dead-letters.usage")
                    for record in scanner.read(topic, scanner.spans(topic))
                ]
            yield Played(found, stage.events("customer-events"), len(dead))
        finally:
            killed = stage.close()
        assert killed == []


@pytest.mark.parametrize("type", TYPES)
def test_every_type_has_a_scenario_in_which_it_is_raised_and_one_in_which_it_is_not(type: str) -> None:
    """Whoever adds a type of the usage half adds its scenarios."""
    found = [bool(scenario.expect) for scenario in SCENARIOS if scenario.type == type]
    usage_types = {one for one in CATALOGUE if one.partition(".")[0] in ("sim", "usage", "contract", "bucket")}

    assert set(found) == {True, False}
    assert {one for one in usage_types if not CATALOGUE[one].registered} == set(TYPES)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_scenario(played: Played, scenario: Scenario) -> None:
    """Subject, instant, facts, and the values of all default parameters; or nothing."""
    events = sorted(
        played.events[scenario.id, scenario.type],
        key=lambda event: (event.occurred_at, event.facts["days" if "sim" in scenario.type else "tier"]),
    )

    assert [event.occurred_at for event in events] == [expected.at for expected in scenario.expect]
    for event, expected in zip(events, scenario.expect, strict=True):
        assert event.facts.items() >= expected.facts.items()
        assert event.facts.keys() == CATALOGUE[event.type].facts.keys()
        if expected.subject is not None:
            assert event.subject_id == expected.subject
        if expected.parameters is not None:
            assert event.parameters == expected.parameters
            assert event.missing == ()


def test_changes_of_sims_and_buckets_are_registered_events_of_the_account(played: Played) -> None:
    """Kept by service, raised by account, with the account's parameters."""
    [sim] = played.events["never", "sim.created"]
    [bucket_created] = played.events["pool", "bucket.created"]

    assert sim.parameters == sim_parameters("never")
    assert bucket_created.parameters["account.name"] == "Ada pool"


def test_an_event_about_a_service_can_name_its_sim(played: Played) -> None:
    """Service → SIM is a relation like any other."""
    [suspended, active] = [event for event in played.states if event.key == "paused"]

    assert suspended.facts == {"from": "Active", "to": "Suspended"}
    assert active.parameters["sim.id"] == "paused-SIM"
    assert active.parameters["sim.msisdn"] == "4915550100"


def test_nothing_was_put_aside(played: Played) -> None:
    """Not one of the records of these scenarios is wrong."""
    assert played.dead == 0
