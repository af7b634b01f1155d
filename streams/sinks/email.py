"""E-mails to subscribers, one recipient and one attempt at a time."""

from __future__ import annotations

import asyncio
import smtplib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from math import inf
from typing import Final

from jinja2 import TemplateError, TemplateNotFound

from streams.core.delivery.messages import Verdict
from streams.core.email_subject import subject
from streams.core.errors import Poison
from streams.core.events import Event, Value
from streams.core.subscriptions import Email, Subscription
from streams.ports import Clock
from streams.sinks.email_templates import Templates
from streams.sinks.smtp import MailServer
from streams.sinks.webhook import MAX_RESULT_BODY, Exchange

#: Open sessions of one process; mail servers refuse those who open many more.
MAX_SESSIONS: Final = 16
PERMANENT_FROM: Final = 500


class EmailSender:
    """Sends by ``server`` (None: none is configured, every attempt fails) as ``sender``."""

    def __init__(self, *, server: MailServer | None, sender: str, templates: Templates, clock: Clock) -> None:
        self._server = server
        self._sender = sender
        self._templates = templates
        self._clock = clock
        #: In front of the threads, so that nothing has passed the guard and then waits for one.
        self._sessions = asyncio.Semaphore(MAX_SESSIONS)
        self._threads = ThreadPoolExecutor(max_workers=MAX_SESSIONS, thread_name_prefix="smtp")

    async def send(
        self,
        subscription: Subscription,
        unit_id: str,
        recipient: str,
        event: Event,
        *,
        begin_within_s: float = inf,
        replay: str | None = None,
        guard: Callable[[], None] = lambda: None,
    ) -> Exchange:
        """Make an attempt; every failure is an Exchange, only cancellation and ``guard`` raise.

        4xx and broken connections are tried again, 5xx never. ``guard`` is called right before the mail is handed over.
        ``replay`` marks a repetition that a person has asked for. If other mails leave no room within
        ``begin_within_s``, nothing is sent: ``postponed``.
        """
        latest = time.monotonic() + begin_within_s
        if self._server is None:
            detail = "the setting smtp_url of the dispatch worker is not set"
            return Exchange(verdict=Verdict.FAILED, reason="no_mail_server", detail=detail)
        try:
            mail = self.message(subscription, unit_id, recipient, event)
        except Poison as error:
            return Exchange(verdict=Verdict.PERMANENT, reason=error.reason, detail=error.detail)
        except TemplateNotFound as error:
            detail = f"there is no template {error.name} in the directory email_templates of the dispatch worker"
            return Exchange(verdict=Verdict.FAILED, reason="no_template", detail=detail)
        if replay is not None:
            mail["Curfew-Replay"] = replay
        async with self._sessions:
            if time.monotonic() > latest:
                detail = f"{MAX_SESSIONS} mails are being handed over"
                return Exchange(verdict=Verdict.POSTPONED, reason="busy", detail=detail)
            guard()
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._hand_over, self._server, mail)

    def message(self, subscription: Subscription, unit_id: str, recipient: str, event: Event) -> EmailMessage:
        """The mail. Raises Poison for what can never be sent, TemplateNotFound for a template that is not here."""
        email = subscription.email
        assert email is not None, f"{subscription.name} is no e-mail"
        shown, addresses = _parameters(subscription, email, event)
        mail = EmailMessage(policy=SMTP)
        line = subject(email.subject, event, {**addresses, **shown})
        if not line.isprintable():
            # A line break here would let a parameter's value write headers of its own.
            raise Poison("header_refused", "the subject would contain a line break or another control character")
        try:
            mail["From"], mail["To"], mail["Subject"] = self._sender, recipient, line
            if email.reply_to is not None:
                mail["Reply-To"] = email.reply_to
            mail["Curfew-Event-Id"], mail["Curfew-Event-Type"] = event.event_id, event.type
        except ValueError as error:
            raise Poison("header_refused", str(error)) from error
        mail["Date"] = format_datetime(self._clock.now())
        mail["Message-ID"] = f"<{unit_id}@{self._sender.rpartition('@')[2].rstrip('>')}>"
        mail["Auto-Submitted"] = "auto-generated"  # so that no holiday responder answers
        try:
            plain, html = self._templates.render(email.template, event, shown, addresses)
        except TemplateNotFound:
            raise
        except (TemplateError, ArithmeticError, TypeError, ValueError) as error:
            raise Poison("template_failed", f"{email.template}: {type(error).__name__}: {error}") from error
        mail.set_content(plain)
        if html is not None:
            mail.add_alternative(html, subtype="html")
        return mail

    def _hand_over(self, server: MailServer, mail: EmailMessage) -> Exchange:
        began = time.monotonic()
        try:
            with server.connect() as session:
                session.send_message(mail)
        except smtplib.SMTPAuthenticationError as error:  # our account, not this message
            return _failed("smtp_login", error.smtp_code, error.smtp_error, began, permanent=False)
        except smtplib.SMTPRecipientsRefused as error:
            code, words = next(iter(error.recipients.values()))
            return _failed(f"smtp_{code}", code, words, began, permanent=code >= PERMANENT_FROM)
        except smtplib.SMTPResponseException as error:
            code = error.smtp_code
            return _failed(f"smtp_{code}", code, error.smtp_error, began, permanent=code >= PERMANENT_FROM)
        except OSError as error:
            detail = f"{type(error).__name__}: {error}"[:MAX_RESULT_BODY]
            return Exchange(verdict=Verdict.FAILED, reason="connection", detail=detail, latency_ms=_ms_since(began))
        return Exchange(verdict=Verdict.DELIVERED, status=250, latency_ms=_ms_since(began), request_body=bytes(mail))

    def close(self) -> None:
        """After the mails that are under way (each ends by its time-out)."""
        self._threads.shutdown(wait=True)


def _parameters(subscription: Subscription, email: Email, event: Event) -> tuple[dict[str, Value], dict[str, Value]]:
    """(those that the message is about, those that hold addresses): an address is no news to show to everybody."""
    wanted, addresses = subscription.parameters, email.to_parameters
    return (
        {name: one for name, one in event.parameters.items() if (name in wanted if wanted else name not in addresses)},
        {name: one for name, one in event.parameters.items() if name in addresses},
    )


def _failed(reason: str, code: int, words: bytes | str, began: float, *, permanent: bool) -> Exchange:
    said = words.decode("utf-8", "replace") if isinstance(words, bytes) else words
    return Exchange(
        verdict=Verdict.PERMANENT if permanent else Verdict.FAILED,
        reason=reason,
        detail=f"the mail server answered {code}",
        status=code,
        body=said[:MAX_RESULT_BODY],
        latency_ms=_ms_since(began),
    )


def _ms_since(began: float) -> int:
    return int((time.monotonic() - began) * 1000)
