"""Who may act: nobody without the token, and nobody from another site.

Reading needs no login on a loopback address: who is on this machine can ask Kafka itself. Anywhere else it does.
An action needs a session (cookie HttpOnly, SameSite=Strict), and that the browser says it comes from the board's own
page (``Origin``): a form on another site can neither send the cookie nor that header.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr
from starlette.requests import Request

COOKIE: Final = "curfew-board"
#: A night's shift; then the name behind the actions is asked for again.
SESSION_S: Final = 12 * 3600
#: Wrong tokens within :data:`WITHIN_S` after which no more are looked at: guessing must not get a try per millisecond.
MOST_FAILURES: Final = 10
WITHIN_S: Final = 60.0
#: A token that is shorter could be guessed in a shift.
SHORTEST: Final = 16
MOST_SESSIONS: Final = 1_000
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # An action that is asked for says where it comes from, also to the board itself.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Somebody who has given the token; ``name`` stands in the audit trail."""

    name: str
    until: float


class Access:
    """The sessions of one board, in memory: a restart ends them all. Without ``token`` nobody may act."""

    def __init__(self, token: SecretStr | None, *, private: bool) -> None:
        self._token = token
        self.private = private
        self._sessions: dict[str, Session] = {}
        self._failures: deque[float] = deque(maxlen=MOST_FAILURES)
        self._lock = threading.Lock()

    @property
    def read_only(self) -> bool:
        return self._token is None

    def session(self, request: Request) -> Session | None:
        """Whose request this is, None for somebody unknown."""
        with self._lock:
            found = self._sessions.get(request.cookies.get(COOKIE, ""))
            return found if found is not None and found.until > time.monotonic() else None

    def login(self, token: str, name: str) -> str | None:
        """The value of a new cookie; None for a wrong token, and for every one after too many wrong ones."""
        now = time.monotonic()
        with self._lock:
            if len(self._failures) == MOST_FAILURES and now - self._failures[0] < WITHIN_S:
                return None
            if self._token is None or not hmac.compare_digest(token.encode(), self._token.get_secret_value().encode()):
                self._failures.append(now)
                return None
            self._sessions = {key: one for key, one in self._sessions.items() if one.until > now}
            if len(self._sessions) >= MOST_SESSIONS:
                self._sessions.clear()
            value = secrets.token_urlsafe(32)
            self._sessions[value] = Session(name=name, until=now + SESSION_S)
            return value

    def logout(self, request: Request) -> None:
        with self._lock:
            self._sessions.pop(request.cookies.get(COOKIE, ""), None)


def same_origin(request: Request) -> bool:
    """Whether the request was made by a page of this board; a browser says so with every POST."""
    origin = request.headers.get("origin")
    return origin is not None and origin == f"{request.url.scheme}://{request.headers.get('host', '')}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
