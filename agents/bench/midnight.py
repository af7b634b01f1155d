"""The midnight bench: so many pending plan changes, all for one midnight, from their order until they are true."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from agents.bench import orders, persist, stages
from agents.bench.ground import WORKERS, Ground
from agents.bench.stages import Stage
from agents.clock import ClockFace, barrier_reads
from streams.core.errors import CurfewError
from streams.kafka.outbox import Outbox
from streams.kafka.quiescence import Quiescence
from streams.kafka.scan import Scanner
from streams.topics import ACKNOWLEDGEMENTS, FINDINGS, REPLIES, SERVICE_PLANS, VALIDATED

#: Between two looks at how far the workers are; each look costs the broker some requests.
LOOK_EVERY_S = 0.5
#: While the answer to a probe is awaited.
PROBE_EVERY_S = 0.02
TELL_EVERY_S = 10.0
#: Nothing moves for so long: a worker that cannot go on.
STUCK_S = 180.0
#: Plans imported and orders encoded at once; a list of a million would be in the bench's peak memory.
BATCH = 10_000
#: ``ordered``, ``started``, ``executed``, ``persisted``, ``completed``.
FINDINGS_PER_CHANGE = 5
#: The slack that 99.9 % of the changes have at least.
TAIL = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``changes`` for one midnight, which comes ``minutes`` of wall time after all of them became due."""

    changes: int
    minutes: float


@dataclass(slots=True, kw_only=True)
class Midnight:
    """One run on one ground. :meth:`run` makes the report; whoever made the ground closes it."""

    options: Options
    ground: Ground
    say: Callable[[str], None]
    phases: dict[str, float] = field(default_factory=dict)
    #: Phase → process → milliseconds of processor time per change; what a busy machine does not distort.
    cpu_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    _told: float = field(default_factory=time.monotonic)
    _face: ClockFace = field(init=False)
    _scanner: Scanner = field(init=False)

    def run(self) -> dict[str, Any]:
        """All phases. Raises CurfewError or StackError when one of them cannot be done."""
        with self._phase("stack", "Kafka and registry with fresh data, topics, schemas"):
            self.ground.start()
        self._face = ClockFace(config=self.ground.kafka(), codec=self.ground.codec)
        try:
            with Scanner(self.ground.kafka()) as self._scanner:
                self._face.tick(orders.ORDERED)
                with self._phase("load", f"{self.options.changes:,} service plans and orders"):
                    self._load()
                with self._phase("pending", "workers start and take the orders"):
                    self._order()
                restart = {"warm": self._restart(1, wipe=False), "cold": self._restart(2, wipe=True)}
                began_ms = round(time.time() * 1000)
                with (
                    self._phase("drain", f"all are due; midnight is in {self.options.minutes:g} minutes"),
                    self._cpu("drain"),
                ):
                    self._drain()
                midnight_ms = round(time.time() * 1000)
                with self._phase("effective", "midnight; what is persisted becomes true"), self._cpu("effective"):
                    self._settle()
                with self._phase("counting", "records and rows"):
                    found = stages.read(self._scanner)
                    report = self._report(found, began_ms, midnight_ms, restart)
        finally:
            self._face.close()
        self.ground.stop_workers()
        with self._phase("persister", "against a bare loop of the same statements"):
            report |= persist.measure(self.ground.new_database)
        return report

    # -- phases -----------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        """Plans into the billing store and orders into Kafka, while no worker runs."""
        changes = self.options.changes
        outbox = Outbox(self.ground.kafka())
        encode = self.ground.codec.encode
        try:
            numbers = iter(range(changes))
            while batch := list(islice(numbers, BATCH)):
                plans = (orders.plan(number, changes) for number in batch)
                self.ground.store.load_plans(plans, occurred_at=orders.LONG_AGO)
                for number in batch:
                    order = orders.order(number, changes)
                    outbox.emit(VALIDATED, order.request.service_id, encode(VALIDATED, order))
                if self._may_tell():
                    self.say(f"  load: {batch[-1] + 1:,}")
            outbox.flush(0)
        finally:
            outbox.close()

    def _order(self) -> None:
        self.ground.start_workers()
        self._wait("pending", lambda: self._ends(REPLIES) >= self.options.changes, lambda: f"{self._ends(REPLIES):,}")
        self._wait_for_rest()

    def _restart(self, number: int, *, wipe: bool) -> float:
        """Seconds from the start of a new scheduler until every partition has answered a request."""
        name = "cold" if wipe else "warm"
        probes, before = orders.probes(number), self._ends(REPLIES)
        with self._phase(f"restart, {name} store", "the scheduler is killed"):
            self.ground.kill(WORKERS[0])
            outbox = Outbox(self.ground.kafka())
            try:
                for probe in probes:
                    outbox.emit(VALIDATED, probe.request.service_id, self.ground.codec.encode(VALIDATED, probe))
                outbox.flush(0)
            finally:
                outbox.close()
            began = time.monotonic()
            self.ground.revive(WORKERS[0], wipe=wipe)
            self._wait(name, lambda: self._ends(REPLIES) >= before + len(probes), str, every=PROBE_EVERY_S)
            took = time.monotonic() - began
            self._wait_for_rest()
        return round(took, 2)

    def _drain(self) -> None:
        """From "all are due" on, time runs along the wall clock, so fast that midnight is there after ``minutes``."""
        changes = self.options.changes
        began, speed = time.monotonic(), self.speed

        def finished() -> bool:
            now = orders.ALL_DUE + timedelta(seconds=(time.monotonic() - began) * speed)
            self._tick(min(now, orders.DEADLINE))
            return now >= orders.DEADLINE or self._ends(FINDINGS) >= changes * FINDINGS_PER_CHANGE

        def told() -> str:
            done = self._ends(ACKNOWLEDGEMENTS)
            return f"{self._ends('plan-change.outcomes'):,} executed, {done:,} persisted"

        self._wait("drain", finished, told, stuck_s=float("inf"))
        self._wait_for_rest()

    def _settle(self) -> None:
        """Midnight, and after it time as it is on the wall."""
        began = time.monotonic()

        def finished() -> bool:
            self._tick(orders.DEADLINE + timedelta(seconds=time.monotonic() - began))
            return self._ends(SERVICE_PLANS) >= self.options.changes

        self._wait("effective", finished, lambda: f"{self._ends(SERVICE_PLANS):,}")
        self._wait_for_rest()

    # -- report -----------------------------------------------------------------------------------------------------

    @property
    def speed(self) -> float:
        """Seconds of virtual time per second of the wall's, between "all are due" and midnight."""
        return (orders.DEADLINE - orders.ALL_DUE).total_seconds() / (self.options.minutes * 60)

    def _report(
        self, found: dict[str, Stage], began_ms: int, midnight_ms: int, restart: dict[str, float]
    ) -> dict[str, Any]:
        changes, nothing = self.options.changes, Stage()
        names = {
            "pending": "ordered", "started": "started", "executed": "executed", "persisted": "ack.persisted",
            "completed": "completed", "effective": "effective",
        }  # fmt: skip
        seen = {name: found.get(source, nothing) for name, source in names.items()}
        slacks = sorted(
            (one.deadline - one.committed_at).total_seconds()
            for one in self.ground.store.changes()
            if one.committed_at is not None
        )
        counts = self.ground.store.counts()
        dead = sum(self._ends(f"dead-letters.{name}") for name in WORKERS)
        completed = seen["completed"]
        result: dict[str, Any] = {
            "changes": changes,
            "largest_account": changes // orders.BIG_SHARE,
            "counts": {name: stage.count for name, stage in seen.items()},
            "missed": counts.missed,
            "late": counts.late,
            "lost": changes - counts.persisted,
            "not_released": changes - counts.released,
            "dead_letters": dead,
            "drain_s": round((completed.last - began_ms) / 1000, 1) if completed.count else None,
            "drain_limit_s": round(self.options.minutes * 60),
            "effective_s": round((seen["effective"].last - midnight_ms) / 1000, 1) if seen["effective"].count else None,
            "changes_per_second": {name: stage.per_second() for name, stage in seen.items()},
            "speed_of_virtual_time": round(self.speed, 3),
            "slack_virtual_s": _least(slacks),
            "slack_wall_s": _least([slack / self.speed for slack in slacks]),
            "restart_s": restart,
            "peak_memory_mib": {name: round(peak) for name, peak in self.ground.peak_mib.items()},
            "cpu_ms_per_change": self.cpu_ms,
            "phases_s": {name: round(took, 1) for name, took in self.phases.items()},
        }
        bad = ("missed", "late", "lost", "not_released", "dead_letters")
        # Told twice is allowed (at least once, under the same id); told to nobody is not.
        result["repeated"] = {name: count - changes for name, count in result["counts"].items() if count > changes}
        result["holds"] = not any(result[name] for name in bad) and min(result["counts"].values()) >= changes
        if completed.count:
            result["changes_per_second"]["drain"] = round(changes / (completed.last - began_ms) * 1000, 1)
        return result

    # -- waiting ----------------------------------------------------------------------------------------------------

    def _tick(self, now: datetime) -> None:
        self._face.tick(now.replace(microsecond=now.microsecond // 1000 * 1000))

    def _ends(self, topic: str) -> int:
        return sum(span.end for span in self._scanner.spans(topic).values())

    def _wait_for_rest(self) -> None:
        """Until nothing is in flight between the workers."""
        manifest = self.ground.manifest
        reads = barrier_reads({name: manifest.groups[name] for name in WORKERS}, manifest.topics)
        quiescence = Quiescence(self.ground.kafka(), reads)
        self._wait("rest", lambda: not quiescence.waiting(), lambda: ", ".join(map(str, quiescence.waiting())))

    def _wait(
        self,
        what: str,
        reached: Callable[[], bool],
        told: Callable[[], str],
        *,
        every: float = LOOK_EVERY_S,
        stuck_s: float = STUCK_S,
    ) -> None:
        """Until ``reached``. Raises CurfewError when ``told`` says the same for long, or a process has died."""
        last, moved = "", time.monotonic()
        while not reached():
            self.ground.check()
            self.ground.sample()
            now = told() if self._may_tell() else last
            if now != last:
                last, moved = now, time.monotonic()
                self.say(f"  {what}: {now}")
            elif time.monotonic() - moved > stuck_s:
                raise CurfewError(f"{what}: nothing moves, at {now or told()}; see {self.ground.supervisor.log_dir}")
            time.sleep(every)

    def _may_tell(self) -> bool:
        """Once in a while."""
        if time.monotonic() - self._told < TELL_EVERY_S:
            return False
        self._told = time.monotonic()
        return True

    @contextmanager
    def _cpu(self, phase: str) -> Iterator[None]:
        before = self.ground.cpu_s()
        yield
        after = self.ground.cpu_s()
        self.cpu_ms[phase] = {
            name: round((spent - before[name]) / self.options.changes * 1000, 3) for name, spent in after.items()
        }

    @contextmanager
    def _phase(self, name: str, about: str) -> Iterator[None]:
        began = time.monotonic()
        self.say(f"{name}: {about} …")
        yield
        self.phases[name] = time.monotonic() - began
        self.say(f"{name}: {self.phases[name]:.1f} s")


def _least(slacks: list[float]) -> dict[str, float] | None:
    """The least slack, and the one that 99.9 % have at least; ``slacks`` in rising order."""
    if not slacks:
        return None
    return {"min": round(slacks[0], 3), "p99_9": round(slacks[int(len(slacks) * TAIL)], 3)}
