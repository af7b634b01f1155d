"""The dormancy bench: a fleet of SIMs through a hundred days of usage, every event compared with a count of its own.

One real usage worker on an embedded Kafka. Each day is a tick (what is due is told) and then the usage that arrives on
that day; the next day begins when nothing is in flight any more.
"""

from __future__ import annotations

import random
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from agents.bench.ground import Ground
from agents.clock import ClockFace, barrier_reads
from streams.codec import Codec
from streams.core.errors import CurfewError
from streams.core.events import Finding
from streams.core.objects import Op
from streams.core.usage.dormancy import DEFAULT_DAYS
from streams.core.usage.objects import About, Sim, SimChange, Usage, UsageContext
from streams.kafka.outbox import Outbox
from streams.kafka.quiescence import Quiescence
from streams.kafka.scan import Scanner, Spans
from streams.topics import FINDINGS, USAGE_CONTEXTS

WORKER = "usage"
USAGE, SIMS = "billing.usage", "billing.sim"
CHANGELOG = "usage-store-changelog"
DAY_0 = datetime(2026, 1, 1, tzinfo=UTC)
#: Days in which usage occurs; silences of thirty days and more come and go in them.
DAYS = 90
#: Of all records one in so many comes late, by up to :data:`LATEST` days; and one in four repeats the day before it.
LATE, LATEST, REPEATED = 33, 20, 4
SEED = 20260101
#: Between two looks whether anything is in flight; each costs the broker a request.
LOOK_EVERY_S = 0.02
TELL_EVERY_S = 10.0
STUCK_S = 300.0
#: Records that the outbox holds before it is waited for: a day's worth of a large fleet must not be in memory at once.
FLUSH_EVERY = 100_000
#: Records that the plain loop reads; more tell nothing new.
LOOP_RECORDS = 500_000
DORMANT, AGAIN = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``sims``, one per service, and ``usages`` spread over them and over the days."""

    sims: int
    usages: int


class Story:
    """Which SIM is used on which day, and on which day that arrives: by day of arrival, SIMs and days of the event."""

    def __init__(self, options: Options) -> None:
        rng = random.Random(SEED)
        self.sims: list[array[int]] = [array("I") for _ in range(DAYS + LATEST + 1)]
        self.days: list[array[int]] = [array("B") for _ in range(DAYS + LATEST + 1)]
        self.sim_days = 0
        sim = day = 0
        seen = set[int]()
        for number in range(options.usages):
            if number % REPEATED != REPEATED - 1:
                sim, day = rng.randrange(options.sims), rng.randrange(DAYS)
            arrives = day + (rng.randrange(1, LATEST + 1) if number % LATE == 0 else 0)
            self.sims[arrives].append(sim)
            self.days[arrives].append(day)
            seen.add(sim * DAYS + day)
        self.sim_days = len(seen)

    @property
    def last_day(self) -> int:
        """The first day on which nothing is left to happen."""
        return len(self.sims) + DEFAULT_DAYS + 1


def expected(options: Options, story: Story) -> Iterator[tuple[int, int, int]]:
    """(kind, SIM, day on which the silence began) of every event, in the order of days: each SIM is looked at on each
    day, by the rule as people say it. Nothing here is shared with the worker."""
    last = array("h", [-1]) * options.sims
    asleep = bytearray(options.sims)
    for day in range(story.last_day + 1):
        silent = day - 1 - DEFAULT_DAYS
        for sim, used in enumerate(last):
            if used <= silent and not asleep[sim]:
                asleep[sim] = 1
                yield DORMANT, sim, used + 1
        if day < len(story.sims):
            for sim, used in zip(story.sims[day], story.days[day], strict=True):
                if used > last[sim]:
                    if asleep[sim]:
                        asleep[sim] = 0
                        yield AGAIN, sim, last[sim] + 1
                    last[sim] = used


@dataclass(slots=True, kw_only=True)
class Dormancy:
    """One run on one ground. :meth:`run` makes the report; whoever made the ground closes it."""

    options: Options
    ground: Ground
    say: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)
    _face: ClockFace = field(init=False)
    _quiescence: Quiescence = field(init=False)
    _scanner: Scanner = field(init=False)
    _told: float = field(default_factory=time.monotonic)

    def run(self) -> dict[str, Any]:
        """All phases. Raises CurfewError or StackError when one of them cannot be done."""
        with self._phase("stack"):
            self.ground.start()
        manifest = self.ground.manifest
        reads = barrier_reads({WORKER: manifest.groups[WORKER]}, manifest.topics)
        self._quiescence = Quiescence(self.ground.kafka(), reads)
        self._face = ClockFace(config=self.ground.kafka(), codec=self.ground.codec)
        story = Story(self.options)
        try:
            with Scanner(self.ground.kafka()) as self._scanner:
                self.ground.start_workers()
                with self._phase("fleet"):
                    self._define()
                before = self._ends(CHANGELOG)
                by_usage = self._play(story)
                self.ground.sample()
                rows = self._ends(CHANGELOG) - before
                with self._phase("comparing"):
                    report = self._compare(story)
                self.ground.stop_workers()
                with self._phase("plain loop"):
                    plain = _plain_loop(self.ground.kafka(), self.ground.codec, self._scanner.spans(USAGE))
        finally:
            self._face.close()
        rate = self.options.usages / self.seconds["usage"]
        report |= {
            "sims": self.options.sims,
            "usages": self.options.usages,
            "writes_by_usage": by_usage,
            "days_with_usage": story.sim_days,
            "writes_per_sim_and_day": round(by_usage / story.sim_days, 4),
            "changelog_rows": rows,
            "records_per_second": round(rate),
            "records_per_cpu_second": round(self.options.usages / self.cpu_s["usage"]),
            "plain_loop_records_per_second": round(plain),
            "ratio_to_plain_loop": round(rate / plain, 3),
            "told_per_second": round(report["told"] / self.seconds["ticks"]),
            "peak_memory_mib": {name: round(mib) for name, mib in sorted(self.ground.peak_mib.items())},
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
        }
        report["holds"] = bool(report["exact"]) and by_usage <= story.sim_days
        return report

    # -- phases -------------------------------------------------------------------------------------------------------

    def _define(self) -> None:
        """Every SIM is activated, and every service active, on day 0."""
        self._face.tick(DAY_0)
        outbox, encode = Outbox(self.ground.kafka()), self.ground.codec.encode
        try:
            for number in range(self.options.sims):
                service, account = _service(number), f"A{number % 1000}"
                context = UsageContext(
                    service_id=service, account_id=account, about=About.STATE, revision=1, since=DAY_0, state="Active"
                )
                sim = Sim(id=_sim(number), account_id=account, service_id=service, activated_at=DAY_0)
                change = SimChange(op=Op.CREATED, current=sim, revision=1, occurred_at=DAY_0, source="bench")
                outbox.emit(USAGE_CONTEXTS, service, encode(USAGE_CONTEXTS, context))
                outbox.emit(SIMS, service, encode(SIMS, change))
                self._pace(outbox, number, "SIMs")
            outbox.flush(0)
        finally:
            outbox.close()
        self._settle()

    def _play(self, story: Story) -> int:
        """All days; returns the rows that usage has written."""
        outbox = Outbox(self.ground.kafka())
        sent = rows = 0
        try:
            for day in range(story.last_day + 1):
                with self._phase("ticks"):
                    self._face.tick(DAY_0 + timedelta(days=day))
                    self._settle()
                if day >= len(story.sims):
                    continue
                before = self._ends(CHANGELOG)
                with self._phase("usage"):
                    sent = self._send(outbox, story, day, sent)
                    self._settle()
                rows += self._ends(CHANGELOG) - before
        finally:
            outbox.close()
        return rows

    def _send(self, outbox: Outbox, story: Story, day: int, sent: int) -> int:
        encode = self.ground.codec.encode
        quantity = Decimal("0.125")
        for sim, used in zip(story.sims[day], story.days[day], strict=True):
            service = _service(sim)
            usage = Usage(
                id=f"u{sent}", account_id=f"A{sim % 1000}", service_id=service, sim_id=_sim(sim), quantity=quantity,
                unit="MB", event_time=DAY_0 + timedelta(days=used, seconds=sent % 86_400),
            )  # fmt: skip
            outbox.emit(USAGE, service, encode(USAGE, usage))
            sent += 1
            self._pace(outbox, sent, f"usage records, day {day}")
        outbox.flush(0)
        return sent

    def _compare(self, story: Story) -> dict[str, Any]:
        """What was told against what should have been, event by event."""
        wanted = {_packed(*one) for one in expected(self.options, story)}
        decode = self.ground.codec.decoder(Finding)
        found: set[int] = set()
        kinds = {"sim.dormant": DORMANT, "sim.active_again": AGAIN}
        told = corrections = 0
        for record in self._scanner.read(FINDINGS, self._scanner.spans(FINDINGS)):
            finding = decode(record.value())
            since = finding.facts["silent_since"]
            assert isinstance(since, datetime)
            found.add(_packed(kinds[finding.type], int(finding.subject_id[3:]), (since - DAY_0).days))
            corrections += finding.facts.get("correction") is True
            told += 1
        return {
            "dormant": sum(1 for one in wanted if one & 1 == DORMANT),
            "active_again": sum(1 for one in wanted if one & 1 == AGAIN),
            "corrections": corrections,
            "told": told,
            "told_twice": told - len(found),
            "missing": len(wanted - found),
            "wrong": len(found - wanted),
            "exact": wanted == found and told == len(found),
        }

    # -- helpers ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        """Measure a phase; those that come again add up."""
        began, cpu = time.monotonic(), self._cpu()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began
        self.cpu_s[name] = self.cpu_s.get(name, 0.0) + self._cpu() - cpu

    def _cpu(self) -> float:
        """Processor time of the worker so far."""
        running = any(child.process is not None for child in self.ground.supervisor.children)
        return self.ground.cpu_s()[WORKER] if running else 0.0

    def _settle(self) -> None:
        """Wait until the worker has nothing in flight."""
        moved, before = time.monotonic(), -1
        while waiting := self._quiescence.waiting():
            self.ground.check()
            left = sum(one.records or 0 for one in waiting)
            if left != before:
                moved, before = time.monotonic(), left
            if time.monotonic() - moved > STUCK_S:
                raise CurfewError(f"{left} records wait and nothing moves for {STUCK_S:.0f} s: see the worker's log")
            time.sleep(LOOK_EVERY_S)

    def _pace(self, outbox: Outbox, number: int, what: str) -> None:
        if number % FLUSH_EVERY == 0:
            outbox.flush(0)
            self.ground.check()
            self.ground.sample()
        if time.monotonic() - self._told > TELL_EVERY_S:
            self._told = time.monotonic()
            self.say(f"  {number:,} {what}")

    def _ends(self, topic: str) -> int:
        return sum(span.end for span in self._scanner.spans(topic).values())


def _plain_loop(config: dict[str, Any], codec: Codec, spans: Spans) -> float:
    """Records per second of the least that anything must do here: read, decode, keep the last day of each SIM in
    memory, commit per 500. No rows, no changelog, no events, nothing survives it."""
    total = min(LOOP_RECORDS, sum(span.end for span in spans.values()))
    decode = codec.decoder(Usage)
    consumer = Consumer({**config, "group.id": "bench-plain-loop", "enable.auto.commit": False})
    consumer.assign([TopicPartition(USAGE, partition, 0) for partition in spans])
    last: dict[str, int] = {}
    began, count = time.monotonic(), 0
    try:
        while count < total:
            records = consumer.consume(500, 5.0)
            for record in records:
                usage = decode(record.value())
                day = usage.event_time.toordinal()
                if day > last.get(usage.service_id, 0):
                    last[usage.service_id] = day
            count += len(records)
            consumer.commit(asynchronous=False)
    finally:
        consumer.close()
    return count / (time.monotonic() - began)


def _packed(kind: int, sim: int, day: int) -> int:
    """One number per event: sets of millions of tuples would be gigabytes."""
    return (sim * 1024 + day) * 2 + kind


def _service(number: int) -> str:
    return f"S{number:07}"


def _sim(number: int) -> str:
    return f"sim{number:07}"
