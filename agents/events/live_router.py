"""The router as configuration says now, while the workers run."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Protocol

import structlog

from streams.core.routing import Route, Router
from streams.core.sources import DataSource, extended, fitting
from streams.core.subscription_filter import Acceptance, asked
from streams.filters import CelLanguage

#: A route may name a queue that is not there yet; so many seconds later it is looked for again.
RECHECK_S = 10.0

log = structlog.get_logger(__name__)


class Catalogue(Protocol):
    """Topics that every worker reads whole; ``version`` of a kind changes whenever something of it does."""

    def get(self, kind: str, id: str) -> object | None: ...

    def all(self, kind: str) -> Mapping[str, Any]: ...

    def version(self, kind: str) -> int: ...


class LiveRouter:
    """The router for the routes, subscriptions and data sources as they are now; made anew only when one of them has
    changed. ``sources`` are the data sources that it knows."""

    def __init__(self, catalogue: Catalogue, queues: Collection[str]) -> None:
        self._catalogue = catalogue
        self._queues = queues
        self._versions: tuple[int, ...] | None = None
        self._recheck_at = float("inf")
        self._incomplete = False
        self.sources: Mapping[str, DataSource] = {}
        self._language = CelLanguage()
        self._router = Router((), language=self._language)

    def __call__(self) -> Router:
        versions = tuple(self._catalogue.version(kind) for kind in ("route", "subscription", "source"))
        if versions != self._versions or time.monotonic() > self._recheck_at:
            self._incomplete = False
            routes = [self._existing(route) for route in self._catalogue.all("route").values()]
            subscriptions = self._catalogue.all("subscription").values()
            acceptance = Acceptance(self._language)
            asks = [asked(one, acceptance) for one in subscriptions]
            self.sources = fitting(self._catalogue.all("source").values())
            graph = extended(self.sources.values())
            self._router = Router(routes, asks, language=self._language, graph=graph)
            self._versions = versions
            self._recheck_at = time.monotonic() + RECHECK_S if self._incomplete else float("inf")
        return self._router

    def _existing(self, route: Route) -> Route:
        """Without queues that do not exist: a record for one would stop the worker, and with it all other routes."""
        existing = tuple(queue for queue in route.queues if queue in self._queues)
        unknown = [queue for queue in route.queues if queue not in existing]
        if unknown:
            self._incomplete = True
            log.warning(
                "routes.unknown_queue", route=route.name, queues=unknown, remedy="create it, or correct the route"
            )
        return replace(route, queues=existing)
