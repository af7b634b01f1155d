"""Subscriptions as data: what may be saved, what is refused and how, versions, and filters."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agents.configuration.subscriptions import read_subscriptions
from streams.codec import Codec, LocalIds, LocalSchemas
from streams.core.errors import Misconfigured
from streams.core.events import Audience
from streams.core.routing import Router
from streams.core.subscription_filter import Acceptance, asked
from streams.core.subscription_rules import Known, problems
from streams.core.subscriptions import Forward, Ordering, Subscription, Webhook, succeed
from streams.filters import CelLanguage
from tests.delivery.plant import START, event, forward, subscription

KNOWN = Known(queues=("customer-events", "billing-events", "partner"), development=False, language=CelLanguage())
ACCEPTANCE = Acceptance(CelLanguage())
GOOD = Webhook(url="https://crm.example/hook", secret_ref="env:CURFEW_SECRET_CRM")
EXAMPLE = Path(__file__).parents[2] / "docs/examples/subscriptions.toml"


def good(**fields: Any) -> Subscription:
    return subscription(**{"webhook": GOOD, **fields})


def test_the_example_in_the_docs_can_be_saved() -> None:
    """In development, with the queues of the manifest and the partner's."""
    known = replace(KNOWN, development=True)

    found = read_subscriptions(EXAMPLE, known, {}, START, lambda reference: None)

    assert list(found) == ["crm", "partner-copy"]
    assert found["crm"].ordering is Ordering.IN_ORDER
    assert found["partner-copy"].forward == Forward(queue="partner")
    codec = Codec(LocalIds(LocalSchemas()))
    for one in found.values():
        assert codec.decode(codec.encode("config.subscriptions", one), Subscription) == one


def test_a_correct_subscription_has_no_problems() -> None:
    """The table below changes one thing each."""
    assert problems(good(), KNOWN) == []
    assert problems(forward("copy", "customer-events", "partner"), KNOWN) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "CRM hook"}, ("name", "lower-case")),
        ({"queue": "custmer-events"}, ("no queue 'custmer-events'", "did you mean 'customer-events'")),
        ({"event_types": ("service.state_transition",)}, ("no event type", "service.state_transitioned")),
        ({"event_types": ("nothing.*",)}, ("no event type", "curfew events list")),
        (
            {"event_types": ("bill_run.started",), "parameters": ("service.name",)},
            ("service.name cannot be a parameter of bill_run.started", "bill_run only"),
        ),
        ({"parameters": ("nobody.name",)}, ("no event has 'nobody.name'",)),
        ({"filter": 'current == "x"'}, ("there is no current", "did you mean")),
        ({"filter": 'service.colour == "red"'}, ("filter", "there is no service.colour", "service.name")),
        (
            {"event_types": ("bill_run.started",), "filter": 'service.name == "x"'},
            ("filter on bill_run.started", "there is no service.name"),
        ),
        ({"audience": "everyone"}, ("audience", "customer, internal, all")),
        ({"schedule_s": ()}, ("0 attempts",)),
        ({"schedule_s": (0, 90_000)}, ("90000 s",)),
        ({"max_age_s": 0}, ("max_age_s",)),
        ({"max_concurrency": 1_000}, ("max_concurrency", "256")),
        ({"webhook": None}, ("action: 0 given",)),
        ({"forward": Forward(queue="partner")}, ("action: 2 given",)),
        ({"webhook": None, "forward": Forward(queue="customer-events")}, ("a loop",)),
        ({"webhook": None, "forward": Forward(queue="parner")}, ("no queue 'parner'", "did you mean 'partner'")),
        ({"webhook": replace(GOOD, url="http://crm.example/")}, ("webhook.url", "https")),
        ({"webhook": replace(GOOD, secret_ref="whsec_abc")}, ("webhook.secret_ref", "never the secret itself")),
        ({"webhook": replace(GOOD, previous_secret_ref="env:X")}, ("belong together",)),
        ({"webhook": replace(GOOD, allow_networks=("10.0.0.1/8",))}, ("no network",)),
        ({"webhook": replace(GOOD, allow_networks=("169.254.0.0/16",))}, ("cannot be allowed",)),
        ({"webhook": replace(GOOD, allow_networks=("0.0.0.0/0",))}, ("cannot be allowed",)),
    ],
)
def test_what_cannot_work_is_refused_with_the_remedy(fields: dict[str, Any], words: tuple[str, ...]) -> None:
    """One problem, which names the field and what to write instead."""
    wrong = replace(good(), **fields)

    found = problems(wrong, KNOWN)

    assert len(found) == 1, found
    for word in words:
        assert word in found[0]


def test_a_subscription_keeps_its_queue() -> None:
    """Its ledger belongs to one queue; another queue needs another name."""
    [problem] = problems(good(queue="billing-events"), KNOWN, existing=good())

    assert "cannot move" in problem


def test_a_change_makes_a_version_and_no_change_makes_none() -> None:
    """Id and creation stay for ever; the same file applied again changes nothing."""
    first = good()
    later = replace(good(), created_at=START + timedelta(days=1), parameters=("service.name",))

    second = succeed(first, later)

    assert (first.version, second.version) == (1, 2)
    assert (second.id, second.created_at) == (first.id, first.created_at)
    assert succeed(second, later) is second
    assert succeed(None, later).id != first.id


@pytest.mark.parametrize(
    ("fields", "accepted"),
    [
        ({}, True),
        ({"active": False}, False),
        ({"paused": True}, True),
        ({"event_types": ("service.state_transitioned",)}, True),
        ({"event_types": ("service.*",)}, True),
        ({"event_types": ("invoice.*", "account.status_changed")}, False),
        ({"audience": "customer"}, True),
        ({"audience": "internal"}, False),
        ({"filter": 'current.state in ["Suspended", "Closed"]'}, True),
        ({"filter": 'current.state == "Active"'}, False),
        ({"filter": 'facts.from == "Active" && account.currency == "EUR"'}, False),
        ({"filter": "account.amount == 12.5"}, True),
        ({"filter": "account.name == null"}, True),
        ({"filter": 'account_id == "A1" && audience == "customer"'}, True),
        ({"filter": 'account.name.startsWith("A")'}, False),
    ],
)
def test_a_filter_accepts_what_agrees_in_every_field(fields: dict[str, Any], accepted: bool) -> None:
    """Decimals compare without trailing zeros; what does not exist is null, and a filter without an answer says no."""
    one = event(1, parameters={"account.amount": Decimal("12.500000")}, audience=Audience.CUSTOMER)

    assert ACCEPTANCE.accepts(good(**fields), one) is accepted


def test_what_a_filter_compares_is_asked_for_as_a_parameter() -> None:
    """Otherwise the event would not carry it and the filter would never match."""
    wanted = asked(
        good(parameters=("service.name",), filter='account.currency == "EUR" && current.state == "x"'), ACCEPTANCE
    )

    assert wanted.parameters == ("service.name", "account.currency")
    assert Router([], [wanted], language=CelLanguage()).registered == frozenset()


def test_a_file_that_is_applied_again_undoes_no_pause_and_no_rotation(tmp_path: Path) -> None:
    """What a person did by a command stays, where the file does not speak of it; what the file says counts."""
    file = tmp_path / "subscriptions.toml"
    now = datetime.now(UTC)

    def applied(text: str, existing: dict[str, Subscription]) -> Subscription:
        file.write_text(
            f"""
            [[subscription]]
            name = "shop"
            queue = "partner"
            parameters = ["service.name"]
            {text}
            """
        )
        return read_subscriptions(file, KNOWN, existing, now, lambda reference: None)["shop"]

    old = '[subscription.webhook]\nurl = "https://shop.example/"\nsecret_ref = "env:OLD"'
    first = applied(old, {})
    assert first.webhook is not None
    webhook = replace(
        first.webhook, secret_ref="env:NEW", previous_secret_ref="env:OLD", previous_until=now + timedelta(days=1)
    )
    live = replace(first, version=3, paused=True, webhook=webhook)

    assert applied(old, {"shop": live}) is live
    assert applied(old.replace("OLD", "NEW"), {"shop": live}) is live
    assert applied(f"paused = false\n{old}", {"shop": live}) == replace(live, version=4, paused=False)
    third = applied(old.replace("OLD", "THIRD"), {"shop": live}).webhook
    assert third is not None
    assert (third.secret_ref, third.previous_secret_ref) == ("env:THIRD", None)


def test_a_file_with_mistakes_saves_nothing_and_names_them_all(tmp_path: Path) -> None:
    """Unknown fields with the nearest name, secrets that are not there, names used twice."""
    file = tmp_path / "subscriptions.toml"
    file.write_text(
        """
        [[subscription]]
        name = "a"
        queue = "partner"
        event_type = ["x"]

        [[subscription]]
        name = "b"
        queue = "partner"
        [subscription.webhook]
        url = "https://b.example/"
        secret_ref = "env:NOT_THERE"

        [[subscription]]
        name = "b"
        queue = "partner"
        id = "mine"
        """
    )

    with pytest.raises(Misconfigured) as refused:
        read_subscriptions(file, KNOWN, {}, datetime.now(UTC), lambda reference: f"{reference} is not set")

    text = str(refused.value)
    assert "subscription a: there is no field event_type; did you mean event_types?" in text
    assert "subscription b: env:NOT_THERE is not set" in text
    assert "there is no field id" in text
    assert "nothing was saved" in text
