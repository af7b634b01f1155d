"""Reads the scheduler's changelog for the panels of the next midnights and the effective dates."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from agents.board.dangers import Night, dangers
from agents.board.memory import Memory
from agents.board.open_changes import OpenChanges
from agents.board.panels import countdown, nights
from agents.plan_changes.change_feed import ChangeFeed
from streams.codec import Codec, Registry
from streams.core.plan_change.board import Line, lines
from streams.settings import Settings

CHANGELOG: Final = "plan-changes-store-changelog"
#: Seconds between two looks; counting half a million changes takes about half a second.
EVERY_S: Final = 2.0
#: A look at half a million open changes takes about a second: a pause so many times as long leaves pages their time.
REST: Final = 4
#: Looks of which a sparkline is drawn: two minutes.
LOOKS: Final = 60
#: Changes that wait for a person and have a page of their own.
MOST_PAGES: Final = 10_000
#: A broker that is well answers at once.
CHECK_S: Final = 2.0
#: Without a tick, no clock has run for as long as its topic keeps them.
_NEVER_S: Final = 24 * 3600.0


class ChangeSource:
    """One consumer that joins no group."""

    panels: Sequence[str] = (countdown.NAME, nights.NAME)

    def __init__(self, settings: Settings, memory: Memory, *, every_s: float = EVERY_S) -> None:
        self.every_s = self._pace_s = every_s
        self._kafka = settings.kafka(log_level=0, error_cb=lambda error: None)
        self._codec = Codec(Registry(settings.schema_registry_url))
        self._memory = memory
        self._feed: ChangeFeed | None = None
        self._open = OpenChanges()
        self._history: dict[Night, deque[int]] = {}

    def read(self) -> Mapping[str, Mapping[str, Any]]:
        feed = self._following()
        while feed.poll(0.0):
            pass
        if _silent_s(feed) > countdown.SILENT_S:  # while ticks come, Kafka is there
            feed.check(CHECK_S)
        began = time.monotonic()
        shown = self._shown(feed)
        self.every_s = max(self._pace_s, REST * (time.monotonic() - began))
        return shown

    def _shown(self, feed: ChangeFeed) -> Mapping[str, Mapping[str, Any]]:
        tick, machine = feed.time, datetime.now(UTC)
        silent_s = _silent_s(feed)
        now = machine if tick is None else tick.now
        found = lines(feed.entries.values(), now, clock_silent_s=silent_s)
        self._remember(found)
        waiting = self._open.waiting()
        self._memory.keep("change", {one.service_id: nights.waiting_row(one) for one in waiting[:MOST_PAGES]})
        endangered = dangers(self._open.all(), [nights.night(one) for one in found if one.is_alarming], now)
        return {
            countdown.NAME: countdown.view(found, now, ticked=tick is not None, clock_silent_s=silent_s),
            nights.NAME: nights.view(found, endangered, waiting, self._history),
        }

    def close(self) -> None:
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def _following(self) -> ChangeFeed:
        if self._feed is None:
            self._open = OpenChanges()
            feed = ChangeFeed(self._kafka, self._codec, CHANGELOG, on_change=self._open.put)
            try:
                feed.start()
            except BaseException:
                feed.close()
                raise
            self._feed = feed
        return self._feed

    def _remember(self, found: Sequence[Line]) -> None:
        """What remains of each night, look by look."""
        self._history = {
            night: self._history.get(night, deque(maxlen=LOOKS))
            for night in (nights.night(line) for line in found)
        }  # fmt: skip
        for line in found:
            self._history[nights.night(line)].append(countdown.remaining(line))


def _silent_s(feed: ChangeFeed) -> float:
    """How long ago the last tick was written."""
    return _NEVER_S if feed.time is None else max(0.0, (datetime.now(UTC) - feed.time.written_at).total_seconds())
