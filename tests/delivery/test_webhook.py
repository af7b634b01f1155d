"""Webhooks as a receiver sees them: signatures, failures, limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook as StandardWebhook

from streams.core.delivery.messages import Verdict
from streams.core.delivery.retries import MAX_RETRY_AFTER_S
from streams.core.events import Event
from streams.core.subscriptions import Subscription, Webhook
from streams.sinks import webhook, webhook_body, webhook_signature
from streams.sinks.secrets import SecretError, Secrets, key_bytes
from streams.sinks.webhook import Exchange, WebhookSender
from tests.delivery.plant import Plant, event, subscription
from tests.delivery.receiving import SECRET, SECRET_REF, RunningReceiver, receiver, sender

KNOWN_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KNOWN_BODY = b'{"test": 2432232314}'
UNIT = "11111111-2222-3333-4444-555555555555"


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURFEW_SECRET_TEST", SECRET)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningReceiver]:
    with receiver(tmp_path) as one:
        yield one


def to(url: str, **fields: Any) -> Subscription:
    return subscription(webhook=Webhook(url=url, secret_ref=SECRET_REF), **fields)


def test_the_known_answer_of_the_specification() -> None:
    """Secret, id, timestamp and body of the Standard Webhooks documentation give its signature."""
    key = key_bytes(KNOWN_SECRET, "test")

    signature = webhook_signature.sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, KNOWN_BODY)

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_during_a_rotation_both_secrets_verify_with_the_official_library() -> None:
    """Two signatures in one header; a third secret does not verify."""
    old, new = bytes(range(32)), bytes(range(1, 33))
    headers = webhook_signature.headers([new, old], "msg_1", datetime.now(UTC), KNOWN_BODY)

    for key in (old, new):
        StandardWebhook(key).verify(KNOWN_BODY, headers)
        assert webhook_signature.verify([key], headers, KNOWN_BODY, datetime.now(UTC))
    assert not webhook_signature.verify([bytes(32)], headers, KNOWN_BODY, datetime.now(UTC))
    assert not webhook_signature.verify([old], headers, KNOWN_BODY + b" ", datetime.now(UTC))
    late = datetime.now(UTC) + timedelta(minutes=6)
    assert not webhook_signature.verify([old], headers, KNOWN_BODY, late)


def test_the_body_is_compact_json_with_money_as_text_and_only_the_parameters_asked_for() -> None:
    """``{"type","timestamp","data"}``; decimals are strings without exponent; other parameters stay at home."""
    one = event(
        7, parameters={"invoice.amount": Decimal("12.500000"), "account.name": "Ana"}, missing=("account.name",)
    )

    body = webhook_body.render(one, subscription(parameters=("invoice.amount",)))

    message = json.loads(body)
    assert list(message) == ["type", "timestamp", "data"]
    assert message["type"] == "service.state_transitioned"
    assert message["timestamp"] == "2026-03-01T12:00:00.000Z"
    assert message["data"]["parameters"] == {"invoice.amount": "12.5"}
    assert message["data"]["missing"] == []
    assert b": " not in body


def test_a_real_receiver_verifies_every_delivery_with_the_official_library(running: RunningReceiver) -> None:
    """300 events through intake, dispatch and results: each verified, accepted once, and in order of its account."""
    plant = Plant(to(running.url), sender=sender())

    async def deliver() -> None:
        await plant.run(plant.attempts(plant.feed(*(event(n, f"A{n % 20}") for n in range(300)))))
        assert plant.dispatcher is not None
        await plant.maker._sender.close()

    asyncio.run(deliver())

    received = running.received()
    assert len(received) == 300
    assert all(one["verified"] and one["status"] == 200 and one["attempt"] == 1 for one in received)
    assert len({one["webhook_id"] for one in received}) == 300
    assert not any("." in one["webhook_id"] for one in received)
    for account in range(20):
        sequence = [one["sequence"] for one in received if one["key"] == f"A{account}"]
        assert sequence == sorted(sequence)
    assert plant.rows("unit/") == {}
    assert len(plant.rows("done/")) == 300


def test_a_receiver_that_fails_for_one_key_holds_up_that_key_only(running: RunningReceiver) -> None:
    """By the receiver's own log: others flow, the key's later events wait, after the repair the order is exact."""
    plant = Plant(to(running.url), sender=sender())
    running.behave(fail_status=500, fail_key="A1")

    async def deliver() -> None:
        await plant.run(plant.attempts(plant.feed(*(event(n, f"A{n % 3}") for n in range(30)))))
        assert {one["key"] for one in running.received() if one["status"] == 200} == {"A0", "A2"}
        assert [one["sequence"] for one in running.received() if one["key"] == "A1"] == [1]
        running.behave()
        await plant.run(plant.attempts(plant.tick(6)))
        assert plant.dispatcher is not None
        await plant.maker._sender.close()

    asyncio.run(deliver())

    accepted = [one for one in running.received() if one["status"] == 200]
    assert len(accepted) == 30
    assert [one["sequence"] for one in accepted if one["key"] == "A1"] == list(range(1, 30, 3))
    retried = [one for one in running.received() if one["key"] == "A1" and one["sequence"] == 1]
    assert [(one["attempt"], one["status"]) for one in retried] == [(1, 500), (2, 200)]
    assert len({one["webhook_id"] for one in retried}) == 1


def test_an_attempt_that_is_asked_for_twice_is_made_once(running: RunningReceiver) -> None:
    """The delivery worker crashed and asks again: the same result, without a second request."""
    plant = Plant(to(running.url), sender=sender())

    async def twice() -> list[Any]:
        attempts = plant.attempts(plant.feed(event(1)))
        results = [await plant.dispatch(attempts), await plant.dispatch(attempts)]
        assert plant.dispatcher is not None
        await plant.maker._sender.close()
        return results

    first, second = asyncio.run(twice())

    assert first == second
    assert len(running.received()) == 1


def test_a_restarted_dispatcher_sends_no_event_whose_predecessor_it_does_not_know(running: RunningReceiver) -> None:
    """The first of a train was sent by a process that died: the rest is postponed, since the first may have failed."""
    plant = Plant(to(running.url), sender=sender())
    train = plant.attempts(plant.feed(*(event(n) for n in range(5))))

    async def rest() -> list[Any]:
        results = await plant.dispatch(train[1:])
        assert plant.dispatcher is not None
        await plant.maker._sender.close()
        return results

    results = asyncio.run(rest())

    assert [(one.verdict, one.reason) for one in results] == [(Verdict.POSTPONED, "order")] * 4
    assert running.received() == []


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def against(answer: Answer, *, tries: int = 1, **fields: Any) -> list[Exchange]:
    """What the sender makes of a server that answers like this; ``{url}`` of one attempt after the other."""

    async def main() -> list[Exchange]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        client = sender()
        wanted = to(f"http://127.0.0.1:{runner.addresses[0][1]}/hook", **fields)
        try:
            return [await client.send(wanted, UNIT, number, event(1)) for number in range(1, tries + 1)]
        finally:
            await client.close()
            await runner.cleanup()

    return asyncio.run(main())


def test_a_redirect_is_a_failure_and_never_followed() -> None:
    """The place it points to sees nothing."""
    paths = []

    async def redirect(request: web.Request) -> web.StreamResponse:
        paths.append(request.path)
        raise web.HTTPFound("/elsewhere")

    [exchange] = against(redirect)

    assert (exchange.verdict, exchange.reason, exchange.status) == (Verdict.FAILED, "redirect", 302)
    assert paths == ["/hook"]


@pytest.mark.parametrize(
    ("status", "value", "seconds"),
    [
        (503, "120", 120),
        (429, "7", 7),
        (500, "120", None),
        (503, "soon", None),
        (503, None, None),
        (429, " 7 ", 7),
        (429, "1" + 20 * "0", MAX_RETRY_AFTER_S),
        (429, "9" * 5_000, MAX_RETRY_AFTER_S),
        (503, "86401", 86_400),
        (503, "\u00b2", None),
        (503, "-7", None),
        (503, "Mon, 01 Jan 0001 00:00:00 GMT", 0),
        (503, "Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER_S),
        (503, "Fri, 31 Dec 9999 23:59:59 -2359", MAX_RETRY_AFTER_S),
    ],
)
def test_retry_after_counts_with_429_and_503(status: int, value: str | None, seconds: int | None) -> None:
    """A number of seconds; anything unreadable is as if it were not there."""

    async def busy(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"retry-after": value} if value else {})

    [exchange] = against(busy)

    assert exchange.retry_after_s == seconds


def test_retry_after_may_be_a_date() -> None:
    """An HTTP date is taken as the distance from now."""

    async def busy(request: web.Request) -> web.StreamResponse:
        at = datetime.now(UTC) + timedelta(minutes=10)
        return web.Response(status=503, headers={"retry-after": at.strftime("%a, %d %b %Y %H:%M:%S GMT")})

    [exchange] = against(busy)

    assert exchange.retry_after_s is not None
    assert 300 < exchange.retry_after_s <= 600


def test_at_most_64_kib_of_an_answer_are_read() -> None:
    """A receiver that never stops talking is cut off, and its status still counts."""
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65_536)
                sent += 65_536
        except (ConnectionError, asyncio.CancelledError):
            return response

    [exchange] = against(endless)

    assert exchange.verdict is Verdict.DELIVERED
    assert exchange.body == "x" * webhook.MAX_RESULT_BODY
    assert sent < 100 * 1024 * 1024


def test_a_receiver_that_never_answers_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempt ends by the time-out, as a failure."""
    monkeypatch.setattr(webhook, "TIMEOUT_S", 0.2)

    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    [exchange] = against(silent)

    assert (exchange.verdict, exchange.reason, exchange.status) == (Verdict.FAILED, "timeout", None)


def test_a_busy_process_postpones_what_could_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request at a time, the first one lasts until the others may not begin any more: they were not sent."""
    monkeypatch.setattr(webhook, "MAX_OPEN", 1)
    seen = 0

    async def main() -> list[Exchange]:
        async def slow(request: web.Request) -> web.StreamResponse:
            nonlocal seen
            seen += 1
            await asyncio.sleep(0.2)  # all three have been asked for before this request came
            return web.Response()

        app = web.Application()
        app.router.add_post("/", slow)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        client = sender()
        wanted = to(f"http://127.0.0.1:{runner.addresses[0][1]}/")
        done = await asyncio.gather(
            *(
                client.send(wanted, UNIT, 1, event(n), begin_within_s=within_s)
                for n, within_s in enumerate((60, 0.1, 0.1))
            )
        )
        await client.close()
        await runner.cleanup()
        return list(done)

    verdicts = [exchange.verdict for exchange in asyncio.run(main())]

    assert verdicts == [Verdict.DELIVERED, Verdict.POSTPONED, Verdict.POSTPONED]
    assert seen == 1


def test_nobody_listening_is_a_failure_that_is_tried_again() -> None:
    """Connection refused is no reason to give up."""

    async def main() -> Exchange:
        client = sender()
        try:
            return await client.send(to("http://127.0.0.1:1/"), UNIT, 1, event(1))
        finally:
            await client.close()

    exchange = asyncio.run(main())

    assert (exchange.verdict, exchange.reason) == (Verdict.FAILED, "connection")


def test_a_body_over_20_kb_is_never_sent() -> None:
    """It is dead at once, whatever the receiver would say."""

    async def main() -> Exchange:
        client = sender()
        large: Event = replace(event(1), parameters={"service.name": "x" * 20_000})
        return await client.send(to("http://127.0.0.1:1/"), UNIT, 1, large)

    exchange = asyncio.run(main())

    assert (exchange.verdict, exchange.reason) == (Verdict.PERMANENT, "too_large")


def test_a_secret_that_is_not_there_fails_with_its_name_and_not_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator sees which variable is missing; the unit waits and is tried again."""
    monkeypatch.delenv("CURFEW_SECRET_TEST")

    async def main() -> Exchange:
        client: WebhookSender = sender()
        return await client.send(to("http://127.0.0.1:1/"), UNIT, 1, event(1))

    exchange = asyncio.run(main())

    assert (exchange.verdict, exchange.reason) == (Verdict.FAILED, "secret_unavailable")
    assert "CURFEW_SECRET_TEST" in (exchange.detail or "")


def test_secrets_outside_what_the_worker_allows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can write subscriptions can name no other variable and no file, and cannot climb out of a directory."""
    allowed, outside = tmp_path / "secrets", tmp_path / "outside"
    allowed.mkdir()
    outside.write_text(SECRET)
    (allowed / "crm").write_text(SECRET + "\n")
    monkeypatch.setenv("HOME_SECRET", SECRET)
    secrets = Secrets([f"file:{allowed}/*"])

    assert secrets.resolve(f"file:{allowed}/crm") == bytes(range(32))
    for reference in ("env:HOME_SECRET", f"file:{outside}", f"file:{allowed}/../outside", "exec:id"):
        with pytest.raises(SecretError) as refused:
            secrets.resolve(reference)
        assert SECRET not in str(refused.value)


@pytest.mark.parametrize("value", ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_c2hvcnQ="])
def test_a_weak_or_malformed_secret_is_refused_without_showing_it(value: str) -> None:
    """Missing prefix, empty, or shorter than 24 bytes."""
    with pytest.raises(SecretError) as refused:
        key_bytes(value, "env:X")
    assert "c2hvcnQ" not in str(refused.value)
    assert "MfKQ" not in str(refused.value)
