"""The soak: virtual nights one after another with the same processes, and whether anything grows, lags or is lost."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import psutil

from agents.bench.soak_work import Work
from agents.clock import ClockFace, VirtualClock, barrier_reads, due_reports
from agents.demo.fleet import NIGHT, Fleet
from agents.demo.place import Place
from agents.demo.producer import DemoProducer, send_fleet
from streams.core.errors import CurfewError
from streams.core.midnight import first_instant
from streams.kafka.catalogue import patiently
from streams.kafka.ledger import check as check_ledger
from streams.kafka.quiescence import Quiescence

#: The first nights fill caches and pools; growth is counted from the third one on.
WARM_NIGHTS = 3
#: Fewer nights than this after the warm ones say nothing about growth.
LEAST_NIGHTS = WARM_NIGHTS + 3
#: Resident memory may grow by this much per night after the warm ones.
MAX_GROWTH = 0.01
#: The billing store is in SQLite, whose cache fills as the store grows: full by the third night, it hides no leak.
CACHE_MIB = 4
STEP = timedelta(hours=2)
GRAIN = timedelta(minutes=30)
#: Deliveries are on the wall clock and follow the last tick of a night.
SETTLED_WITHIN_S = 60.0
LOOK_EVERY_S = 0.2
AFTER_LAST = timedelta(minutes=15)
MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Nights are played until ``minutes`` of wall time are over, at least :data:`LEAST_NIGHTS`."""

    minutes: float


@dataclass(slots=True, kw_only=True)
class Soak:
    """One run at one place. :meth:`run` makes the report; whoever made the place closes it."""

    options: Options
    place: Place
    fleet: Fleet
    say: Callable[[str], None]
    #: Process → resident memory (MiB) after each night.
    memory_mib: dict[str, list[float]] = field(default_factory=dict)
    differences: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    _producer: DemoProducer = field(init=False)
    _work: Work = field(init=False)

    def run(self) -> dict[str, Any]:
        """All nights. Raises CurfewError or StackError when one cannot be played."""
        place = self.place
        self.say("Kafka and registry with fresh data, topics, schemas, a receiver of webhooks …")
        place.start(CURFEW_SQLITE_CACHE_MIB=str(CACHE_MIB))
        place.apply_topics()
        place.apply_schemas()
        place.apply_configuration(place.start_receiver())
        place.start_workers()
        place.load_plans(self.fleet)
        self._producer = DemoProducer(place.settings)
        self._work = Work(self.fleet)
        send_fleet(self._producer, self.fleet)
        config, codec = place.settings.kafka(log_level=0), place.codec
        quiescence = Quiescence(place.kafka(), barrier_reads(place.manifest.groups, place.manifest.topics))
        face, due = ClockFace(config=config, codec=codec), due_reports(config, codec)
        patiently(due.start)
        try:
            return self._nights(VirtualClock(face=face, quiescence=quiescence, due=due, step=STEP, grain=GRAIN))
        finally:
            due.stop()
            face.close()

    def _nights(self, clock: VirtualClock) -> dict[str, Any]:
        began, nights, now = time.monotonic(), 0, self._end_of(NIGHT - timedelta(days=1))
        self._play(clock, now)
        while nights < LEAST_NIGHTS or time.monotonic() - began < self.options.minutes * 60:
            night = NIGHT + timedelta(days=nights)
            started = time.monotonic()
            for sending in self._work.evening(now, night):
                self._producer.put(sending.topic, sending.key, sending.value)
            self._producer.flush()
            now = self._end_of(night)
            clock.exactly = self._deadlines(night)
            self._play(clock, now)
            nights += 1
            self._look()
            memory = sum(samples[-1] for samples in self.memory_mib.values())
            self.say(
                f"night {nights} ({night}): {self._work.ordered:,} ordered, {self.place.store.counts().persisted:,} "
                f"persisted, difference {self.differences[-1]}, {memory:.0f} MiB, {time.monotonic() - started:.1f} s"
            )
        return self._report(nights)

    def _play(self, clock: VirtualClock, until: datetime) -> None:
        """Let time run until ``until`` and everything that it caused is finished."""
        stop, failed = threading.Event(), list[Exception]()

        def run() -> None:
            try:
                clock.run(stop, start=clock.face.now or until - STEP, until=until)
            except Exception as error:  # told by the main thread
                failed.append(error)

        thread = threading.Thread(target=run, name="soak-clock", daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                self.place.check()
                thread.join(LOOK_EVERY_S)
        finally:
            stop.set()
            thread.join()
        if failed:
            raise failed[0]

    def _look(self) -> None:
        """Wait for the deliveries of the night, then count and weigh."""
        deadline = time.monotonic() + SETTLED_WITHIN_S
        while True:
            lines = check_ledger(self.place.kafka(), self.place.codec)
            pending = sum(line.balance.pending + line.lag for line in lines)
            if not pending or time.monotonic() > deadline:
                break
            self.place.check()
        self.pending.append(pending)
        self.differences.append(sum(line.difference for line in lines))
        for child in self.place.supervisor.children:
            if child.process is None:
                raise CurfewError(f"{child.name} has died; see {self.place.logs}")
            resident = psutil.Process(child.process.pid).memory_info().rss / MIB
            self.memory_mib.setdefault(child.name, []).append(resident)

    def _deadlines(self, night: date) -> frozenset[datetime]:
        return frozenset(first_instant(zone, night) for zone in self.fleet.deadlines)

    def _end_of(self, night: date) -> datetime:
        return max(self._deadlines(night)) + AFTER_LAST

    def _report(self, nights: int) -> dict[str, Any]:
        counts, restarts = self.place.store.counts(), self.place.restarts()
        growth = {name: growth_per_night(samples[WARM_NIGHTS - 1 :]) for name, samples in self.memory_mib.items()}
        result: dict[str, Any] = {
            "nights": nights,
            "changes": self._work.ordered,
            "persisted": counts.persisted,
            "missed": counts.missed + counts.late,
            "ledger_difference": max(self.differences),
            "left_pending": max(self.pending),
            "restarts": restarts,
            "memory_mib": {name: [round(one, 1) for one in samples] for name, samples in self.memory_mib.items()},
            "growth_percent_per_night": {name: round(one * 100, 2) for name, one in growth.items()},
        }
        result["holds"] = (
            counts.persisted == self._work.ordered
            and not (result["missed"] or result["ledger_difference"] or result["left_pending"] or restarts)
            and max(growth.values()) <= MAX_GROWTH
        )
        return result


def growth_per_night(samples: list[float]) -> float:
    """Slope of the straight line through ``samples`` (least squares), as a share of the first one."""
    slope = statistics.linear_regression(range(len(samples)), samples).slope
    return slope / samples[0]
