"""A tiny HTTP endpoint, on loopback unless told otherwise: is this process alive, what did it do, and its metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from streams.exposition import CONTENT_TYPE

Route = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Health:
    """Serves ``GET /health`` as JSON (200 when alive, 503 when not), and ``GET /metrics`` for Prometheus where there
    are any. No port, no server; port 0 is any free one, :attr:`port` says which.

    Everything is answered from memory: who asks must not depend on what is watched.
    """

    def __init__(
        self,
        port: int | None,
        report: Callable[[], tuple[bool, dict[str, Any]]],
        *,
        host: str = "127.0.0.1",
        metrics: Callable[[], str] | None = None,
        routes: Mapping[str, Route] | None = None,
    ) -> None:
        self.port = port
        self._host = host
        self._report = report
        self._metrics = metrics
        self._routes = dict(routes or {})
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        if self.port is None:
            return
        app = web.Application()
        app.router.add_get("/health", self._answer)
        if self._metrics is not None:
            app.router.add_get("/metrics", self._scrape)
        for path, route in self._routes.items():
            app.router.add_get(path, route)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self.port).start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        alive, facts = self._report()
        return web.json_response({"alive": alive, **facts}, status=200 if alive else 503)

    async def _scrape(self, request: web.Request) -> web.Response:
        assert self._metrics is not None
        response = web.Response(body=self._metrics().encode(), headers={"Content-Type": CONTENT_TYPE})
        response.enable_compression()
        return response
