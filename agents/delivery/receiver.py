"""A small receiver of webhooks: verifies each request as a subscriber would, and keeps an account of what it got.

For the demo, the tests and the benches; it listens on loopback only and can be told to fail.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from aiohttp import web

from streams.core.delivery.hops import REPLAY
from streams.sinks import webhook_signature

try:
    import standardwebhooks
except ImportError:  # the official library is for development; without it our own check does the same
    standardwebhooks = None  # type: ignore[assignment]

HOST: Final = "127.0.0.1"
#: Larger requests than this are refused with 413, as many receivers do.
MAX_REQUEST_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request. ``key`` is the account, or the subject without one; ``verified`` whether the signature holds;
    ``replay`` the run that has sent it again."""

    at: datetime
    webhook_id: str
    attempt: int
    type: str
    key: str
    sequence: int
    status: int
    verified: bool
    replay: str | None = None

    def line(self) -> str:
        """As one line of JSON."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps({**fields, "at": self.at.isoformat()})


@dataclass(slots=True)
class Behaviour:
    """How the receiver answers; can be changed while it runs by ``POST /_behaviour`` with these fields as JSON.

    ``fail_key`` limits ``fail_status`` to requests of one key; ``fail_first`` fails only the first so many requests of
    each webhook-id (0 = all). ``delay_s`` waits before every answer.
    """

    status: int = 200
    fail_status: int | None = None
    fail_key: str | None = None
    fail_first: int = 0
    retry_after: str | None = None
    delay_s: float = 0.0


@dataclass(slots=True)
class Receiver:
    """Counts requests by webhook-id. ``keys`` are the secrets' bytes, any of which may have signed."""

    keys: list[bytes]
    behaviour: Behaviour = field(default_factory=Behaviour)
    on_received: Callable[[Received], None] = lambda received: None
    requests: dict[str, int] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)
    refused: int = 0

    def application(self) -> web.Application:
        """The web application: any path receives, ``GET /_stats`` tells, ``POST /_behaviour`` changes."""
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.router.add_get("/_stats", self._stats)
        app.router.add_post("/_behaviour", self._change)
        app.router.add_post("/{path:.*}", self._receive)
        return app

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        verified = self._verified(headers, body)
        message: dict[str, Any] = json.loads(body) if verified else {}
        data = message.get("data", {})
        key = data.get("account_id") or data.get("subject", {}).get("id", "")
        webhook_id = headers.get(webhook_signature.ID, "")
        self.requests[webhook_id] = self.requests.get(webhook_id, 0) + 1
        status = self._status(webhook_id, key) if verified else 401
        if self.behaviour.delay_s:
            await asyncio.sleep(self.behaviour.delay_s)
        if 200 <= status < 300:
            self.accepted.add(webhook_id)
        else:
            self.refused += 1
        self.on_received(
            Received(
                at=datetime.now(UTC),
                webhook_id=webhook_id,
                attempt=int(headers.get("curfew-attempt", "0")),
                type=message.get("type", ""),
                key=key,
                sequence=data.get("sequence", 0),
                status=status,
                verified=verified,
                replay=headers.get(REPLAY),
            )
        )
        after = self.behaviour.retry_after
        return web.Response(status=status, headers={"retry-after": after} if after and status >= 400 else {})

    def _verified(self, headers: dict[str, str], body: bytes) -> bool:
        if standardwebhooks is None:
            return webhook_signature.verify(self.keys, headers, body, datetime.now(UTC))
        return any(_official(key, headers, body) for key in self.keys)

    def _status(self, webhook_id: str, key: str) -> int:
        behaviour = self.behaviour
        fails = behaviour.fail_status is not None and behaviour.fail_key in (None, key)
        if fails and behaviour.fail_first and self.requests[webhook_id] > behaviour.fail_first:
            fails = False
        return behaviour.fail_status if fails and behaviour.fail_status is not None else behaviour.status

    async def _stats(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "requests": sum(self.requests.values()),
                "distinct": len(self.requests),
                "accepted": len(self.accepted),
                "refused": self.refused,
            }
        )

    async def _change(self, request: web.Request) -> web.Response:
        self.behaviour = Behaviour(**await request.json())
        return web.Response(status=204)


def _official(key: bytes, headers: dict[str, str], body: bytes) -> bool:
    try:
        standardwebhooks.Webhook(key).verify(body, headers)
    except Exception:  # the library raises its own error, and binascii's for a signature that is no base64
        return False
    return True


async def serve(receiver: Receiver, port: int, port_file: Path | None, ready: Callable[[int], None]) -> None:
    """Listen on loopback until SIGTERM or SIGINT. ``port`` 0 takes a free one; ``port_file`` then tells which."""
    runner = web.AppRunner(receiver.application(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, HOST, port)
    await site.start()
    actual: int = runner.addresses[0][1]
    if port_file is not None:
        # Renamed into place, so that whoever waits for the file never reads half a number.
        partial = port_file.with_suffix(".partial")
        partial.write_text(str(actual))
        partial.replace(port_file)
    ready(actual)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await runner.cleanup()


def to_file(log: TextIO) -> Callable[[Received], None]:
    """Write every request as a line of JSON, at once: a test reads the file while we run."""

    def write(received: Received) -> None:
        log.write(received.line() + "\n")
        log.flush()

    return write
