"""The dispatcher's chunks: how long one may take when the receiver is slow."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from agents.delivery import dispatch
from streams.core.delivery import made
from streams.core.delivery.messages import Result, Verdict
from streams.core.errors import Transient
from streams.core.subscriptions import Webhook
from streams.topics import RESULTS
from tests.delivery.plant import Plant, event, forward, subscription
from tests.delivery.receiving import SECRET, SECRET_REF, answering, sender
from tests.support.kafka_io import TIMEOUT_SECONDS

#: Shorter than in production; the first of a train has to begin within it.
BEGIN_WITHIN_S = 2.0


def test_a_train_behind_a_slow_answer_is_not_begun_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time to begin is the chunk's and not each attempt's own: else 50 slow answers would hold a partition for
    minutes. What was not begun is sent by the next chunk, in its order, and has lost no attempt."""
    monkeypatch.setenv("CURFEW_SECRET_TEST", SECRET)
    usual = dispatch.BEGIN_WITHIN_S
    began: list[tuple[int, str]] = []

    async def main() -> list[list[Result]]:
        async def slow(request: web.Request) -> web.StreamResponse:
            began.append(((await request.json())["data"]["sequence"], request.headers["curfew-attempt"]))
            if len(began) == 1:  # the time to begin has run since before this request
                await asyncio.sleep(1.2 * BEGIN_WITHIN_S)
            return web.Response()

        async with answering(slow) as url:
            endpoint = Webhook(url=url, secret_ref=SECRET_REF)
            plant = Plant(subscription(webhook=endpoint), sender=sender())
            train = plant.attempts(plant.feed(*(event(n) for n in range(4))))
            monkeypatch.setattr(dispatch, "BEGIN_WITHIN_S", BEGIN_WITHIN_S)
            late = await plant.dispatch(train)
            monkeypatch.setattr(dispatch, "BEGIN_WITHIN_S", usual)
            settled = plant.chunk(RESULTS, [(None, plant.codec.encode(RESULTS, one), []) for one in late])
            next_chunk = await plant.dispatch(plant.attempts([*settled, *plant.tick(60)]))
            assert plant.dispatcher is not None
            await plant.maker._sender.close()
        return [late, next_chunk]

    late, next_chunk = asyncio.run(main())

    assert [(one.verdict, one.reason) for one in late] == [
        (Verdict.DELIVERED, None),
        (Verdict.POSTPONED, "busy"),
        (Verdict.POSTPONED, "order"),
        (Verdict.POSTPONED, "order"),
    ]
    assert [one.verdict for one in next_chunk] == [Verdict.DELIVERED] * 3
    assert began == [(0, "1"), (1, "1"), (2, "1"), (3, "1")]


def test_an_attempt_that_is_asked_for_again_as_soon_as_it_was_postponed_gets_a_result_too() -> None:
    """The chunk that postponed it is not finished yet when the next one asks: without a result of its own, the unit
    would be in flight for ever."""

    async def main() -> list[Result]:
        plant = Plant(subscription(), sender=sender())
        [_, second] = plant.attempts(plant.feed(event(0), event(1)))  # follows one that nobody has delivered
        first_chunk, again = plant.handling([second]), plant.handling([second])
        await anext(first_chunk)
        await anext(first_chunk)  # postponed, and about to become durable
        await anext(again)
        async for _ in first_chunk:
            pass
        async for _ in again:
            pass
        return [plant.codec.decode(one.value, Result) for one in plant.outputs if one.topic == RESULTS]

    results = asyncio.run(main())

    assert [(one.number, one.verdict, one.reason) for one in results] == [(1, Verdict.POSTPONED, "order")] * 2


def test_attempts_of_a_chunk_that_cannot_be_begun_whole_are_begun_when_it_comes_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two attempts, one of them made before: while its result cannot be encoded, the other must not count as begun."""
    plant = Plant(forward("copy", "customer-events", "partner"), sender=sender())
    new, known = (plant.attempts(plant.feed(event(1, account)))[0] for account in ("A1", "A2"))
    plant.rows_made.write([(made.made_key(known.attempt_id), made.encode(made.Made(at_ms=1)))], None)

    def away(_: Result) -> bytes:
        raise Transient("the schema registry cannot be reached")

    async def twice() -> list[Result]:
        with monkeypatch.context() as registry:
            registry.setattr(plant.dispatcher, "_result", away)
            with pytest.raises(Transient):
                await plant.dispatch([new, known])
        return await asyncio.wait_for(plant.dispatch([new, known]), TIMEOUT_SECONDS)

    results = asyncio.run(twice())
    assert {one.attempt_id: one.reason for one in results} == {new.attempt_id: None, known.attempt_id: "interrupted"}
