"""Calculations: what they raise, and that none of them, whatever it does, harms the worker."""

from __future__ import annotations

import asyncio
import runpy
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agents.calculations.declarations import load
from agents.calculations.pool import START_S, Busy, CalculationPool, Failed
from streams.core import catalogue
from streams.core.calculations import Calculation, Emitted, checked, findings
from streams.core.delivery.hops import HOPS, MAX_HOPS, PATH
from streams.core.errors import Misconfigured
from streams.core.events import Audience, Event, Finding
from streams.core.routing import Route, RouteAudience, Router
from streams.core.subscription_filter import exact_types
from streams.core.subscription_rules import Known, problems
from streams.core.subscriptions import Calculate, Subscription
from streams.filters import CelLanguage
from streams.topics import FINDINGS
from tests.delivery.naughty import SEEN
from tests.delivery.plant import Plant, event, subscription
from tests.delivery.receiving import sender

DECLARED = ("tests.delivery.naughty:ALL",)
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "calculations.py"


@pytest.fixture(autouse=True)
def catalogue_as_it_was() -> Iterator[None]:
    """Types are declared once for a process; other tests have no such deployment."""
    before = dict(catalogue._known)
    yield
    catalogue._known.clear()
    catalogue._known.update(before)
    exact_types.cache_clear()


def calculates(name: str, **fields: Any) -> Subscription:
    return subscription(name, calculation=Calculate(name=name), **fields)


def run(*names: str, of: Event | None = None) -> list[Any]:
    """What these calculations give one after another, in one pool: events, or the reason."""

    async def main() -> list[Any]:
        pool = CalculationPool(DECLARED, load(DECLARED), size=1)
        found: list[Any] = []
        try:
            for name in names:
                try:
                    found.append(await pool.run(name, of or event(1), within_s=START_S))
                except Failed as failed:
                    found.append(failed.reason if failed.detail else "no words for people")
        finally:
            await pool.close()
        return found

    return asyncio.run(main())


def test_whatever_one_calculation_does_the_next_one_works() -> None:
    """For ever, without end, an exception, a wrong type, the end of its process: a reason each, then the good one."""
    found = run(
        "loops", "counts", "allocates", "counts", "raises", "floats", "other-type", "nothing-sensible", "dies",
        "prints", "counts",
    )  # fmt: skip

    good = [[one.type for one in result] for result in found if isinstance(result, list)]
    assert good == [[SEEN], [SEEN], [], [SEEN]]
    assert [result for result in found if isinstance(result, str)] == [
        "calculation_timeout",
        "calculation_memory",
        "calculation_failed",
        "calculation_wrong_type",
        "calculation_wrong_type",
        "calculation_wrong_type",
        "calculation_failed",
    ]


def test_who_does_not_want_to_wait_hears_that_all_are_at_work() -> None:
    """So one that loops does not hold up the partition."""

    async def main() -> None:
        pool = CalculationPool(DECLARED, load(DECLARED), size=1)
        first = asyncio.create_task(pool.run("loops", event(1), within_s=START_S))
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await pool.run("counts", event(1), within_s=0.05)
        with pytest.raises(Failed, match="calculation_timeout"):
            await first
        await pool.close()

    asyncio.run(main())


def plant(one: Subscription) -> Plant:
    made = Plant(one)
    made.calculations = DECLARED
    made.restart_dispatcher(sender())
    return made


def calculated(made: Plant, *events: Event, **how: Any) -> list[Finding]:
    """What leaves for the events worker because of these events."""

    async def run() -> None:
        try:
            await made.run(made.attempts(made.feed(*events, **how)))
        finally:
            await made.pool.close()

    asyncio.run(run())
    return [made.codec.decode(one.value, Finding) for one in made.outputs if one.topic == FINDINGS]


def test_a_result_is_an_event_about_the_same_object_under_an_id_that_comes_from_its_cause() -> None:
    """Calculated again, by another worker, it is the same."""
    [first] = calculated(plant(calculates("counts")), event(7))
    [again] = calculated(plant(calculates("counts")), event(7))
    [other] = calculated(plant(calculates("counts")), event(8))

    assert first == again
    assert first.event_id != other.event_id
    assert (first.type, first.subject_id, first.account_id, first.sequence) == (SEEN, "S-A1", "A1", 7)
    assert first.facts == {"sequence": 7, "share": Decimal("0.5"), "name": "Line 1"}
    assert (first.hops, first.path) == (1, "customer-events")


def test_a_calculation_with_an_event_that_customers_must_not_see_stays_internal() -> None:
    """A silent change stays silent, whatever is calculated with it."""
    [told] = calculated(plant(calculates("counts")), event(1))
    [silent] = calculated(plant(calculates("counts", audience="all")), event(2, audience=Audience.INTERNAL))

    assert (told.audience, silent.audience) == (Audience.CUSTOMER, Audience.INTERNAL)


def test_a_bad_calculation_puts_its_one_event_aside() -> None:
    """A dead letter with reason and words, at once; the worker and the other events go on."""
    made = plant(calculates("raises"))

    calculated(made, event(1), event(1, account="A2"))

    assert [dict(one.headers or [])["curfew-reason"] for one in made.dead()] == [b"calculation_failed"] * 2
    assert b"ValueError: not today" in dict(made.dead()[0].headers or [])["__connect.errors.exception.message"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("complains-at-length", b"calculation_failed"), ("not-utf8", b"calculation_wrong_type"),
        ("astronomical", b"calculation_wrong_type"), ("no-number", b"calculation_wrong_type"),
        ("a-novel", b"too_large"),
    ],
)  # fmt: skip
def test_what_no_record_can_hold_puts_the_event_aside_and_not_the_worker(name: str, reason: bytes) -> None:
    """It is of the right type, and shows only when it is written."""
    made = plant(calculates(name))

    assert calculated(made, event(1)) == []

    assert [dict(one.headers or [])["curfew-reason"] for one in made.dead()] == [reason]


def test_a_loop_of_calculations_ends_at_the_limit_with_the_path_in_its_dead_letter() -> None:
    """The result is routed to the queue that is calculated with: eight times, and not for ever."""
    load(DECLARED)
    router = Router(
        (Route(name="loop", event_types=(SEEN,), queues=("customer-events",), audience=RouteAudience.ALL),),
        language=CelLanguage(),
    )
    made = plant(calculates("counts", audience="all"))

    async def go_round() -> int:
        now, headers, rounds = event(1), list[tuple[str, bytes | None]](), 0
        while rounds < 20:
            before = len(made.outputs)
            value = made.codec.encode("queue.customer-events", now)
            await made.run(made.attempts(made.chunk("queue.customer-events", [(b"A1", value, headers)])))
            sent = [one for one in made.outputs[before:] if one.topic == FINDINGS]
            if not sent:
                break
            finding = made.codec.decode(sent[0].value, Finding)
            [dispatch] = router.route(finding, lambda kind, id: None, None).dispatches
            now = replace(dispatch.event, parameters={"service.name": "Line 1"})
            headers = [(HOPS, str(finding.hops).encode()), (PATH, finding.path.encode())]
            rounds += 1
        await made.pool.close()
        return rounds

    rounds = asyncio.run(go_round())

    assert rounds == MAX_HOPS
    [letter] = made.dead()
    told = dict(letter.headers or [])
    assert told["curfew-reason"] == b"hop_limit"
    assert b",".join([b"customer-events"] * (MAX_HOPS + 1)) in told["__connect.errors.exception.message"]


def test_the_example_in_the_docs_calculates() -> None:
    """In the first third of the period it says something, later nothing."""
    calculation = runpy.run_path(str(EXAMPLE))["FAIR_USE"]
    assert isinstance(calculation, Calculation)
    begins = event(1).occurred_at.date()
    facts: dict[str, Any] = {"tier": 1, "period_starts_on": begins - timedelta(days=3)}
    early = event(1, facts=facts | {"period_ends_on": begins + timedelta(days=27)})
    late = event(1, facts=facts | {"period_ends_on": begins + timedelta(days=3)})

    [told] = findings(calculation, early, checked(calculation, calculation.function(early, {})), 1, "q")

    assert told.facts == {"tier": 1, "share_of_period": Decimal("0.10")}
    assert checked(calculation, calculation.function(late, {})) == []


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (calculates("cuonts"), ("no calculation 'cuonts'", "did you mean 'counts'", "the setting calculations")),
        (calculates("counts", event_types=()), ("about a service", "name the types")),
        (calculates("counts", event_types=("invoice.posted",)), ("is about a invoice", "about a service")),
    ],
)
def test_a_wrong_calculation_is_refused_when_it_is_saved(one: Subscription, words: tuple[str, ...]) -> None:
    """The name has to be declared, the events have to be about what it calculates with."""
    kinds = {name: known.kind for name, known in load(DECLARED).items()}
    known = Known(queues=("customer-events",), development=True, language=CelLanguage(), calculations=kinds)

    found = "; ".join(problems(one, known))

    for word in words:
        assert word in found


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ("tests.delivery.nowhere:ALL", "cannot be loaded"),
        ("tests.delivery.naughty:SEEN", "must be a Calculation or several"),
    ],
)
def test_a_wrong_declaration_is_named(declared: str, words: str) -> None:
    with pytest.raises(Misconfigured, match=words):
        load((declared,))


def test_an_event_type_of_another_family_cannot_be_declared() -> None:
    """Nobody can raise invoice.posted by a calculation."""
    with pytest.raises(Misconfigured, match="has to be like calculation"):
        Calculation(name="x", kind="invoice", function=lambda *_: [], emits={"invoice.posted": Emitted(about="")})
