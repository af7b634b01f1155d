"""The watchdog: an independent eye on every deadline of plan changes, that tells people directly.

It shares nothing with the scheduler but the topics: no Faust app, no group, no rows. What has been accepted it knows
from replies and findings, what is persisted from acknowledgements and, before it says "missed", from the billing store.
Per look: read all that is new, judge each deadline (:mod:`streams.core.watch_rules`), write notices, send them.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog

from agents.watchdog.book import Book
from agents.watchdog.notify import Notifier
from agents.watchdog.reader import Reader, SchedulerPulse, cluster_id
from agents.watchdog.store import MOST, StoreCheck
from agents.watchdog.words import Seen, message, watchdog_metrics
from streams.codec import Codec, Registry
from streams.core.errors import CurfewError, Misconfigured, Transient
from streams.core.events import Finding
from streams.core.ids import instant_text
from streams.core.watch import Standing, Tracked, at_risk
from streams.core.watch_rules import (
    DEFAULT_LIMITS,
    Alarm,
    Deadline,
    Level,
    Limits,
    Notice,
    NoticeKind,
    Pulse,
    Verdict,
    follow,
    judge,
)
from streams.kafka.health import Health
from streams.kafka.outbox import Outbox
from streams.settings import ClockMode, Settings
from streams.topics import FINDINGS

#: Seconds between two looks. A look asks Kafka a few dozen questions; a deadline is a matter of minutes.
LOOK_EVERY_S: Final = 2.0
#: ``rate_plan_change.at_risk`` is raised for so many changes of one deadline, those due first; the others are counted
#: in the notice. A stopped scheduler puts a whole fleet at risk, and a million events would be the next accident.
MOST_FINDINGS: Final = 1_000
#: Services that a notice names, so that somebody can look at one at once.
SAMPLE: Final = 5
#: A book that begins (a first start, a lost disk) finds the misses of a week in the topics; those older than this have
#: been dealt with, or nobody will now.
OLD: Final = timedelta(hours=24)
#: Not one look for so long: the endpoint says that the watchdog is not alive.
ALIVE_S: Final = 60.0
FORGET_EVERY_S: Final = 3600.0

log = structlog.get_logger(__name__)


class Watchdog:
    """One watchdog with its book; :meth:`look` blocks, :meth:`run` is its process."""

    def __init__(self, settings: Settings, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self._settings = settings
        self._virtual = settings.clock is ClockMode.VIRTUAL
        self._limits = limits
        self._book = Book.open(settings.data_dir / "watchdog")
        self.notifier = Notifier(settings, self._book)
        self._codec = Codec(Registry(settings.schema_registry_url))
        self._kafka = settings.kafka(log_level=0)
        hours = settings.second_part_hours
        self._reader = Reader(
            self._kafka, self._codec, self._book,
            second_part=None if hours is None else timedelta(hours=hours),
        )  # fmt: skip
        self._store = StoreCheck(settings)
        self._scheduler = SchedulerPulse(self._book)
        self._encode = self._codec.encoder(FINDINGS, Finding)
        self._known_cluster = False
        self._started_at = datetime.now(UTC)
        self._alive_at = time.monotonic()
        self._forgot_at = float("-inf")
        self._problem: str | None = None
        self._health: dict[str, Any] = {"state": "starting"}
        self._metrics = ""
        self.seen: list[Seen] = []

    @property
    def problem(self) -> str | None:
        """Why the last look could not read anything; what it has seen is what was known before."""
        return self._problem

    # -- one look ---------------------------------------------------------------------------------------------------

    def look(self) -> list[Seen]:
        """Read, judge, and queue what is to be said; what cannot be read is a finding too, never an exception."""
        scheduler_silent_s = 0.0
        try:
            scheduler_silent_s = self._read()
            self._problem = None
        except (Transient, Misconfigured) as error:
            if self._problem is None:
                log.warning("watchdog.blind", error=str(error))
            self._problem = str(error)
        wall = datetime.now(UTC)
        now = self._reader.now if self._virtual else wall
        if now is not None:
            pulse = replace(
                self._book.pulse(now, self._limits),
                blind_s=self._blind_s(wall),
                clock_silent_s=self._clock_silent_s(wall),
                scheduler_silent_s=scheduler_silent_s,
            )
            self.seen = self._judge(pulse, now)
            self._raise_findings(now)
            self._forget(now)
        self._alive()
        return self.seen

    def _alive(self) -> None:
        self._alive_at = time.monotonic()

    def _read(self) -> float:
        if not self._known_cluster:
            self._book.belongs_to(cluster_id(self._kafka))
            self._known_cluster = True
        self._reader.read(self._alive)
        handled, ticks = self._reader.scheduler_progress()
        with self._book.page():
            self._book.note("read_at", datetime.now(UTC).isoformat())
        return self._scheduler.silent_s(handled, ticks)

    def _blind_s(self, wall: datetime) -> float:
        """Since the last time that everything was read, also by an earlier process."""
        read_at = self._book.fact("read_at")
        return 0.0 if read_at is None else (wall - datetime.fromisoformat(read_at)).total_seconds()

    def _clock_silent_s(self, wall: datetime) -> float:
        """A virtual clock may stand still for as long as it likes: its night is over, or somebody is thinking."""
        if self._virtual:
            return 0.0
        return (wall - (self._reader.now or self._started_at)).total_seconds()

    def _judge(self, pulse: Pulse, now: datetime) -> list[Seen]:
        first = self._book.fact("began") is None
        if first and self._problem is not None:  # nothing is known yet
            return []
        found = []
        for deadline in self._confirmed(now):
            verdict = judge(deadline, pulse, now, self._limits)
            before = self._book.alarm(deadline.deadline_at)
            alarm, notice = follow(before, verdict, done=not deadline.open, now=now, limits=self._limits)
            if first and notice is not None and deadline.deadline_at < now - OLD:
                log.warning("watchdog.found_old", deadline=instant_text(deadline.deadline_at), detail=verdict.detail)
                notice = None
            with self._book.page():
                if alarm != before:
                    self._book.keep_alarm(alarm)
                if notice is not None:
                    self._say(deadline, verdict, alarm, notice, now)
            found.append(Seen(deadline=deadline, verdict=verdict, alarm=alarm))
        if first:
            with self._book.page():
                self._book.note("began", instant_text(now))
        return found

    def _confirmed(self, now: datetime) -> Sequence[Deadline]:
        """The deadlines, after the billing store was asked about what seems to be missed and was not said yet."""
        deadlines = self._book.deadlines(now, self._limits)
        asked = [
            one.deadline_at
            for one in deadlines
            if one.open
            and now >= one.deadline_at + self._limits.missed_after
            and self._book.alarm(one.deadline_at).level is not Level.MISSED
        ]
        for at in asked:
            try:
                facts = self._store.persisted(self._book.unsettled(at, MOST))
            except CurfewError as error:
                log.warning("watchdog.store_not_asked", deadline=instant_text(at), error=str(error))
                return deadlines
            if facts:
                log.warning("watchdog.unacknowledged", deadline=instant_text(at), changes=len(facts))
                with self._book.page():
                    self._book.add(facts, now)
        return self._book.deadlines(now, self._limits) if asked else deadlines

    # -- telling ----------------------------------------------------------------------------------------------------

    def _say(self, deadline: Deadline, verdict: Verdict, alarm: Alarm, notice: Notice, now: datetime) -> None:
        at = instant_text(deadline.deadline_at)
        sample = self._book.unsettled(deadline.deadline_at, SAMPLE, (Standing.OPEN, Standing.STUCK, Standing.MISSED))
        raised = 0
        if notice.kind is NoticeKind.AT_RISK and not notice.repeated:
            raised = min(deadline.stuck if verdict.reason == "stuck" else deadline.open, MOST_FINDINGS)
            self._to_raise({**self._waiting_findings(), at: verdict.reason})
        services = [one.service_id for one in sample]
        self.notifier.notify(message(deadline, verdict, alarm, notice, now, services=services, raised=raised))

    def _raise_findings(self, now: datetime) -> None:
        """``rate_plan_change.at_risk`` for those in danger; kept until Kafka has them, the ids are always the same."""
        waiting = self._waiting_findings()
        if not waiting:
            return
        outbox = Outbox(self._kafka)  # for this time: nobody would take what it is told while no finding is raised
        try:
            for at, reason in waiting.items():
                for change in self._endangered(datetime.fromisoformat(at), reason):
                    finding = at_risk(change, reason, now)
                    outbox.emit(FINDINGS, finding.key, self._encode(finding))
            outbox.flush(0)
        except CurfewError as error:
            log.warning("watchdog.not_raised", deadlines=list(waiting), error=str(error))
            return
        finally:
            outbox.close()
        with self._book.page():
            self._to_raise({})

    def _endangered(self, deadline: datetime, reason: str) -> list[Tracked]:
        standings = (Standing.STUCK,) if reason == "stuck" else (Standing.OPEN, Standing.STUCK)
        return self._book.unsettled(deadline, MOST_FINDINGS, standings)

    def _waiting_findings(self) -> dict[str, str]:
        waiting: dict[str, str] = json.loads(self._book.fact("to_raise") or "{}")
        return waiting

    def _to_raise(self, deadlines: dict[str, str]) -> None:
        self._book.note("to_raise", json.dumps(deadlines))

    def _forget(self, now: datetime) -> None:
        if time.monotonic() - self._forgot_at > FORGET_EVERY_S:
            self._forgot_at = time.monotonic()
            with self._book.page():
                self._book.forget(now)

    # -- the process ------------------------------------------------------------------------------------------------

    async def run(self, *, every_s: float = LOOK_EVERY_S, health_port: int | None = None) -> None:
        """Look again and again until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        health = Health(health_port, self.report, host=self._settings.health_host, metrics=lambda: self._metrics)
        await health.start()
        log.info("watchdog.started", channels=["log", *self.notifier.channels], clock=self._settings.clock.value)
        try:
            while not stop.is_set():
                await asyncio.to_thread(self.look)
                await self.notifier.pump()
                self._tell_health()
                try:
                    await asyncio.wait_for(stop.wait(), every_s)
                except TimeoutError:
                    continue
        finally:
            await health.stop()
            await self.close()

    async def once(self) -> list[Seen]:
        """One look, for cron; notices that cannot be sent now are tried again by the next one."""
        try:
            seen = await asyncio.to_thread(self.look)
            await self.notifier.pump()
            if self._problem is not None and not seen:
                raise Transient(self._problem)
            return seen
        finally:
            await self.close()

    def report(self) -> tuple[bool, dict[str, Any]]:
        """For the health endpoint: alive while it looks, whatever it sees."""
        age = time.monotonic() - self._alive_at
        return age < ALIVE_S, {"looked_s_ago": round(age, 1), **self._health}

    def _tell_health(self) -> None:
        """Prepared between two looks: the book is never used from two threads at once."""
        self._metrics = watchdog_metrics(self.seen, blind=self._problem is not None)
        worst = max((one.alarm.level for one in self.seen), default=Level.OK)
        self._health = {
            "state": worst.word,
            "problem": self._problem,
            "now": None if self._reader.now is None else instant_text(self._reader.now),
            "records": self._reader.records,
            "unreadable": self._reader.unreadable,
            "notices": self._book.sending_counts(),
            "last_error": self._book.last_error(),
            "deadlines": [one.row() for one in self.seen],
        }

    async def close(self) -> None:
        await self.notifier.close()
        self._reader.close()
        self._store.close()
        self._book.close()
