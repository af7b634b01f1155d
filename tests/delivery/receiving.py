"""A real receiver process, and a sender that trusts this machine."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from streams.sinks.secrets import Secrets
from streams.sinks.webhook import WebhookSender
from tests.delivery.plant import SetClock
from tests.support.kafka_io import TIMEOUT_SECONDS, wait_until, whole_lines

SECRET_REF = "env:CURFEW_SECRET_TEST"
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@dataclass(frozen=True, slots=True)
class RunningReceiver:
    """Its address, and its own log."""

    url: str
    log: Path

    def received(self) -> list[dict[str, Any]]:
        """What is in its log, without a line that it is just writing."""
        return [json.loads(line) for line in whole_lines(self.log).splitlines()]

    def behave(self, **behaviour: Any) -> None:
        """Change how it answers from now on; no arguments repair it."""
        request = urllib.request.Request(self.url + "_behaviour", json.dumps(behaviour).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
            pass


@asynccontextmanager
async def answering(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """A receiver in this process, on the running loop, which answers by ``handler``; gives its url."""
    app = web.Application()
    app.router.add_post("/", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@contextmanager
def receiver(directory: Path, *options: str, secret: str = SECRET) -> Iterator[RunningReceiver]:
    """Start `curfew receive` on a free port; ended by its pid."""
    port_file, log = directory / "port", directory / "received.jsonl"
    command = "from agents.cli.receive import app; app()"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "--secret-ref", SECRET_REF, "--port-file", str(port_file), "--log-file",
         str(log), "--quiet", *options],
        env={**os.environ, "CURFEW_SECRET_TEST": secret},
    )  # fmt: skip
    try:
        wait_until(lambda: port_file.exists() or process.poll() is not None, "the receiver listens")
        assert process.poll() is None, "the receiver ended at once"
        yield RunningReceiver(f"http://127.0.0.1:{port_file.read_text()}/", log)
    finally:
        process.terminate()
        process.wait(TIMEOUT_SECONDS)


class WallClock:
    """Signatures are checked against the wall clock."""

    def now(self) -> Any:
        from datetime import UTC, datetime

        return datetime.now(UTC)


def sender(*, development: bool = True, clock: SetClock | None = None, **options: Any) -> WebhookSender:
    return WebhookSender(secrets=Secrets(), clock=clock or WallClock(), development=development, **options)
