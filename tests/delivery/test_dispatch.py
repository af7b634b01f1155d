"""The dispatcher's chunks: how long one may take when the receiver is slow."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from agents.delivery import dispatch
from streams.core.delivery import made
from streams.core.delivery.messages import Result, Verdict
from streams.core.errors import Transient
from streams.core.events import Event
from streams.core.subscriptions import Subscription, Webhook
from streams.sinks import webhook_body
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


@pytest.mark.parametrize("patience", ["1" + 20 * "0", "9" * 5_000, "\u00b2"])
def test_whatever_patience_a_receiver_asks_for_there_is_a_result(
    patience: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that no field can hold would end the worker, for all receivers, at each try anew."""
    monkeypatch.setenv("CURFEW_SECRET_TEST", SECRET)

    async def busy(request: web.Request) -> web.StreamResponse:
        return web.Response(status=429, headers={"retry-after": patience})

    async def main() -> list[Result]:
        async with answering(busy) as url:
            one = sender()
            plant = Plant(subscription(webhook=Webhook(url=url, secret_ref=SECRET_REF)), sender=one)
            results = await plant.dispatch(plant.attempts(plant.feed(event(1))))
            await one.close()
            return results

    assert [(one.verdict, one.status) for one in asyncio.run(main())] == [(Verdict.FAILED, 429)]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 \xff\xfe\r\n\r\n",
        b"HTTP/1.1 200 \xff\r\nna\xffme: \xff\r\n\r\n",
        b"\xff\xfe\xfd\r\n\r\n",
        b"HTTP/1.1 503 x\r\nretry-after: \xff\xff\r\ncontent-length: 2\r\n\r\n\xff\xff",
        b"HTTP/1.1 302 x\r\nlocation: \xff\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 x\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\n\xff\xff\xff",
    ],
)
def test_whatever_bytes_a_receiver_answers_there_is_a_result(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the error repeats bytes that are no text."""
    monkeypatch.setenv("CURFEW_SECRET_TEST", SECRET)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def main() -> list[Result]:
        async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
            port, one = server.sockets[0].getsockname()[1], sender()
            url = f"http://127.0.0.1:{port}/"
            plant = Plant(subscription(webhook=Webhook(url=url, secret_ref=SECRET_REF)), sender=one)
            results = await plant.dispatch(plant.attempts(plant.feed(event(1))))
            await one.close()
            return results

    assert len(asyncio.run(main())) == 1


def test_a_fault_of_ours_with_one_event_is_the_result_of_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a row, so it counts; the event of the same chunk that has no fault is delivered."""
    monkeypatch.setenv("CURFEW_SECRET_TEST", SECRET)
    render = webhook_body.render

    def broken(one: Event, subscription: Subscription) -> bytes:
        if one.account_id == "A1":
            raise ZeroDivisionError
        return render(one, subscription)

    monkeypatch.setattr(webhook_body, "render", broken)

    async def well(request: web.Request) -> web.StreamResponse:
        return web.Response()

    async def main() -> tuple[Plant, list[Result]]:
        async with answering(well) as url:
            one = sender()
            plant = Plant(subscription(webhook=Webhook(url=url, secret_ref=SECRET_REF)), sender=one)
            results = await plant.dispatch(plant.attempts(plant.feed(event(1, "A1"), event(1, "A2"))))
            await one.close()
            return plant, results

    plant, results = asyncio.run(main())

    assert sorted((one.verdict, one.reason, one.detail) for one in results) == [
        (Verdict.DELIVERED, None, None), (Verdict.FAILED, "internal", "ZeroDivisionError in the worker"),
    ]  # fmt: skip
    for result in results:
        row = plant.rows_made.get(made.made_key(result.attempt_id))
        assert row is not None
        assert made.decode_made(row).result is not None


def test_what_is_known_of_an_endpoint_is_written_again_when_it_could_not_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of one that is disabled nothing more would be written, and after a restart it would be called again."""
    monkeypatch.setenv("CURFEW_SECRET_TEST", SECRET)

    async def gone(request: web.Request) -> web.StreamResponse:
        return web.Response(status=410)

    async def main() -> tuple[Plant, bytes]:
        async with answering(gone) as url:
            one = sender()
            plant = Plant(subscription(webhook=Webhook(url=url, secret_ref=SECRET_REF)), sender=one)
            attempts = plant.attempts(plant.feed(event(1)))
            steps = plant.handling(attempts)
            await anext(steps)  # the row of the attempt
            await anext(steps)  # its result, and what is known of the endpoint: not made durable
            with pytest.raises(Transient):
                await steps.athrow(Transient("Kafka does not acknowledge"))
            assert len(await asyncio.wait_for(plant.dispatch(attempts), TIMEOUT_SECONDS)) == 1
            await one.close()
            return plant, made.endpoint_key(attempts[0].subscription_id)

    plant, key = asyncio.run(main())

    row = plant.rows_made.get(key)
    assert row is not None
    assert made.decode_health(row).disabled_ms is not None
