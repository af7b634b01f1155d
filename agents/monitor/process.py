"""The monitor: how far all consumer groups of a cluster are behind, for people, scripts and Prometheus.

A process of its own that joins no group and writes nothing. It looks at the cluster again and again; whoever asks it is
answered from the last look, so that ten dashboards cost Kafka nothing, and a broker that is away costs no answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog
from aiohttp import web
from confluent_kafka import KafkaException

from agents.monitor.as_json import as_json
from agents.monitor.burrow import BurrowView
from agents.monitor.metrics import exposition, monitor_exposition
from agents.monitor.own import LEDGER_EVERY_S, OwnPart
from streams.core.errors import CurfewError
from streams.core.lag.report import ClusterLag
from streams.core.lag.rules import DEFAULT_LIMITS, Limits
from streams.kafka.health import Health, Route
from streams.kafka.lag.poll import LagPoller, by_name
from streams.metrics import Family
from streams.settings import Settings

LOOK_EVERY_S: Final = 10.0
#: Not one look for so long, whether Kafka answers or not: the endpoint says that the monitor is not alive.
ALIVE_S: Final = 120.0
#: Who asks for a new look waits no longer than this; then the last one is the answer.
LOOK_NOW_S: Final = 30.0
GROUP_FAMILIES: Final = (Family.KAFKA_EXPORTER, Family.KAFKA_LAG_EXPORTER, Family.GROUPS)
#: Where a running monitor says how it can be asked; `curfew lag` looks here.
STATE_FILE: Final = Path("monitor") / "state.json"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the monitor is told on its command line. ``families`` are the names under which groups are shown."""

    wanted: Callable[[str], bool] = lambda group: True
    limits: Limits = DEFAULT_LIMITS
    every_s: float = LOOK_EVERY_S
    port: int = 0
    cluster_name: str = "curfew"
    families: frozenset[Family] = field(default_factory=lambda: frozenset(GROUP_FAMILIES))
    burrow: bool = True
    own: bool = True
    ledger_every_s: float = LEDGER_EVERY_S
    use_topic: bool = True
    #: Whether every group is looked at, so that whoever asks for any of them can be answered.
    everything: bool = True


class Monitor:
    """One monitor; :meth:`look` blocks, :meth:`run` is its process."""

    def __init__(self, settings: Settings, options: Options) -> None:
        self._settings = settings
        self._options = options
        self._poller = LagPoller(
            settings.kafka(), wanted=options.wanted, limits=options.limits, use_topic=options.use_topic
        )
        self._own = OwnPart(settings, ledger_every_s=options.ledger_every_s) if options.own else None
        self._groups_text = ""
        self._problem: str | None = "it has not looked yet"
        self._alive_at = time.monotonic()
        self._wake = asyncio.Event()
        self._looked = asyncio.Condition()
        #: Numbers of looks: that which began last, and that which ended last.
        self._begun = self._ended = 0
        self.last: ClusterLag | None = None

    def look(self) -> None:
        """One look; a broker that does not answer is told in the metrics, never an exception."""
        try:
            found = self._poller.look()
            # Rendered here and not at a scrape: a scrape must be cheap however many groups there are.
            self._groups_text = exposition(
                found, cluster_name=self._options.cluster_name, families=self._options.families
            )
            self.last = found
            if self._problem is not None:
                log.info("monitor.sees", groups=len(found.groups), source=found.source, took_s=found.took_s)
            self._problem = None
        except (CurfewError, KafkaException) as error:
            if self._problem != str(error):
                log.warning("monitor.blind", error=str(error))
            self._problem = str(error)
        self._alive_at = time.monotonic()

    def metrics(self) -> str:
        """What Prometheus gets: from memory."""
        own = "" if self._own is None else self._own.text
        return monitor_exposition(up=self._problem is None, last=self.last) + self._groups_text + own

    def report(self) -> tuple[bool, dict[str, Any]]:
        """For ``/health``: alive while it looks, whatever it sees."""
        last = self.last
        return time.monotonic() - self._alive_at < ALIVE_S, {
            "problem": self._problem,
            "looked_at": None if last is None else datetime.fromtimestamp(last.at_ms / 1000, UTC).isoformat(),
            "groups": None if last is None else len(last.groups),
            "complete": None if last is None else last.complete,
            "source": None if last is None else last.source,
            "why": None if last is None else last.why,
            "seconds": None if last is None else dict(last.seconds),
            "not_counted": {} if self._own is None else dict(self._own.problems),
        }

    async def run(self) -> None:
        """Look again and again until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        routes: dict[str, Route] = {"/lag": self._answer_lag}
        if self._options.burrow:
            servers = self._settings.bootstrap_servers
            routes |= BurrowView(self._options.cluster_name, servers, lambda: self.last).routes
        health = Health(
            self._options.port,
            self.report,
            host=self._settings.health_host,
            metrics=self.metrics,
            routes=routes,
        )
        await health.start()
        state = self._settings.data_dir / STATE_FILE
        url = f"http://127.0.0.1:{health.port}"
        servers = self._settings.bootstrap_servers
        _write_state(
            state,
            {"pid": os.getpid(), "url": url, "bootstrap_servers": servers, "everything": self._options.everything},
        )
        log.info("monitor.started", url=url, kafka=servers)
        if self._own is not None:
            self._own.start()
        try:
            while not stop.is_set():
                began = time.monotonic()
                self._wake.clear()
                await self.look_again()
                # From beginning to beginning; a look that takes longer than the pause is followed by a short one.
                rest = max(self._options.every_s / 10, self._options.every_s - (time.monotonic() - began))
                await _first_of(stop, self._wake, timeout=rest)
        except Exception:
            log.exception("monitor.failed")  # at once: what runs beside it takes seconds to end
            raise
        finally:
            state.unlink(missing_ok=True)
            await health.stop()
            await asyncio.to_thread(self.close)

    async def look_again(self) -> None:
        """The next look, by its number; whoever waits for it is woken."""
        self._begun += 1
        await asyncio.to_thread(self.look)
        async with self._looked:
            self._ended = self._begun
            self._looked.notify_all()

    async def looked_after_now(self) -> None:
        """Wait for the end of a look that begins after this call: one under way may have passed by what is asked."""
        wanted = self._begun + 1
        self._wake.set()
        async with self._looked:
            while self._ended < wanted:
                await self._looked.wait()

    def close(self) -> None:
        """Leave; nothing stays behind in Kafka."""
        if self._own is not None:
            self._own.stop()
        self._poller.close()

    async def _answer_lag(self, request: web.Request) -> web.Response:
        """The last look; with ``?now=1`` a new one, for those who have to know whether something has just been done.
        ``group`` and ``exclude`` are regular expressions and may be repeated; ``history=1`` is that of partitions."""
        try:
            wanted = by_name(request.query.getall("group", []), request.query.getall("exclude", []))
        except re.error as error:
            return web.json_response({"problem": f"no regular expression: {error}"}, status=400)
        if "now" in request.query:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.looked_after_now(), LOOK_NOW_S)
        if self.last is None:
            return web.json_response({"problem": self._problem}, status=503)
        found = as_json(self.last, wanted, history="history" in request.query)
        return web.json_response({**found, "problem": self._problem})


async def _first_of(*events: asyncio.Event, timeout: float) -> None:
    """Wait for one of them, but not longer."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    for one in waiting:
        one.cancel()


def _write_state(path: Path, state: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(state), "utf-8")
    scratch.replace(path)
