"""What the monitor knows of Curfew itself: ticks, deadlines, deliveries, dead letters, the ledger.

Read from topics like everything else here, in a thread of its own: a ledger of millions must not hold up the look at
the groups. On a cluster without Curfew's topics there is nothing to read, and that is fine.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from confluent_kafka import KafkaException

from agents.plan_changes.change_feed import ChangeFeed
from streams import metrics as m
from streams.codec import Codec, Registry
from streams.core.errors import CurfewError
from streams.core.plan_change.board import Line, Stage, Word, lines
from streams.exposition import Exposition
from streams.kafka import dead_letters, ledger
from streams.kafka.scan import Scanner, Span
from streams.settings import Settings

CHANGELOG: Final = "plan-changes-store-changelog"
#: Seconds between two counts; a deadline is a matter of minutes, and counting a million changes takes a second.
COUNT_EVERY_S: Final = 10.0
#: The ledger reads all queues, results and dead letters from their beginning.
LEDGER_EVERY_S: Final = 600.0
#: After a failure (no such topic yet, no broker) the next try is so much later.
RETRY_S: Final = 30.0
_REMAINING: Final = (Stage.PENDING, Stage.STARTED, Stage.EXECUTED, Stage.FAILED, Stage.HELD)
_STATES: Final = ("filtered", "pending", "delivered", "dead", "discarded")

log = structlog.get_logger(__name__)


class OwnPart:
    """Start it, read :attr:`text` at any time, stop it. ``ledger_every_s`` 0: no ledger."""

    def __init__(self, settings: Settings, *, ledger_every_s: float = LEDGER_EVERY_S) -> None:
        self._settings = settings
        self._kafka = settings.kafka(log_level=0, error_cb=lambda error: None)
        self._codec = Codec(Registry(settings.schema_registry_url))
        self._ledger_every_s = ledger_every_s
        self._stop = threading.Event()
        self._feed: ChangeFeed | None = None
        self._dead = _DeadLetters()
        self._texts = {"deadlines": "", "dead letters": "", "ledger": ""}
        self.problems: dict[str, str] = {}
        seconds = {"deadlines": COUNT_EVERY_S, "dead letters": COUNT_EVERY_S, "ledger": ledger_every_s}
        self._counted = {what: every for what, every in seconds.items() if every > 0}
        self._threads = [
            threading.Thread(target=self._every, args=(what, every), name=f"monitor-{what}", daemon=True)
            for what, every in self._counted.items()
        ]

    @property
    def text(self) -> str:
        """The metrics as they were counted last, and which of them could not be counted."""
        out = Exposition()
        for what in self._counted:
            out.add(m.NOT_COUNTED, what in self.problems, what)
        return "".join(self._texts.values()) + out.text()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Waits for what is under way, but not for ever: the threads end with the process."""
        self._stop.set()
        for thread in self._threads:
            thread.join(5.0)

    def _every(self, what: str, seconds: float) -> None:
        count: Callable[[], str] = {
            "deadlines": self._deadlines, "dead letters": self._dead_letters, "ledger": self._ledger
        }[what]  # fmt: skip
        while not self._stop.is_set():
            try:
                self._texts[what] = count()
                self.problems.pop(what, None)
                wait = seconds
            except Exception as error:  # whatever it is: a thread that ends would leave its last figures standing
                if what not in self.problems:
                    known = isinstance(error, CurfewError | KafkaException | OSError)
                    log.warning("monitor.not_counted", what=what, error=repr(error), exc_info=not known)
                self.problems[what] = str(error) or repr(error)
                wait = RETRY_S
            self._stop.wait(wait)
        if what == "deadlines" and self._feed is not None:
            self._feed.close()

    def _deadlines(self) -> str:
        if self._feed is None:
            feed = ChangeFeed(self._kafka, self._codec, CHANGELOG)
            try:
                feed.start()
            except BaseException:
                feed.close()
                raise
            self._feed = feed
        while self._feed.poll(0.0):
            pass
        tick, machine = self._feed.time, datetime.now(UTC)
        silent_s = 0.0 if tick is None else max(0.0, (machine - tick.written_at).total_seconds())
        now = machine if tick is None else tick.now
        out = Exposition()
        if tick is not None:
            out.add(m.TICK_AGE, round(silent_s, 3))
            out.add(m.BUSINESS_TIME, tick.now.timestamp())
        deadline_metrics(out, lines(self._feed.entries.values(), now, clock_silent_s=silent_s))
        return out.text()

    def _dead_letters(self) -> str:
        with Scanner(self._kafka) as scanner:
            self._dead.read(scanner)
        out = Exposition()
        for (app, reason), count in sorted(self._dead.counts.items()):
            out.add(m.DEAD_LETTERS, count, app, reason)
        return out.text()

    def _ledger(self) -> str:
        out = Exposition()
        now_ms = time.time() * 1000
        for line in ledger.check(self._kafka, self._codec):
            for state in _STATES:
                out.add(m.DELIVERIES, getattr(line.balance, state), line.subscription, state)
            out.add(m.LEDGER_DIFFERENCE, line.difference, line.subscription)
            since = line.oldest_pending_ms
            age_s = 0.0 if since is None else max(0.0, round((now_ms - since) / 1000, 3))
            out.add(m.DELIVERY_OLDEST, age_s, line.subscription)
        out.add(m.LEDGER_AT, round(time.time(), 3))
        return out.text()


def deadline_metrics(out: Exposition, board: Iterable[Line]) -> None:
    """One effective date in one zone after the other; the first of them carries the rate of the whole system."""
    for number, line in enumerate(board):
        labels = line.zone, line.effective_date.isoformat()
        if number == 0:
            out.add(m.PERSIST_RATE, round(line.per_minute / 60, 6))
        out.add(m.DEADLINE_AT, line.deadline_at.timestamp(), *labels)
        out.add(m.DEADLINE_SLACK, None if line.margin is None else line.margin.total_seconds(), *labels)
        out.add(m.DEADLINE_ETA, None if line.eta is None else line.eta.timestamp(), *labels)
        out.add(m.DEADLINE_REMAINING, sum(line.count(stage) for stage in _REMAINING), *labels)
        out.add(m.DEADLINE_MISSED, line.missed, *labels)
        out.add(m.DEADLINE_STATE, list(Word).index(line.word), *labels)
        for stage, count in line.stages.items():
            out.add(m.DEADLINE_CHANGES, count, *labels, stage)


class _DeadLetters:
    """Counts the letters of all apps by reason, reading on where it was."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._next: dict[tuple[str, int], int] = {}

    def read(self, scanner: Scanner) -> None:
        for topic in scanner.topics(dead_letters.topic("")):
            app = topic.removeprefix(dead_letters.topic(""))
            spans = {
                number: Span(max(span.start, min(self._next.get((topic, number), 0), span.end)), span.end)
                for number, span in scanner.spans(topic).items()
            }
            for message in scanner.read(topic, spans):
                headers: dict[str, Any] = dict(message.headers() or ())
                reason = bytes(headers.get("curfew-reason") or b"unknown").decode("utf-8", "replace")
                self.counts[app, reason] += 1
            self._next |= {(topic, number): span.end for number, span in spans.items()}
