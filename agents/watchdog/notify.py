"""Tells people directly: a signed webhook and e-mail, not the pipeline that is being watched.

A notice is written into the book first and sent from there, with bounded attempts, so a crash between two channels
loses none; after a crash in the middle of an attempt it may come twice, with the same ``webhook-id``.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import structlog

from agents.watchdog.book import Book
from agents.watchdog.mail import Mailer
from agents.watchdog.sendings import Sending
from streams.core.delivery.messages import Verdict
from streams.core.errors import Misconfigured
from streams.core.events import Audience, Event
from streams.core.ids import instant_text
from streams.core.subscription_rules import url_problems
from streams.core.subscriptions import Subscription, Webhook
from streams.settings import Settings
from streams.sinks.secrets import SecretError, Secrets
from streams.sinks.webhook import WebhookSender

#: Seconds to wait after attempt 1, 2, 3, …; then a channel is given up for this notice (the alarm itself is repeated).
#: Over half an hour: longer, and an old alarm would come after the end of the danger.
PAUSES_S: Final = (5.0, 30.0, 120.0, 300.0, 600.0, 900.0)
WEBHOOK: Final = "webhook"
MAIL: Final = "mail"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What people get. ``type`` like ``watchdog.at_risk``; ``facts`` are plain JSON values, without secrets."""

    notice_id: str
    type: str
    at: datetime
    subject_kind: str
    subject_id: str
    sequence: int
    summary: str
    detail: str
    remedy: str
    facts: dict[str, str | int | bool | None]

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {**fields, "at": instant_text(self.at)}

    @classmethod
    def read(cls, plain: dict[str, Any]) -> Message:
        return cls(**{**plain, "at": datetime.fromisoformat(plain["at"])})

    def text(self) -> str:
        """The body of the e-mail."""
        facts = "\n".join(f"{name}: {'-' if value is None else value}" for name, value in self.facts.items())
        return (
            f"{self.summary}\n\n{self.detail}\n\n{facts}\n\nWhat to do: {self.remedy}\n\nat {instant_text(self.at)}\n"
        )


class _WallClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


class Notifier:
    """Raises Misconfigured when a channel is configured in a way that could never work."""

    def __init__(self, settings: Settings, book: Book, *, name: str = "watchdog") -> None:
        self._book = book
        self._name = name
        self._sender: WebhookSender | None = None
        self._subscription = _subscription(settings)
        self._mailer: Mailer | None = None
        if self._subscription is not None:
            self._sender = WebhookSender(
                secrets=Secrets(settings.webhook_secrets),
                clock=_WallClock(),
                development=settings.environment == "development",
                networks=settings.webhook_allow_networks,
            )
        if settings.watchdog_mail_to:
            if settings.smtp_url is None:
                raise Misconfigured("watchdog_mail_to is set, smtp_url is not: set it, like smtp://host:25")
            url = settings.smtp_url.get_secret_value()
            self._mailer = Mailer(url, settings.watchdog_mail_from, settings.watchdog_mail_to)
        if not self.channels:
            log.warning(f"{name}.nobody_to_tell", remedy="set watchdog_webhook_url, or watchdog_mail_to and smtp_url")

    @property
    def channels(self) -> tuple[str, ...]:
        """Those that are configured; the log is always one."""
        return (WEBHOOK,) * (self._sender is not None) + (MAIL,) * (self._mailer is not None)

    def notify(self, message: Message) -> None:
        """Log it and have it sent; call it inside a page of the book."""
        tell = log.warning if message.type.endswith(".recovered") else log.error
        tell(
            message.type,
            notice_id=message.notice_id,
            summary=message.summary,
            detail=message.detail,
            facts=message.facts,
        )
        self._book.queue(message.notice_id, self.channels, message.plain())

    async def pump(self) -> None:
        """Make the attempts that are due, all at once."""
        due = self._book.sendings(time.time())
        failures = await asyncio.gather(*(self._attempt(sending) for sending in due))
        for sending, failure in zip(due, failures, strict=True):
            self._note(sending, failure)

    async def _attempt(self, sending: Sending) -> str | None:
        """Why it failed, or None."""
        message = Message.read(sending.message)
        if sending.channel == WEBHOOK and self._sender is not None and self._subscription is not None:
            exchange = await self._sender.send(
                self._subscription, sending.notice_id, sending.attempts + 1, _event(message)
            )
            return None if exchange.verdict is Verdict.DELIVERED else f"{exchange.reason}: {exchange.detail}"
        if sending.channel == MAIL and self._mailer is not None:
            return await asyncio.to_thread(_mail, self._mailer, message)
        return f"{sending.channel} is not configured any more"

    def _note(self, sending: Sending, failure: str | None) -> None:
        wall, attempt = time.time(), sending.attempts + 1
        facts = {"notice_id": sending.notice_id, "channel": sending.channel, "attempt": attempt}
        if failure is None:
            state, next_at = "sent", wall
            log.info(f"{self._name}.sent", **facts)
        elif attempt > len(PAUSES_S):
            state, next_at = "given_up", wall
            log.error(f"{self._name}.not_sent", error=failure, **facts)
        else:
            state, next_at = "pending", wall + PAUSES_S[attempt - 1]
            log.warning(f"{self._name}.not_sent_yet", error=failure, again_in_s=PAUSES_S[attempt - 1], **facts)
        with self._book.page():
            self._book.attempted(sending, state=state, next_at=next_at, error=failure)

    async def close(self) -> None:
        if self._sender is not None:
            await self._sender.close()


def _subscription(settings: Settings) -> Subscription | None:
    """The receiver as the webhook sender wants it."""
    url = settings.watchdog_webhook_url
    if url is None:
        return None
    # The operator has set it, in the same place as the limits for subscriptions: its port is meant.
    port = urlsplit(url).port
    ports = () if port is None else (port,)
    problems = url_problems(url, development=settings.environment == "development", allow_ports=ports)
    if problems:
        raise Misconfigured(f"watchdog_webhook_url {problems[0]}")
    try:
        Secrets(settings.webhook_secrets).resolve(settings.watchdog_webhook_secret)
    except SecretError as error:
        raise Misconfigured(f"watchdog_webhook_secret: {error}") from None
    webhook = Webhook(
        url=url,
        secret_ref=settings.watchdog_webhook_secret,
        allow_networks=settings.webhook_allow_networks,
        allow_ports=ports,
    )
    return Subscription(name="watchdog", id="watchdog", version=1, created_at=_EPOCH, queue="", webhook=webhook)


def _event(message: Message) -> Event:
    return Event(
        event_id=message.notice_id,
        type=message.type,
        occurred_at=message.at,
        subject_kind=message.subject_kind,
        subject_id=message.subject_id,
        sequence=message.sequence,
        facts={"summary": message.summary, "detail": message.detail, "remedy": message.remedy, **message.facts},
        audience=Audience.INTERNAL,
        parameters={},
    )


def _mail(mailer: Mailer, message: Message) -> str | None:
    try:
        mailer.send(message.notice_id, f"[curfew] {message.summary}", message.text())
    except (OSError, ValueError) as error:  # ValueError: an address that no mail can have
        return f"{type(error).__name__}: {error}"
    return None
