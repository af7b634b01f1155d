"""E-mails to subscribers: who gets one, what is in it, what an answer means. The server is a real SMTP server."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from email import message_from_string, policy
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from streams.core.delivery.messages import Verdict
from streams.core.delivery.recipients import is_address, recipients
from streams.core.subscription_rules import Known, problems
from streams.core.subscriptions import Email, Subscription
from streams.filters import CelLanguage
from streams.sinks import email as email_sink
from streams.sinks.email import EmailSender
from streams.sinks.email_templates import Templates
from streams.sinks.smtp import MailServer
from streams.sinks.webhook import Exchange
from tests.delivery.plant import Plant, SetClock, event, subscription
from tests.watchdog.mail_server import MailServer as SmtpServer
from tests.watchdog.mail_server import mail_server

MAIL = Email(subject="{service.name} is {event.type}", to=("ops@example.com",), to_parameters=("account.email",))


def mails(email: Email = MAIL, **fields: Any) -> Subscription:
    return subscription("mails", email=email, **fields)


def known(directory: Path | None = None) -> Known:
    return Known(
        queues=("customer-events",),
        development=True,
        language=CelLanguage(),
        templates=Templates(directory).uses(),
    )


def sender(server: str | None, directory: Path | None = None) -> EmailSender:
    return EmailSender(
        server=None if server is None else MailServer(server),
        sender="Curfew <curfew@billing.example>",
        templates=Templates(directory),
        clock=SetClock(),
    )


@pytest.fixture
def server() -> Iterator[SmtpServer]:
    with mail_server() as running:
        yield running


def test_every_address_is_a_recipient_once() -> None:
    """Fixed ones and those in parameters; the same address in another case is the same mailbox."""
    addresses = "ann@example.com, OPS@example.com,bob@example.com"

    found = recipients(mails(), event(1, parameters={"account.email": addresses}))

    assert found == ("ops@example.com", "ann@example.com", "bob@example.com")


@pytest.mark.parametrize(
    "text", ["", "ann", "ann@", "@b", "a b@c.d", "a@b.c\nBcc: x@y.z", "<a@b.c>", "a@b.c,d@e.f", "ä@b.c", "a@b.c\r"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    assert not is_address(text)


def test_each_recipient_is_a_unit_that_waits_for_itself_only() -> None:
    """One address that fails holds up its own later mails, not those of the other one."""
    plant = Plant(mails())
    both = {"account.email": "ann@example.com"}

    first = plant.attempts(plant.feed(event(1, parameters=both)))
    [ann] = [one for one in first if one.recipient == "ann@example.com"]
    [ops] = [one for one in first if one.recipient == "ops@example.com"]
    plant.settle(ops)
    plant.settle(ann, Verdict.FAILED)
    second = plant.attempts(plant.feed(event(2, parameters=both)))

    assert ann.unit_id != ops.unit_id
    assert [one.recipient for one in second] == ["ops@example.com"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [(None, "no_recipient"), ("not an address", "bad_address"), ("a@b.c\nBcc: x@y.z", "bad_address")],
)
def test_an_event_without_an_address_is_a_dead_letter_at_once(value: str | None, reason: str) -> None:
    """Nothing is sent, and somebody can see why."""
    plant = Plant(mails(Email(subject="s", to_parameters=("account.email",))))

    outputs = plant.feed(event(1, parameters={"account.email": value}))

    assert plant.attempts(outputs) == []
    [letter] = [one for one in outputs if one.topic == "dead-letters.delivery"]
    assert reason in str(dict(letter.headers or []))


def send(mailer: EmailSender, one: Subscription, **fields: Any) -> Exchange:
    try:
        return asyncio.run(mailer.send(one, "unit-1", "ann@example.com", event(1, **fields)))
    finally:
        mailer.close()


def test_a_mail_has_text_and_html_with_the_values_of_the_parameters(server: SmtpServer) -> None:
    """The message that arrives, as a mail program reads it; HTML is escaped, other recipients are not in it."""
    parameters = {"service.name": "Line <1> & more", "account.email": "x@y.z"}

    exchange = send(sender(server.url), mails(), parameters=parameters)

    assert exchange.verdict is Verdict.DELIVERED
    mail = message_from_string(server.mails[0], policy=policy.default)
    assert isinstance(mail, EmailMessage)
    plain, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert (mail["To"], mail["Subject"]) == ("ann@example.com", "Line <1> & more is service.state_transitioned")
    assert (mail["From"], mail["Message-ID"]) == ("Curfew <curfew@billing.example>", "<unit-1@billing.example>")
    assert "service.name: Line <1> & more" in plain.get_content()
    assert "Line &lt;1&gt; &amp; more" in html.get_content()
    assert "x@y.z" not in server.mails[0]


def test_a_template_of_the_directory_is_used(server: SmtpServer, tmp_path: Path) -> None:
    """By the parameters' own names."""
    (tmp_path / "hello.txt").write_text("Dear {{ account.name }}, {{ service.name }} is {{ facts.to }}.")
    one = mails(Email(subject="s", to=("ann@example.com",), template="hello"))

    send(sender(server.url, tmp_path), one, parameters={"service.name": "Line 1", "account.name": None})

    mail = message_from_string(server.mails[0], policy=policy.default)
    assert mail.get_content().strip() == "Dear , Line 1 is Suspended."


@pytest.mark.parametrize("line", ["{service.name}", "Hello {service.name}"])
def test_a_value_cannot_add_a_header(server: SmtpServer, line: str) -> None:
    """Refused for ever, before anything is sent."""
    one = mails(Email(subject=line, to=("ann@example.com",)))

    exchange = send(sender(server.url), one, parameters={"service.name": "x\r\nBcc: everybody@example.com"})

    assert (exchange.verdict, exchange.reason) == (Verdict.PERMANENT, "header_refused")
    assert server.mails == []


@pytest.mark.parametrize("name", ["type", "event_id"])
def test_an_event_cannot_add_a_header(server: SmtpServer, name: str) -> None:
    """Anybody may write to a queue."""
    one = mails(Email(subject="s", to=("ann@example.com",)))

    exchange = send(sender(server.url), one, **{name: "x\nBcc: y@z.example"})

    assert (exchange.verdict, exchange.reason) == (Verdict.PERMANENT, "header_refused")
    assert server.mails == []


def test_a_mail_that_finds_no_session_in_time_goes_back_and_is_guarded_right_before_it_leaves(
    server: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another one is being handed over nothing has been asked yet whether this worker may still send."""
    monkeypatch.setattr(email_sink, "MAX_SESSIONS", 1)
    guarded: list[tuple[str, int]] = []

    def note(unit: str) -> None:
        guarded.append((unit, len(server.mails)))

    async def main() -> list[Exchange]:
        one, mail = sender(server.url), mails()
        sending = [
            one.send(mail, unit, "a@b.c", event(1), begin_within_s=within_s, guard=partial(note, unit))
            for unit, within_s in (("first", math.inf), ("late", 0.0), ("patient", math.inf))
        ]
        found = await asyncio.gather(*sending)
        one.close()
        return found

    exchanges = asyncio.run(main())

    assert [exchange.verdict for exchange in exchanges] == [Verdict.DELIVERED, Verdict.POSTPONED, Verdict.DELIVERED]
    assert exchanges[1].reason == "busy"
    assert guarded == [("first", 0), ("patient", 1)], "with the mails that the server had then"


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [("451 later", Verdict.FAILED), ("550 no such mailbox", Verdict.PERMANENT)],
)
def test_a_server_that_says_4xx_is_asked_again_and_5xx_is_final(
    server: SmtpServer, answer: str, verdict: Verdict
) -> None:
    """With the server's words for people."""
    server.answer = answer

    exchange = send(sender(server.url), mails())

    assert (exchange.verdict, exchange.status) == (verdict, int(answer[:3]))
    assert exchange.reason == f"smtp_{answer[:3]}"
    assert exchange.body == answer[4:]


def test_no_server_no_template_and_a_dead_server_are_tried_again() -> None:
    """What an operator can repair is no reason to give a mail up."""
    nowhere = send(sender(None), mails())
    unknown = send(sender("smtp://127.0.0.1:1"), mails(Email(subject="s", to=("a@b.c",), template="nope")))
    dead = send(sender("smtp://127.0.0.1:1"), mails())

    assert [one.verdict for one in (nowhere, unknown, dead)] == [Verdict.FAILED] * 3
    assert [one.reason for one in (nowhere, unknown, dead)] == ["no_mail_server", "no_template", "connection"]


def test_a_template_cannot_reach_into_python(server: SmtpServer, tmp_path: Path) -> None:
    """The sandbox refuses; the mail is dead, the worker lives."""
    (tmp_path / "evil.txt").write_text("{{ event.__class__.__mro__ }}")

    exchange = send(sender(server.url, tmp_path), mails(Email(subject="s", to=("a@b.c",), template="evil")))

    assert (exchange.verdict, exchange.reason) == (Verdict.PERMANENT, "template_failed")
    assert server.mails == []


@pytest.mark.parametrize(
    ("email", "words"),
    [
        (Email(subject="s"), ("nobody would get it", "to_parameters")),
        (Email(subject="s", to=("Ann <ann@example.com>",)), ("is no address", "without a display name")),
        (Email(subject="a\nb", to=("a@b.c",)), ("email.subject", "one line")),
        (Email(subject="s", to_parameters=("account.mail",)), ("account.mail", "nearest names", "account.email")),
        (Email(subject="{servce.name}", to=("a@b.c",)), ("email.subject: servce.name", "service.name")),
        (Email(subject="{account.locale}", to=("a@b.c",)), ("account.locale is not asked for", "parameters")),
        (Email(subject="s", to=("a@b.c",), template="evnt"), ("no template 'evnt'", "did you mean 'event'")),
        (Email(subject="s", to=("a@b.c",), template="wrong"), ("template wrong", "service.nam ", "service.name")),
        (Email(subject="s", to=("a@b.c",), template="whole"), ("'nonsense' is nothing that a message can show",)),
    ],
)
def test_a_wrong_mail_is_refused_when_it_is_saved(tmp_path: Path, email: Email, words: tuple[str, ...]) -> None:
    """The message names field, reason and remedy."""
    (tmp_path / "wrong.txt").write_text("{{ service.nam }}")
    (tmp_path / "whole.html").write_text("{{ nonsense }}")
    (tmp_path / "whole.txt").write_text("fine")

    found = problems(mails(email, event_types=("service.state_transitioned",)), known(tmp_path))

    assert len(found) == 1, found
    for word in words:
        assert word in found[0]


def test_a_correct_mail_can_be_saved() -> None:
    assert problems(mails(event_types=("service.*",)), known()) == []
