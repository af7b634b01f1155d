"""The gate of an endpoint: rate, concurrency, breaker, disabling; and what a worker does after it was killed."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from agents.delivery.endpoint_gate import Gate, Postponed
from agents.delivery.slots import Slots
from streams.core.catalogue import CATALOGUE
from streams.core.delivery import made
from streams.core.delivery.endpoint import (
    OPEN_AFTER,
    Attempted,
    Health,
    Notice,
    begin,
    note,
    success_rate,
)
from streams.core.delivery.messages import Attempt, Result, Verdict
from streams.core.delivery.pace import Pace
from streams.core.events import Finding
from streams.core.subscriptions import Subscription, Webhook
from streams.kafka.lanes import Abandoned
from streams.topics import FINDINGS
from tests.delivery.plant import Plant, event, subscription
from tests.delivery.receiving import SECRET, SECRET_REF, answering, sender
from tests.support.kafka_io import TIMEOUT_SECONDS

HOUR = 3_600_000
DAY = 24 * HOUR


def failed(at_ms: int, **fields: Any) -> Attempted:
    given: dict[str, Any] = {"verdict": Verdict.FAILED, "reason": "http_500", "detail": None, "status": 500}
    return Attempted(**{**given, **fields}, at_ms=at_ms)


def delivered(at_ms: int) -> Attempted:
    return failed(at_ms, verdict=Verdict.DELIVERED, reason=None, status=200)


def after(subscription: Subscription, *attempts: Attempted) -> tuple[Health, list[Notice]]:
    health = begin(None, subscription)
    told: list[Notice] = []
    for one in attempts:
        health, notices = note(health, subscription, one)
        told += notices
    return health, told


# -- the rules -------------------------------------------------------------------------------------------------------


def test_operators_are_told_at_half_and_more_of_the_time_and_then_it_is_disabled() -> None:
    """Nothing but failures for five days, one an hour; every share is told once."""
    health, told = after(subscription(), *(failed(n * HOUR) for n in range(24 * 5 + 3)))

    assert [notice.percent for notice in told] == [50, 70, 90, 100]
    assert [notice.at_ms // HOUR for notice in told] == [60, 84, 108, 120]
    assert health.disabled_ms == 5 * DAY


def test_one_success_starts_the_time_anew() -> None:
    """Disabling is for endpoints that take nothing; one that takes something only loses what it refuses."""
    attempts = [failed(n * HOUR) for n in range(100)]
    attempts[80] = delivered(80 * HOUR)
    health, told = after(subscription(), *attempts)

    assert [notice.percent for notice in told] == [50]
    assert (health.disabled_ms, health.failing_since_ms, health.failures) == (None, 81 * HOUR, 19)


def test_two_failures_with_a_quiet_week_between_them_disable_nothing() -> None:
    """The time alone says nothing: nobody has tried."""
    _, told = after(subscription(), failed(0), failed(7 * DAY))

    assert told == []


def test_410_disables_at_once_and_a_newer_version_starts_anew() -> None:
    """One notice, not four."""
    one = subscription()
    health, told = after(one, failed(0, status=410, reason="http_410"))

    assert [notice.percent for notice in told] == [100]
    assert begin(health, replace(one, version=2)).disabled_ms is None
    assert begin(health, one) is health


@pytest.mark.parametrize("reason", ["interrupted", "no_subscription"])
def test_what_is_not_the_endpoints_fault_does_not_count(reason: str) -> None:
    """A worker that was killed ten times in a row must not open the breaker of a healthy receiver."""
    health, _ = after(subscription(), *(failed(n, reason=reason, status=None) for n in range(20)))

    assert (health.failures, health.open) == (0, False)


def test_the_breaker_opens_after_ten_failures_and_each_failed_probe_doubles_the_pause() -> None:
    """Failures of requests that were under way when it opened change nothing."""
    one = subscription()
    health, _ = after(one, *(failed(0) for _ in range(OPEN_AFTER + 6)))
    assert health.open_until_ms == 5_000

    health, _ = note(health, one, failed(5_000))
    assert health.open_until_ms == 15_000
    for _ in range(20):
        health, _ = note(health, one, failed(health.open_until_ms))
    assert health.open_until_ms - (health.last_failure_ms or 0) == 300_000
    health, _ = note(health, one, delivered(health.open_until_ms))
    assert not health.open


def test_the_success_rate_is_that_of_the_last_day() -> None:
    """Older hours are forgotten."""
    health, _ = after(
        subscription(), failed(0), failed(0), delivered(30 * HOUR), delivered(31 * HOUR), failed(32 * HOUR)
    )

    assert success_rate(health, 32 * HOUR) == pytest.approx(2 / 3)
    assert success_rate(health, 80 * HOUR) is None


# -- the pace --------------------------------------------------------------------------------------------------------


def taking(per_second: int, seconds: int, slots: int = 16) -> Pace:
    """An endpoint that has taken so many, evenly, in all of its slots, which are open at the end."""
    pace = Pace()
    for _ in range(slots):
        pace.begin(0.0)
    for number in range(1, per_second * seconds + 1):
        pace.end(number / per_second)
        pace.begin(number / per_second)
    return pace


def test_who_waits_is_told_by_how_long_requests_were_open() -> None:
    """A thousand wait before an endpoint that takes a thousand a second, ten before one that takes five."""
    assert taking(1_000, 10).wait_s(1_000, 16, 10.0) == pytest.approx(1.0, rel=0.05)
    assert taking(5, 60, slots=1).wait_s(10, 1, 60.0) == pytest.approx(2.0, rel=0.1)


def test_a_moment_in_which_nothing_ends_sends_nobody_back() -> None:
    """All requests that were open have taken a tenth of a second, instead of a few milliseconds."""
    assert taking(3_000, 2).wait_s(1_000, 16, 2.1) < 0.5


def test_a_burst_after_a_trickle_is_what_the_endpoint_can_take() -> None:
    """One after the other, twenty a second; sixteen at once will be sixteen times as many."""
    trickle = taking(20, 10, slots=1)
    assert trickle.wait_s(240, 16, 10.0) == pytest.approx(0.75, rel=0.05)


def test_one_request_that_hangs_does_not_hold_up_those_in_other_slots() -> None:
    """It is open for the whole minute, while others come and go beside it."""
    pace = Pace()
    pace.begin(0.0)
    for number in range(60 * 100):
        pace.begin(number / 100)
        pace.end((number + 1) / 100)

    assert pace.wait_s(300, 2, 60.0) == pytest.approx(3.0, rel=0.05)


def test_an_endpoint_that_answers_nothing_is_found_out() -> None:
    """Sixteen are open and none ends: after ten seconds thirty that wait would wait too long; after a tenth of one, the
    first connection may take that."""
    silent = taking(0, 0)
    assert silent.wait_s(1_000, 16, 0.1) == 0.0
    assert silent.wait_s(30, 16, 10.0) > 5.0
    went_silent = taking(1_000, 10)
    assert went_silent.wait_s(30, 16, 40.0) > 5.0


def test_time_without_requests_says_nothing() -> None:
    """An hour later the endpoint is as fast as it was; of one that had no request nothing is known."""
    idle = taking(1_000, 10, slots=1)
    idle.end(10.0)
    assert idle.wait_s(1_000, 1, 3_600.0) == pytest.approx(1.0, rel=0.05)
    idle.begin(3_600.0)
    assert idle.wait_s(1_000, 1, 3_600.0) == pytest.approx(1.0, rel=0.05)
    assert Pace().wait_s(1_000, 1, 0.0) == 0.0


# -- the gate --------------------------------------------------------------------------------------------------------


def test_requests_keep_the_distance_of_the_rate_also_after_the_partition_has_moved() -> None:
    """No two begin nearer than 1/rate, nor sooner than that after the gate was made elsewhere."""

    async def main() -> list[float]:
        began = [time.monotonic()]
        gate = Gate(subscription(max_per_second=50), None)

        async def one() -> None:
            async with gate.passing(0, 10):
                began.append(time.monotonic())

        await asyncio.gather(*(one() for _ in range(10)))
        return began

    began = asyncio.run(main())

    assert len(began) == 11
    for number, at in enumerate(began):
        assert at - began[0] >= number / 50 - 0.002, "the clock of the event loop is a little coarser"


def test_what_would_have_to_wait_too_long_for_its_turn_is_sent_back_with_the_time() -> None:
    """At two per second, five seconds hold ten; the others hear how long the queue is."""

    async def main() -> tuple[list[str], list[int]]:
        gate = Gate(subscription(max_per_second=2), None)
        passed, after_s = [], []
        reasons: set[str | None] = set()

        async def one(name: str) -> None:
            try:
                async with gate.passing(0, 1.2):
                    passed.append(name)
            except Postponed as postponed:
                reasons.add(postponed.exchange.reason)
                after_s.append(postponed.exchange.retry_after_s or 0)

        await asyncio.gather(*(one(str(n)) for n in range(20)))
        assert reasons == {"busy"}
        return passed, after_s

    passed, after_s = asyncio.run(main())

    assert 1 <= len(passed) <= 2
    assert len(passed) + len(after_s) == 20
    assert min(after_s) >= 1


@pytest.mark.parametrize(
    ("guess_s", "fields", "after_s"),
    [
        (3_600.0, {"max_concurrency": 1}, 10),
        (7.0, {"max_concurrency": 1}, 7),
        (0.0, {"max_concurrency": 1, "max_per_second": 1}, 20),
    ],
)
def test_a_guess_sends_nothing_back_for_long_but_a_rate_is_certain(
    monkeypatch: pytest.MonkeyPatch, guess_s: float, fields: dict[str, Any], after_s: int
) -> None:
    """Twenty wait for the only slot; who comes now is told when to come again."""
    monkeypatch.setattr(Pace, "wait_s", lambda self, waiting, slots, now: guess_s)

    async def main() -> int | None:
        gate = Gate(subscription(**fields), None)
        hang = asyncio.Event()

        async def request() -> None:
            async with gate.passing(0, math.inf):
                await hang.wait()

        requests = [asyncio.create_task(request()) for _ in range(20 if guess_s == 0.0 else 2)]
        await asyncio.sleep(0)
        with pytest.raises(Postponed) as caught:
            gate.check(0, 5.0)
        for one in requests:
            one.cancel()
        await asyncio.wait(requests)
        return caught.value.exchange.retry_after_s

    assert asyncio.run(main()) == after_s


def test_the_gate_knows_how_many_are_open_and_how_long_they_take() -> None:
    """Whether they end well or not."""

    async def main() -> None:
        gate = Gate(subscription(max_concurrency=2), None)
        for error in (None, ZeroDivisionError):
            with contextlib.suppress(ZeroDivisionError):
                async with gate.passing(0, math.inf):
                    assert gate.pace.open == 1
                    await asyncio.sleep(0.01)
                    if error is not None:
                        raise error
            assert gate.pace.open == 0
            assert gate.pace.wait_s(1_000, 2, time.monotonic()) >= 4.0

    asyncio.run(main())


@pytest.mark.parametrize(("before", "after"), [(16, 4), (4, 16)])
def test_a_change_of_concurrency_holds_at_once_and_stays(before: int, after: int) -> None:
    """Made while all slots are taken and others wait: nobody too many is let in, and nobody too few later."""

    async def main() -> list[int]:
        one = subscription(max_concurrency=before)
        gate = Gate(one, None)
        go_on, most, changed = asyncio.Event(), [0, 0], False

        async def request() -> None:
            async with gate.passing(0, math.inf):
                began_before = not changed
                most[changed] = max(most[changed], gate.pace.open)
                if began_before:
                    await go_on.wait()
                await asyncio.sleep(0.001)

        requests = [asyncio.create_task(request()) for _ in range(60)]
        await asyncio.sleep(0.01)
        gate.turn_to(replace(one, version=2, max_concurrency=after))
        changed = True
        await asyncio.sleep(0.01)
        go_on.set()
        await asyncio.gather(*requests)
        return most

    assert asyncio.run(main()) == [before, after]


def test_who_waits_for_a_slot_for_too_long_is_sent_back_while_the_request_in_it_hangs() -> None:
    """Nothing is known of the endpoint yet, so nobody could say before how long it would take."""

    async def main() -> tuple[str | None, str | None]:
        gate, hang = Gate(subscription(max_concurrency=1), None), asyncio.Event()

        async def request(within_s: float) -> None:
            async with gate.passing(0, within_s):
                await hang.wait()

        first, patient = asyncio.create_task(request(math.inf)), asyncio.create_task(request(TIMEOUT_SECONDS))
        await asyncio.sleep(0)
        with pytest.raises(Postponed) as caught:
            await asyncio.wait_for(request(0.05), TIMEOUT_SECONDS)
        assert gate.pace.open == 1, "the first one is still there"
        hang.set()
        await asyncio.gather(first, patient)
        await asyncio.wait_for(request(TIMEOUT_SECONDS), TIMEOUT_SECONDS)
        return caught.value.exchange.reason, caught.value.exchange.detail

    assert asyncio.run(main()) == ("busy", "no slot of the endpoint was free within 0.1 s")


def test_each_gives_up_at_its_own_time_and_the_others_keep_their_turn() -> None:
    """The one who came last is the first whose time is over; of those behind it nobody notices."""

    async def main() -> list[str]:
        slots, began, seen = Slots(1), time.monotonic(), list[str]()
        await slots.acquire()

        async def one(name: str, within_s: float) -> None:
            try:
                await slots.acquire(began + within_s)
            except TimeoutError:
                assert time.monotonic() >= began + within_s - 0.002, "the clock of the event loop is a little coarser"
                seen.append(f"{name} gave up")
            else:
                seen.append(f"{name} began")

        late = [("first", TIMEOUT_SECONDS), ("second", 0.1), ("third", math.inf), ("fourth", 0.05)]
        tasks = [asyncio.create_task(one(*known)) for known in late]
        await asyncio.wait({tasks[1], tasks[3]}, timeout=TIMEOUT_SECONDS)
        for task in (tasks[0], tasks[2]):
            slots.release()
            await asyncio.wait_for(task, TIMEOUT_SECONDS)
        slots.release()
        await asyncio.wait_for(slots.acquire(began), TIMEOUT_SECONDS)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slots.acquire(began), TIMEOUT_SECONDS)
        return seen

    assert asyncio.run(main()) == ["fourth gave up", "second gave up", "first began", "third began"]


def test_who_gives_up_waiting_takes_no_slot_with_it() -> None:
    """Neither one that still waited, nor one that was given its slot, or sent away, in the same moment."""

    async def main() -> None:
        slots = Slots(1)
        await slots.acquire()
        waiting = [asyncio.create_task(slots.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        slots.release()  # to the second one, which is cancelled before it knows
        waiting[1].cancel()
        await asyncio.wait_for(waiting[2], TIMEOUT_SECONDS)
        over = asyncio.create_task(slots.acquire(0.0))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.0, over.cancel)  # after the timer that sends it away
        await asyncio.wait({over}, timeout=TIMEOUT_SECONDS)
        slots.release()
        await asyncio.wait_for(slots.acquire(), TIMEOUT_SECONDS)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slots.acquire(), 0.01)

    asyncio.run(main())


# -- the dispatcher --------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURFEW_SECRET_TEST", SECRET)


Story = Callable[[Plant, list[tuple[int, str]], dict[str, int]], Any]


def play(story: Story, **fields: Any) -> list[tuple[int, str]]:
    """Run ``story(plant, received, say)`` against a receiver that answers ``say["status"]``; ``received`` are sequence
    and attempt of each request."""
    received: list[tuple[int, str]] = []
    say = {"status": 200}

    async def main() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            received.append(((await request.json())["data"]["sequence"], request.headers["curfew-attempt"]))
            return web.Response(status=say["status"])

        async with answering(answer) as url:
            endpoint = Webhook(url=url, secret_ref=SECRET_REF)
            client = sender()
            plant = Plant(subscription(webhook=endpoint, ordering="unordered", **fields), sender=client)
            await story(plant, received, say)
            await client.close()

    asyncio.run(main())
    return received


def findings(plant: Plant) -> list[Finding]:
    return [plant.codec.decode(one.value, Finding) for one in plant.outputs if one.topic == FINDINGS]


def test_an_attempt_that_another_worker_had_begun_has_failed_and_is_not_made_again() -> None:
    """Its row is there and no result: it counts, and the next one has the next number."""
    results: list[Result] = []

    async def story(plant: Plant, received: list[tuple[int, str]], say: dict[str, int]) -> None:
        [attempt] = plant.attempts(plant.feed(event(1)))
        row = made.encode(made.Made(at_ms=0))
        plant.rows_made.write([(made.made_key(attempt.attempt_id), row)], None)
        results.extend(await plant.dispatch([attempt]))
        plant.chunk("delivery.results", [(None, plant.codec.encode("delivery.results", results[0]), [])])
        await plant.run(plant.attempts(plant.tick(6)))

    received = play(story)

    assert [(one.verdict, one.reason) for one in results] == [(Verdict.FAILED, "interrupted")]
    assert received == [(1, "2")]


def test_an_attempt_that_two_chunks_ask_for_before_either_is_durable_is_made_once() -> None:
    """As after a crash of the delivery worker, which asks again; all chunks end, also when the first is thrown away."""
    ended: list[int] = []

    async def story(plant: Plant, received: list[tuple[int, str]], say: dict[str, int]) -> None:
        first, second = plant.attempts(plant.feed(event(1, "A1"), event(2, "A2")))
        for attempts, thrown_away in (([first], False), ([second], True)):
            chunks = [plant.handling(attempts), plant.handling(attempts)]
            for chunk in chunks:
                await anext(chunk)
            if thrown_away:
                await chunks[0].aclose()
                chunks.append(plant.handling(attempts))
            done = await asyncio.wait_for(asyncio.gather(*map(_to_its_end, chunks)), TIMEOUT_SECONDS)
            ended.append(len(done))

    received = play(story)

    assert ended == [2, 3]
    assert received == [(1, "1"), (2, "1")]


async def _to_its_end(chunk: AsyncIterator[None]) -> None:
    async for _ in chunk:
        pass


def test_a_worker_whose_partition_is_gone_sends_nothing() -> None:
    """It has read the attempts and has written their rows; the guard right before the request refuses."""
    refused: list[bool] = []

    async def story(plant: Plant, received: list[tuple[int, str]], say: dict[str, int]) -> None:
        def guard() -> None:
            raise Abandoned

        plant.guard = guard
        try:
            await plant.dispatch(plant.attempts(plant.feed(event(1))))
        except Abandoned:
            refused.append(True)

    received = play(story)

    assert refused == [True]
    assert received == []


def test_an_open_breaker_sends_back_uncounted_and_one_probe_closes_it() -> None:
    """Of what is due after the pause one request goes out; when it succeeds all others follow."""
    reasons: list[tuple[Verdict, str | None]] = []

    async def story(plant: Plant, received: list[tuple[int, str]], say: dict[str, int]) -> None:
        say["status"] = 500
        attempts = plant.attempts(plant.feed(*(event(n, f"A{n}") for n in range(30))))
        for one in attempts[:OPEN_AFTER]:
            await plant.dispatch([one])
        results = await plant.dispatch(attempts[OPEN_AFTER:])
        reasons.extend((one.verdict, one.reason) for one in results)
        assert len(received) == OPEN_AFTER
        assert all(one.retry_after_s == 5 for one in results)
        plant.clock.at = plant.clock.at.replace(second=6)
        say["status"] = 200
        probes = await plant.dispatch(attempts[OPEN_AFTER : OPEN_AFTER + 5])
        assert sorted(one.verdict for one in probes) == [Verdict.DELIVERED, *[Verdict.POSTPONED] * 4]
        rest = await plant.dispatch(attempts[OPEN_AFTER + 5 :])
        assert {one.verdict for one in rest} == {Verdict.DELIVERED}

    play(story, max_concurrency=1)

    assert reasons == [(Verdict.POSTPONED, "breaker")] * 20


def test_a_disabled_endpoint_is_told_and_gets_nothing_until_it_is_resumed() -> None:
    """410: one event for operators with all its facts, no further request, the units are kept with their attempts."""
    told: list[Finding] = []

    async def story(plant: Plant, received: list[tuple[int, str]], say: dict[str, int]) -> None:
        say["status"] = 410
        attempts = plant.attempts(plant.feed(*(event(n, f"A{n}") for n in range(4))))
        await plant.run(attempts[:1])
        await plant.run(attempts[1:])
        await plant.run(plant.attempts(plant.tick(3_600)))
        told.extend(findings(plant))
        assert len(received) == 1
        plant.restart_dispatcher(plant.maker._sender)
        await plant.run(plant.attempts(plant.feed(event(9, "A9"))))
        assert len(received) == 1
        say["status"] = 200
        live = plant.catalogue.subscriptions["crm"]
        plant.catalogue.subscriptions["crm"] = replace(live, version=live.version + 1)
        plant.catalogue.changes += 1
        await plant.run(plant.attempts(plant.tick(60)))

    received = play(story)

    assert sorted(received[1:]) == [(0, "2"), (1, "1"), (2, "1"), (3, "1"), (9, "1")]
    [finding] = told
    assert finding.type == "subscription.disabled"
    assert set(finding.facts) == set(CATALOGUE[finding.type].facts)
    assert (finding.facts["name"], finding.facts["status"], finding.facts["percent"]) == ("crm", 410, 100)


def test_chunks_side_by_side_and_repeated_make_each_attempt_once() -> None:
    """The same attempts in two chunks at the same time: one request each, and a result for whoever asks."""

    async def story(plant: Plant, received: list[tuple[int, str]], say: dict[str, int]) -> None:
        attempts: list[Attempt] = plant.attempts(plant.feed(*(event(n, f"A{n}") for n in range(20))))
        one, two = await asyncio.gather(plant.dispatch(attempts), plant.dispatch(attempts))
        assert {result.unit_id for result in one + two} == {attempt.unit_id for attempt in attempts}
        assert all(result.verdict is Verdict.DELIVERED for result in one + two)

    received = play(story)

    assert sorted(received) == [(n, "1") for n in range(20)]
