"""The receiver of the delivery bench: verifies, answers at once, and knows when which webhook came.

Leaner than ``curfew receive`` on purpose (no parsing, no log): what it costs is in both sides of the comparison, and a
receiver that is busy with itself would hide what the senders cost. It is a process of its own:
``python -m agents.bench.delivery_receiver PORT_FILE``.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop
from aiohttp import web

from agents.bench.delivery_events import SECRET_REF
from streams.sinks import webhook_signature
from streams.sinks.secrets import Secrets

HOST: Final = "127.0.0.1"
RESET, FIGURES, RELEASE = "/_reset", "/_figures", "/_release"
#: Where the body has the instant of its event: ``{"type":"…","timestamp":"2026-…Z",``.
_TIMESTAMP: Final = b'"timestamp":"'


class Watch(msgspec.Struct, frozen=True):
    """What to do from now on: count requests on the path ``aside`` by themselves, and with ``silent`` do not answer
    them until told to; note the ages of events that come so many seconds after the first."""

    aside: str | None = None
    silent: bool = False
    ages_after_s: float | None = None


@dataclass(slots=True, eq=False)
class Account:
    """What came since the last reset; ``aside`` are the ids of the path that is counted by itself."""

    aside: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    requests: int = 0
    first: float = 0.0
    last: float = 0.0
    ages_ms: list[float] = field(default_factory=list)


class Receiver:
    """Handles every request; paths that begin with ``/_`` are what the bench says and asks."""

    def __init__(self) -> None:
        self._keys = [Secrets().resolve(SECRET_REF)]
        self.watch = Watch()
        self.account = Account()
        self.released = asyncio.Event()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        path = request.path
        if path.startswith("/_"):
            return self._control(path, body)
        if not webhook_signature.verify(self._keys, request.headers, body, datetime.now(UTC)):
            return web.Response(status=401)
        webhook_id = request.headers[webhook_signature.ID]
        if path == self.watch.aside:
            self.account.aside.add(webhook_id)
            if self.watch.silent:
                await self.released.wait()
            return web.Response()
        now, account = time.monotonic(), self.account
        account.requests += 1
        account.ids.add(webhook_id)
        account.first = account.first or now
        account.last = now
        after = self.watch.ages_after_s
        if after is not None and now - account.first >= after:
            account.ages_ms.append(_age_ms(body))
        return web.Response()

    def _control(self, path: str, body: bytes) -> web.StreamResponse:
        account = self.account
        if path == RESET:
            self.released.set()
            self.watch, self.account, self.released = msgspec.json.decode(body, type=Watch), Account(), asyncio.Event()
        elif path == RELEASE:
            self.released.set()
        elif path != FIGURES:
            return web.Response(status=404)
        ages = sorted(account.ages_ms)
        figures: dict[str, Any] = {
            "requests": account.requests,
            "distinct": len(account.ids),
            "seconds": account.last - account.first,
            "aside": len(account.aside),
            "ages": len(ages),
            "p50_ms": _quantile(ages, 0.5),
            "p99_ms": _quantile(ages, 0.99),
        }
        return web.Response(body=msgspec.json.encode(figures), content_type="application/json")


def _age_ms(body: bytes) -> float:
    start = body.index(_TIMESTAMP) + len(_TIMESTAMP)
    at = datetime.fromisoformat(body[start : body.index(b'"', start)].decode())
    return (time.time() - at.timestamp()) * 1000


def _quantile(found: list[float], part: float) -> float | None:
    return round(found[min(len(found) - 1, int(len(found) * part))], 1) if found else None


async def serve(port_file: Path) -> None:
    """Until the process is ended."""
    runner = web.ServerRunner(web.Server(Receiver().handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    # Renamed into place, so that whoever waits for the file never reads half a number.
    partial = port_file.with_suffix(".partial")
    partial.write_text(str(runner.addresses[0][1]))
    partial.replace(port_file)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
