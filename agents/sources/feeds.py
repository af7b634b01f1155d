"""Brings rows of data sources from their own topics to where events are enriched: the worker ``sources``.

Every source with a topic has a consumer group of its own, ``curfew-source-<name>-v<version>``: a new source, or one
whose rows no longer fit, reads its topic from the beginning. Repeated rows replace themselves. One feed per source,
each in a thread (:mod:`agents.sources.feed`); this module follows the configuration and says how they fare.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from agents.sources.feed import BACK_OFF_S, STOP_S, Feed, Writer
from agents.sources.values import APP
from streams import metrics as m
from streams.codec import Codec
from streams.core.sources import DataSource
from streams.exposition import Exposition
from streams.kafka.catalogue import Catalogue
from streams.kafka.health import Health
from streams.kafka.lanes import Counters
from streams.kafka.worker_metrics import worker_metrics
from streams.settings import Settings

SOURCE: Final = "source"
FOLLOW_S: Final = 0.2
#: A feed is seen before each poll and each pause. Three times the longest pause, and its thread hangs.
ALIVE_S: Final = 3 * BACK_OFF_S[-1]

log = structlog.get_logger(__name__)


class SourceFeeds:
    """Follows the configuration and feeds rows until SIGTERM; ``run`` returns the exit code."""

    def __init__(
        self,
        settings: Settings,
        codec: Codec,
        catalogue: Catalogue,
        *,
        instance: str = "1",
        health_port: int | None = None,
    ) -> None:
        self._settings = settings
        self._codec = codec
        self._catalogue = catalogue
        self._instance = instance
        self._version: int | None = None
        self._feeds: dict[str, Feed] = {}
        #: What feeds that are gone have done: counters never go back.
        self._gone = Counters()
        self._write = Writer(settings, instance)
        self._health = Health(health_port, self.health, host=settings.health_host, metrics=self.metrics)

    def run(self) -> int:
        """Until SIGTERM or SIGINT; call it in the main thread."""
        return asyncio.run(self._main())

    async def _main(self) -> int:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await self._health.start()
        log.info("worker.started", app=APP, instance=self._instance)
        try:
            while not stop.is_set():
                await asyncio.to_thread(self._follow)
                try:
                    await asyncio.wait_for(stop.wait(), FOLLOW_S)
                except TimeoutError:
                    continue
        finally:
            await asyncio.to_thread(self._end, list(self._feeds))
            self._catalogue.stop()
            await self._health.stop()
        log.info("worker.stopped", app=APP, instance=self._instance, records=self._counters().records)
        return 0

    def _follow(self) -> None:
        """Open and close feeds as the configuration says."""
        version = self._catalogue.version(SOURCE)
        if version == self._version:
            return
        wanted = {feed_of(one): one for one in self._catalogue.all(SOURCE).values() if one.topic is not None}
        self._end([group for group, feed in self._feeds.items() if wanted.get(group) != feed.source])
        for group, source in wanted.items():
            if group not in self._feeds:
                feed = Feed(self._settings, self._codec, source, group, self._instance, self._write)
                self._feeds = {**self._feeds, group: feed}  # anew: the health endpoint reads it from another thread
                feed.start()
                log.info("sources.feeds", source=source.name, topic=source.topic and source.topic.name, group=group)
        self._version = version

    def _end(self, groups: list[str]) -> None:
        ending = [self._feeds[group] for group in groups]
        for feed in ending:
            feed.end()
        until = time.monotonic() + STOP_S
        for feed in ending:
            feed.stop(max(0.0, until - time.monotonic()))
            _add(self._gone, feed)
        self._feeds = {group: feed for group, feed in self._feeds.items() if group not in groups}

    # -- looking in ---------------------------------------------------------------------------------------------------

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether all threads are alive, and how each source fares. One that waits makes the worker no dead one: to
        start it again would not help."""
        feeds, counters = self._feeds, self._counters()
        now = time.monotonic()
        alive = all(feed.running and now - feed.standing.seen_at < ALIVE_S for feed in feeds.values())
        return alive, {
            "app": APP,
            "instance": self._instance,
            "records": counters.records,
            "outputs": counters.outputs,
            "retries": counters.retries,
            "sources": {
                feed.source.name: {
                    "group": group,
                    "state": "reads" if feed.standing.problem is None else "waits",
                    "problem": feed.standing.problem,
                    "records": feed.standing.records,
                    "dead_letters": sum(feed.standing.dead.values()),
                }
                for group, feed in sorted(feeds.items())
            },
            "at": datetime.now(UTC).isoformat(),
        }

    def metrics(self) -> str:
        """For Prometheus."""
        alive, _ = self.health()
        out = Exposition()
        for _, feed in sorted(self._feeds.items()):
            out.add(m.SOURCE_WAITING, feed.standing.problem is not None, self._instance, feed.source.name)
        return out.text() + worker_metrics(
            app=APP, instance=self._instance, alive=alive, outstanding=0, counters=self._counters(), lags={}, now={}
        )

    def _counters(self) -> Counters:
        gone = self._gone
        total = Counters(
            records=gone.records, outputs=gone.outputs, retries=gone.retries, dead_letters=Counter(gone.dead_letters)
        )
        for feed in self._feeds.values():
            _add(total, feed)
        return total


def _add(total: Counters, feed: Feed) -> None:
    total.records += feed.standing.records
    total.outputs += feed.standing.outputs
    total.retries += feed.standing.retries
    total.dead_letters.update(feed.standing.dead)


def feed_of(source: DataSource) -> str:
    """The consumer group of a source's feed."""
    return f"curfew-source-{source.name}-v{source.version}"
