"""Signed HTTP requests to subscribers, one attempt at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from math import inf
from typing import Final

import aiohttp

from streams.codec.cloudevents import TRACEPARENT
from streams.core.delivery.hops import REPLAY
from streams.core.delivery.messages import Verdict
from streams.core.delivery.retries import MAX_RETRY_AFTER_S
from streams.core.errors import Poison
from streams.core.events import Event
from streams.core.subscription_rules import url_problems
from streams.core.subscriptions import Subscription, Webhook
from streams.ports import Clock
from streams.sinks import webhook_body, webhook_guard, webhook_signature
from streams.sinks.secrets import SecretError, Secrets

#: A receiver that accepts and never answers would otherwise hold its requests for ever.
TIMEOUT_S: Final = 15.0
#: A receiver could answer with an endless body; more than this is not read, and the connection is closed.
MAX_RESPONSE_BYTES: Final = 64 * 1024
#: Characters of the answer that a result carries, for people.
MAX_RESULT_BODY: Final = 1_024
#: Open requests of one process; each takes a file descriptor, and the usual limit is 1,024.
MAX_OPEN: Final = 512
#: A changed secret counts after this long; read for each request, it would cost a tenth of what the request does.
SECRET_KEPT_S: Final = 1.0
USER_AGENT: Final = "Curfew-Webhooks/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What was sent and what came back; the request is here for ``curfew subscriptions test``."""

    verdict: Verdict
    reason: str | None = None
    detail: str | None = None
    status: int | None = None
    retry_after_s: int | None = None
    body: str | None = None
    latency_ms: int = 0
    request_headers: dict[str, str] = field(default_factory=dict)
    request_body: bytes = b""


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """What is the same for all requests to ``webhook``; made anew when that has changed."""

    webhook: Webhook
    problems: Sequence[str]
    session: aiohttp.ClientSession


class WebhookSender:
    """Sends, bounded per process; how many requests one endpoint gets at once is for the caller to say. Belongs to one
    event loop, :meth:`close` it there.

    ``development`` admits http and loopback. ``networks`` are the private ranges that the worker's settings allow; a
    subscription reaches those that it names too.
    """

    def __init__(self, *, secrets: Secrets, clock: Clock, development: bool, networks: Sequence[str] = ()) -> None:
        self._secrets = secrets
        self._clock = clock
        self._development = development
        self._networks = tuple(networks)
        self._sessions: dict[webhook_guard.Policy, aiohttp.ClientSession] = {}
        self._endpoints: dict[str, _Endpoint] = {}
        #: Reference → the key, and until when it is used.
        self._known_keys: dict[str, tuple[bytes, float]] = {}
        self._open = asyncio.Semaphore(MAX_OPEN)

    async def send(
        self,
        subscription: Subscription,
        unit_id: str,
        number: int,
        event: Event,
        *,
        begin_within_s: float = inf,
        replay: str | None = None,
        traceparent: str | None = None,
        guard: Callable[[], None] = lambda: None,
    ) -> Exchange:
        """Make attempt ``number`` of a unit; every failure is an Exchange, only cancellation and ``guard`` raise.

        ``guard`` is called right before the request leaves. ``replay`` marks a repetition that a person has asked for,
        ``traceparent`` is the W3C trace context that the receiver may go on with.
        If other requests leave no room within ``begin_within_s``, nothing is sent: ``postponed``.
        """
        latest = time.monotonic() + begin_within_s
        webhook = subscription.webhook
        assert webhook is not None, f"{subscription.name} is no webhook"
        try:
            body = webhook_body.render(event, subscription)
        except Poison as error:
            return Exchange(verdict=Verdict.PERMANENT, reason=error.reason, detail=error.detail)
        endpoint = self._endpoint(subscription.id, webhook)
        if endpoint.problems:
            return Exchange(verdict=Verdict.FAILED, reason="url_refused", detail=f"url {endpoint.problems[0]}")
        async with self._open:
            if time.monotonic() > latest:
                return Exchange(verdict=Verdict.POSTPONED, reason="busy", detail=f"{MAX_OPEN} requests are open")
            now = self._clock.now()
            try:
                keys = self._keys(webhook, now)
            except SecretError as error:
                return Exchange(verdict=Verdict.FAILED, reason="secret_unavailable", detail=str(error))
            headers = {
                **({} if replay is None else {REPLAY: replay}),
                **({} if traceparent is None else {TRACEPARENT: traceparent}),
                "content-type": "application/json",
                "user-agent": USER_AGENT,
                "curfew-attempt": str(number),
                **webhook_signature.headers(keys, webhook_signature.message_id(unit_id), now, body),
            }
            guard()
            return await self._post(endpoint, headers, body)

    def _keys(self, webhook: Webhook, now: datetime) -> list[bytes]:
        keys = [self._key(webhook.secret_ref)]
        previous, until = webhook.previous_secret_ref, webhook.previous_until
        if previous is not None and until is not None and now < until:
            keys.append(self._key(previous))
        return keys

    def _key(self, reference: str) -> bytes:
        known = self._known_keys.get(reference)
        if known is not None and time.monotonic() < known[1]:
            return known[0]
        key = self._secrets.resolve(reference)
        self._known_keys[reference] = key, time.monotonic() + SECRET_KEPT_S
        return key

    async def _post(self, endpoint: _Endpoint, headers: dict[str, str], body: bytes) -> Exchange:
        began = time.monotonic()
        try:
            status, answer, retry_after = await self._exchange(endpoint, headers, body)
        except TimeoutError:
            failure = ("timeout", f"no answer within {TIMEOUT_S:.0f} s")
        except aiohttp.InvalidURL as error:
            # Its text holds the whole URL, whose path and query may be secrets of the receiver.
            failure = ("url_refused", f"the url cannot be called: {error.description or 'its host is none'}")
        except aiohttp.ClientSSLError as error:
            failure = ("tls", _message(error))
        except aiohttp.ClientConnectorDNSError as error:
            failure = ("dns", _message(error))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            refused = webhook_guard.REFUSED in str(error)
            failure = ("address_refused" if refused else "connection", _message(error))
        else:
            return self._judge(status, answer, retry_after, headers, body, _ms_since(began))
        reason, detail = failure
        return Exchange(
            verdict=Verdict.FAILED,
            reason=reason,
            detail=detail,
            latency_ms=_ms_since(began),
            request_headers=headers,
            request_body=body,
        )

    def _judge(
        self,
        status: int,
        answer: bytes,
        retry_after: str | None,
        headers: dict[str, str],
        body: bytes,
        latency_ms: int,
    ) -> Exchange:
        delivered = 200 <= status < 300
        return Exchange(
            verdict=Verdict.DELIVERED if delivered else Verdict.FAILED,
            reason=None if delivered else ("redirect" if 300 <= status < 400 else f"http_{status}"),
            detail=None if delivered else f"the receiver answered {status}",
            status=status,
            retry_after_s=_seconds(retry_after, self._clock.now()) if status in (429, 503) else None,
            body=answer.decode("utf-8", "replace")[:MAX_RESULT_BODY],
            latency_ms=latency_ms,
            request_headers=headers,
            request_body=body,
        )

    async def _exchange(
        self, endpoint: _Endpoint, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes, str | None]:
        request = endpoint.session.post(endpoint.webhook.url, data=body, headers=headers, allow_redirects=False)
        async with request as response:
            answer = bytearray()
            while len(answer) < MAX_RESPONSE_BYTES:
                part = await response.content.read(MAX_RESPONSE_BYTES - len(answer))
                if not part:
                    break
                answer += part
            else:
                response.close()
            return response.status, bytes(answer), response.headers.get("retry-after")

    def _endpoint(self, subscription_id: str, webhook: Webhook) -> _Endpoint:
        known = self._endpoints.get(subscription_id)
        if known is not None and known.webhook is webhook:
            return known
        problems = url_problems(webhook.url, development=self._development, allow_ports=webhook.allow_ports)
        # One session per policy, so that a connection into an admitted network is never used by who may not go there.
        networks = webhook_guard.admitted(webhook.allow_networks, self._networks)
        policy = webhook_guard.Policy(loopback=self._development, networks=networks)
        session = self._sessions.get(policy)
        if session is None:
            session = self._sessions[policy] = open_session(policy)
        endpoint = self._endpoints[subscription_id] = _Endpoint(webhook, problems, session)
        return endpoint

    async def close(self) -> None:
        """Close the connections; call it when no request is under way any more."""
        sessions, self._sessions = self._sessions, {}
        self._endpoints.clear()
        for session in sessions.values():
            await session.close()


def open_session(policy: webhook_guard.Policy) -> aiohttp.ClientSession:
    """A session that connects where ``policy`` allows and nowhere else; close it on its event loop."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, socket_factory=webhook_guard.socket_factory(policy)),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # 64 KiB of a compressed answer may be gigabytes
        trust_env=False,  # a proxy from the environment would connect on our behalf, past the guard
    )


def _seconds(retry_after: str | None, now: datetime) -> int | None:
    """Retry-After in seconds from now: it is a number of seconds, or an HTTP date."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    try:
        if text.isascii() and text.isdigit():
            seconds = int(text) if len(text) <= len(str(MAX_RETRY_AFTER_S)) else MAX_RETRY_AFTER_S
        else:
            seconds = int((parsedate_to_datetime(text) - now).total_seconds())
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return min(max(seconds, 0), MAX_RETRY_AFTER_S)


def _message(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:MAX_RESULT_BODY]


def _ms_since(began: float) -> int:
    return int((time.monotonic() - began) * 1000)
