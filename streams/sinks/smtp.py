"""A mail server, over SMTP with the standard library; blocking, for a thread."""

from __future__ import annotations

import ipaddress
import smtplib
import ssl
from typing import Final
from urllib.parse import unquote, urlsplit

from streams.core.errors import Misconfigured

#: A server that accepts and never answers would otherwise hold its thread for ever.
TIMEOUT_S: Final = 15.0
SUBMISSION_PORT, SMTPS_PORT, SMTP_PORT = 587, 465, 25


class MailServer:
    """``url``: ``smtp://user:password@host:port`` or ``smtps://…``; raises Misconfigured for anything else.

    With ``smtp`` TLS is used as soon as the server offers it; a password is never sent without it, except to loopback.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise Misconfigured("smtp_url is no URL; write smtp://user:password@host:587") from None
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise Misconfigured("smtp_url must be like smtp://user:password@host:587 or smtps://host:465")
        self._tls = parts.scheme == "smtps"
        self._host = parts.hostname
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        self._port = port or (SMTPS_PORT if self._tls else SUBMISSION_PORT if self._user else SMTP_PORT)

    def connect(self) -> smtplib.SMTP:
        """A session that is ready for a message; raises OSError (smtplib's errors are some) with the server's words."""
        context = ssl.create_default_context()
        if self._tls:
            server: smtplib.SMTP = smtplib.SMTP_SSL(self._host, self._port, timeout=TIMEOUT_S, context=context)
        else:
            server = smtplib.SMTP(self._host, self._port, timeout=TIMEOUT_S)
        try:
            server.ehlo()
            secure = self._tls or (server.has_extn("starttls") and bool(server.starttls(context=context)))
            if self._user:
                if not (secure or _loopback(self._host)):
                    raise smtplib.SMTPNotSupportedError("the server offers no TLS, so the password is not sent")
                server.login(self._user, self._password)
        except BaseException:
            server.close()
            raise
        return server


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
