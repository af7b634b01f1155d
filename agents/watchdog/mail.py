"""The watchdog's notices as e-mails; blocking, for a thread."""

from __future__ import annotations

from collections.abc import Sequence
from email.message import EmailMessage

from streams.sinks.smtp import MailServer


class Mailer:
    """Mails to ``recipients`` by the server at ``url`` (see :class:`streams.sinks.smtp.MailServer`)."""

    def __init__(self, url: str, sender: str, recipients: Sequence[str]) -> None:
        self._server = MailServer(url)
        self._sender = sender
        self._recipients = tuple(recipients)

    def send(self, message_id: str, subject: str, body: str) -> None:
        """Hand it to the server; raises OSError (smtplib's errors are some) with the server's words.

        ``message_id`` is derived from the notice, so that a mail that is sent twice can be recognised.
        """
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = self._sender, ", ".join(self._recipients), subject
        mail["Message-ID"] = f"<{message_id}@curfew>"
        mail["Auto-Submitted"] = "auto-generated"  # so that no holiday responder answers
        mail.set_content(body)
        with self._server.connect() as server:
            server.send_message(mail)
