"""Notices reach people over the wire: signed webhooks and mail, a bounded number of times."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest

import agents.watchdog.notify as notify
from agents.watchdog.book import Book
from agents.watchdog.notify import Message, Notifier
from streams.core.errors import Misconfigured
from streams.settings import Settings
from tests.delivery.receiving import SECRET, SECRET_REF, RunningReceiver, receiver
from tests.watchdog.mail_server import mail_server

MESSAGE = Message(
    notice_id="9c1f2f9e-52c5-5a3b-8b6f-0d5b2c0f7a11", type="watchdog.at_risk", at=datetime(2018, 11, 3, 22, tzinfo=UTC),
    subject_kind="deadline", subject_id="2018-11-04T03:00:00.000Z", sequence=1, summary="20 rate plan changes at risk",
    detail="nothing moves", remedy="curfew lag", facts={"open": 20, "reason": "stalled"},
)  # fmt: skip


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    made = Book.open(tmp_path / "book")
    yield made
    made.close()


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningReceiver]:
    monkeypatch.setenv("CURFEW_SECRET_TEST", SECRET)
    with receiver(tmp_path) as running:
        yield running


def settings(**fields: Any) -> Settings:
    return Settings(watchdog_webhook_secret=SECRET_REF, **fields)


def pump(book: Book, made: Settings, *messages: Message, times: int = 1) -> None:
    """A notifier's life: it is told these messages and makes what attempts are due."""

    async def run() -> None:
        notifier = Notifier(made, book)
        with book.page():
            for message in messages:
                notifier.notify(message)
        for _ in range(times):
            await notifier.pump()
        await notifier.close()

    asyncio.run(run())


def test_a_notice_goes_out_signed_and_by_mail(book: Book, people: RunningReceiver) -> None:
    """Both channels, once, also when it is told again: the id is the notice."""
    with mail_server() as server:
        made = settings(
            watchdog_webhook_url=people.url,
            smtp_url=server.url,
            watchdog_mail_to=("night@isp.example", "b@isp.example"),
        )
        pump(book, made, MESSAGE, MESSAGE, times=2)

    [received] = people.received()
    [mail] = [message_from_string(text) for text in server.mails]
    assert (received["verified"], received["type"], received["key"]) == (True, MESSAGE.type, MESSAGE.subject_id)
    assert (mail["to"], mail["subject"]) == ("night@isp.example, b@isp.example", f"[curfew] {MESSAGE.summary}")
    assert mail["message-id"] == f"<{MESSAGE.notice_id}@curfew>"
    assert "What to do: curfew lag" in str(mail.get_payload())
    assert book.sending_counts() == {"webhook": {"sent": 1}, "mail": {"sent": 1}}


def test_a_channel_that_fails_is_tried_again_and_then_given_up(
    book: Book, people: RunningReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded; the other channel is not held up, and what went wrong is shown."""
    monkeypatch.setattr(notify, "PAUSES_S", (0.0, 0.0))
    with mail_server() as server:
        server.refuse = True
        made = settings(watchdog_webhook_url=people.url, smtp_url=server.url, watchdog_mail_to=("night@isp.example",))
        pump(book, made, MESSAGE, times=5)

    assert len(people.received()) == 1
    assert book.sending_counts() == {"webhook": {"sent": 1}, "mail": {"given_up": 1}}
    assert "451" in (book.last_error() or "")


def test_what_could_not_be_sent_is_sent_by_the_next_process(
    book: Book, people: RunningReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notice is in the book, under the same webhook-id."""
    monkeypatch.setattr(notify, "PAUSES_S", (0.0,) * 6)
    made = settings(watchdog_webhook_url=people.url)
    people.behave(fail_status=503)
    pump(book, made, MESSAGE)
    people.behave()
    pump(book, made)

    assert [(one["webhook_id"], one["status"], one["attempt"]) for one in people.received()] == [
        (f"msg_{MESSAGE.notice_id}", 503, 1),
        (f"msg_{MESSAGE.notice_id}", 200, 2),
    ]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            {"watchdog_webhook_url": "https://ops.example/", "watchdog_webhook_secret": "env:CURFEW_SECRET_NONE"},
            "not set",
        ),
        ({"watchdog_webhook_url": "https://ops.example/", "watchdog_webhook_secret": "env:HOME"}, "not allowed"),
        ({"watchdog_webhook_url": "http://ops.example/", "environment": "production"}, "use https"),
        ({"watchdog_mail_to": ("a@b.example",)}, "smtp_url is not"),
        ({"watchdog_mail_to": ("a@b.example",), "smtp_url": "mail.example:25"}, "smtp_url must be"),
    ],
)
def test_a_channel_that_can_never_work_is_refused_at_the_start(
    book: Book, fields: dict[str, Any], problem: str
) -> None:
    """Not found out in the night in which it is needed."""
    with pytest.raises(Misconfigured, match=problem):
        Notifier(Settings(**fields), book)


def test_a_webhook_to_the_inside_is_refused_in_production(book: Book, people: RunningReceiver) -> None:
    """The same guard as for subscriptions: the address of the socket decides."""
    made = settings(watchdog_webhook_url=people.url.replace("http", "https"), environment="production")
    pump(book, made, MESSAGE)

    assert people.received() == []
    assert "refused" in (book.last_error() or "")
