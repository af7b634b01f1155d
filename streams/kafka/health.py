"""A tiny HTTP endpoint on loopback: is this worker alive, and what did it do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web


class Health:
    """Serves ``GET /health`` as JSON: 200 when alive, 503 when not. No port, no server."""

    def __init__(self, port: int | None, report: Callable[[], tuple[bool, dict[str, Any]]]) -> None:
        self._port = port
        self._report = report
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        if self._port is None:
            return
        app = web.Application()
        app.router.add_get("/health", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        alive, facts = self._report()
        return web.json_response({"alive": alive, **facts}, status=200 if alive else 503)
