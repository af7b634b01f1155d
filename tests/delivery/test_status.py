"""What `subscriptions show` tells of how a subscription fares, from the rows that real handlers have written."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from agents.delivery.subscription_status import _slim, statuses
from streams.core.delivery import made, units
from streams.core.delivery.endpoint import Health
from streams.core.delivery.messages import Verdict
from streams.core.delivery.status import Status
from streams.core.subscriptions import Subscription, Webhook
from tests.delivery.plant import Plant, event, subscription
from tests.delivery.receiving import SECRET, SECRET_REF, sender
from tests.delivery.test_redrive import fails
from tests.delivery.test_replay import command, replay

KINDS = (units.UNIT, units.ENDPOINT, units.LANE)


def shown(plant: Plant, name: str = "crm") -> Status:
    """As the commands read it."""
    one: Subscription = plant.catalogue.subscriptions[name]
    rows = {(0, key): _slim(key, value) for key, value in plant.store.scan(b"") if key.startswith(KINDS)}
    health = {(0, key): value for key, value in plant.rows_made.scan(made.ENDPOINT)}
    now_ms = int(plant.clock.at.timestamp() * 1000)
    return statuses(plant.catalogue.subscriptions.values(), rows, health, now_ms)[one.id]


def test_nothing_happened_yet_is_active_with_nothing_to_tell() -> None:
    found = shown(Plant(subscription()))

    assert (found.state, found.reason, found.endpoint) == ("active", None, None)
    assert (found.waiting, found.retrying, found.in_flight, found.oldest_accepted_at) == (0, 0, 0, None)


def test_the_failures_of_one_subscription_are_not_those_of_another() -> None:
    """`subscriptions list` reads the rows of all at once."""
    plant = Plant(subscription(schedule_s=(0, 60)), subscription(name="other", id="other-id"))
    crm = [one for one in plant.attempts(plant.feed(event(1, "A1"))) if one.subscription == "crm"]
    plant.answer(crm, fails(1))

    assert (shown(plant).state, shown(plant).reason) == ("failing", "http_500")
    assert (shown(plant, "other").state, shown(plant, "other").reason) == ("active", None)


def test_what_waits_is_told_apart_from_what_is_retried_and_from_replays() -> None:
    """One in flight, one that failed, one behind it in its key, and a replay."""
    plant = Plant(subscription(schedule_s=(0, 60)))
    plant.answer(plant.attempts(plant.feed(event(1, "A1"), event(2, "A1"))), fails(1))
    plant.feed(event(3, "A3"))
    replay(plant, command(plant, event(9, "A9")))

    found = shown(plant)

    assert (found.waiting, found.retrying, found.in_flight, found.replays) == (1, 1, 2, 1)
    assert (found.state, found.reason, found.failing_units) == ("failing", "http_500", {"http_500": 1})
    assert found.next_retry_at is not None
    assert found.next_retry_at >= plant.clock.at.replace(minute=1)


def test_paused_by_a_person_and_parked_keys_are_told() -> None:
    plant = Plant(subscription(schedule_s=(0,)))
    plant.answer(plant.attempts(plant.feed(event(1), event(2))), fails(1))
    plant.apply(replace(plant.catalogue.subscriptions["crm"], paused=True))

    found = shown(plant)

    assert (found.state, found.parked_keys, found.waiting) == ("paused", 1, 1)
    assert found.reason is not None
    assert "subscriptions resume crm" in found.reason


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://127.0.0.1/", "address_refused: ClientConnectorError: "),
        ("https://169.254.169.254/latest/meta-data", "169.254.169.254 is link-local"),
        ("https://[::ffff:10.0.0.1]/", "10.0.0.1 is private"),
        ("http://example.com/", "url_refused: url "),
    ],
)
def test_a_refused_address_and_why_it_is_refused_stand_in_the_status(
    url: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In production mode; no request leaves."""
    monkeypatch.setenv("CURFEW_SECRET_TEST", SECRET)
    guarded = sender(development=False)
    plant = Plant(subscription(webhook=Webhook(url=url, secret_ref=SECRET_REF)), sender=guarded)

    async def attempt() -> None:
        [result] = await plant.dispatch(plant.attempts(plant.feed(event(1))))
        assert result.verdict is Verdict.FAILED
        await guarded.close()

    asyncio.run(attempt())

    found = shown(plant)
    assert found.state == "failing"
    assert found.reason is not None
    assert words in found.reason
    assert found.endpoint is not None
    assert (found.endpoint.breaker, found.endpoint.failures_in_a_row) == ("closed", 1)
    assert found.endpoint.last_failure_at is not None


def test_a_breaker_a_disabled_endpoint_and_its_repair_are_told() -> None:
    """Open until an instant, then half open; disabled with the reason; a newer version begins anew."""
    plant = Plant(subscription())
    wanted = plant.catalogue.subscriptions["crm"]
    now_ms = int(plant.clock.at.timestamp() * 1000)
    failing = Health(
        subscription_id=wanted.id, subscription="crm", version=1, failures=12, failing_since_ms=now_ms - 9_000,
        openings=1, open_until_ms=now_ms + 4_000, last_failure_ms=now_ms, last_reason="timeout",
        last_detail="no answer within 15 s", last_success_ms=now_ms - 60_000,
    )  # fmt: skip

    def told(health: Health) -> Status:
        plant.rows_made.write([(made.endpoint_key(wanted.id), made.encode(health))], None)
        return shown(plant)

    opened = told(failing).endpoint
    half = told(replace(failing, open_until_ms=now_ms)).endpoint
    disabled = told(replace(failing, disabled_ms=now_ms))
    plant.apply(replace(wanted, paused=True))
    plant.apply(replace(wanted, paused=False))
    resumed = shown(plant)

    assert opened is not None
    assert half is not None
    assert (opened.breaker, opened.open_until is not None) == ("open", True)
    assert (half.breaker, half.open_until) == ("half_open", None)
    assert disabled.state == "disabled"
    assert disabled.reason is not None
    assert disabled.reason.startswith("12 failures in a row, the last: timeout: no answer within 15 s; correct it")
    assert (resumed.state, resumed.reason) == ("active", None)
    assert resumed.endpoint is not None
    assert resumed.endpoint.last_success_at == opened.last_success_at


def test_a_receiver_that_answered_410_is_disabled_by_its_own_word() -> None:
    plant = Plant(subscription())
    [attempt] = plant.attempts(plant.feed(event(1)))
    plant.fail(attempt, status=410, reason="http_410")

    found = shown(plant)

    assert found.state == "disabled"
    assert found.reason is not None
    assert "asked for no more (410)" in found.reason
