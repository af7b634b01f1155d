"""Runs the canary: orders one change per hour, follows it through the topics, measures it and tells when it is late."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from confluent_kafka import KafkaException

from agents.canary import fleet, probes
from agents.canary.probes import Probe
from agents.configuration.records import write_records
from agents.plan_changes.plan_import import import_plans
from agents.watchdog.book import Book
from agents.watchdog.notify import Message, Notifier
from agents.watchdog.reader import LOOK_BACK, cluster_id
from streams import metrics as m
from streams.codec import Codec, Registry
from streams.core.clock import Tick
from streams.core.errors import Misconfigured, Poison, Transient
from streams.core.ids import derive, instant_text
from streams.core.plan_change.messages import Acknowledgement, Reply
from streams.core.watch_rules import Alarm, Level, Limits, Notice, Verdict, follow
from streams.exposition import Exposition, Histogram
from streams.kafka.health import Health
from streams.kafka.scan import Scanner, Span
from streams.kafka.worker_metrics import process_metrics
from streams.settings import ClockMode, Settings
from streams.sinks.billing import SqlBillingStore
from streams.topics import ACKNOWLEDGEMENTS, REPLIES, REQUESTS, TICKS

#: Seconds between two looks; a probe is a matter of minutes.
LOOK_EVERY_S: Final = 5.0
#: An order that nobody has answered is sent again after so long, in case it was never sent.
ASK_AGAIN_S: Final = 60.0
ALIVE_S: Final = 60.0
#: What is measured of every probe; round_trip is from the order until it is persisted.
STAGES: Final = {
    **dict.fromkeys(("accepted", "persisted", "effective"), probes.BUCKETS_S), "round_trip": probes.ROUND_TRIP_S
}  # fmt: skip
#: The canary has one alarm, not one per deadline; the book keeps it under this instant.
_ALARM: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WRONG_PLAN: Final = "element_not_for_plan"

log = structlog.get_logger(__name__)


def setup(settings: Settings) -> int:
    """Make the canaries: catalogue, accounts, services, and their plans in the billing store; returns how many.

    Run again, it changes nothing: every record has the same revision, and the store keeps what it has.
    """
    codec = Codec(Registry(settings.schema_registry_url))
    store = SqlBillingStore(settings.billing_store_url)
    try:
        for topic, records in fleet.objects().items():
            write_records(settings, codec, topic, records)
        long_ago = datetime(2000, 1, 1, tzinfo=UTC)
        return import_plans(store, codec, settings.kafka(log_level=0), fleet.plans(), occurred_at=long_ago)
    finally:
        store.dispose()


class Canary:
    """One process with its own book (``data_dir/canary``); raises Misconfigured when another one has it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kafka = settings.kafka(log_level=0)
        self._virtual = settings.clock is ClockMode.VIRTUAL
        self._book = Book.open(settings.data_dir / "canary")
        self.notifier = Notifier(settings, self._book, name="canary")
        self._codec = Codec(Registry(settings.schema_registry_url))
        self._decode = {
            REPLIES: self._codec.decoder(Reply),
            ACKNOWLEDGEMENTS: self._codec.decoder(Acknowledgement),
        }
        self._tick = self._codec.decoder(Tick)
        self._known_cluster = False
        self._alive_at = time.monotonic()
        #: When an order was last sent; a process that has just started cannot know.
        self._ordered_at = float("-inf")
        self._problem: str | None = None
        self._now: datetime | None = None
        self.probes: list[Probe] = probes.load(self._book.fact("probes"))
        self.alarm = self._book.alarm(_ALARM)
        #: Since this process started: a histogram of Prometheus may only grow, and the probes are soon forgotten.
        self._seconds = {stage: Histogram(bounds) for stage, bounds in STAGES.items()}

    # -- one look ---------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Read what has come, order what is due, judge; Kafka being away is a late canary, not an exception."""
        try:
            with Scanner(self._kafka) as scanner:
                self._now = self._time(scanner)
                if self._now is not None:
                    self._begin(scanner)
                    self._read(scanner)
                    self._order(self._now)
            self._problem = None
        except (Transient, KafkaException, Misconfigured) as error:
            if self._problem is None:
                log.warning("canary.cannot_order", error=str(error))
            self._problem = str(error)
            self._now = self._now if self._virtual else datetime.now(UTC)
        if self._now is not None:
            self._judge(self._now)
        self._alive_at = time.monotonic()

    def _time(self, scanner: Scanner) -> datetime | None:
        if not self._virtual:
            return datetime.now(UTC)
        spans = {number: Span(max(span.start, span.end - LOOK_BACK), span.end)
                 for number, span in scanner.spans(TICKS).items()}  # fmt: skip
        ticks = [self._tick(value) for one in scanner.read(TICKS, spans) if isinstance(value := one.value(), bytes)]
        return max((tick.now for tick in ticks), default=None)

    def _begin(self, scanner: Scanner) -> None:
        """At the first look nothing was ordered yet, so all that is in the topics is about others."""
        if self._known_cluster:
            return
        self._book.belongs_to(cluster_id(self._kafka))
        if self._book.fact("probes") is None:
            self.probes, self.alarm = [], Alarm(deadline_at=_ALARM)
        for topic in self._decode:
            if not self._book.positions(topic):
                with self._book.page():
                    self._book.reached(topic, {number: span.end for number, span in scanner.spans(topic).items()})
        self._known_cluster = True

    def _read(self, scanner: Scanner) -> None:
        for topic, decode in self._decode.items():
            known = self._book.positions(topic)
            spans = {
                number: Span(min(max(span.start, known.get(number, span.start)), span.end), span.end)
                for number, span in scanner.spans(topic).items()
            }
            for message in scanner.read(topic, spans):
                # Both topics are the whole fleet's: all but the canaries' records are not even decoded.
                if str(_text(message.key())).startswith(probes.PREFIX):
                    self._take(message.value(), decode)
            with self._book.page():
                self._book.reached(topic, {number: span.end for number, span in spans.items()})
                self._keep()

    def _take(self, value: Any, decode: Callable[[bytes | None], Any]) -> None:
        try:
            fact = decode(value)
        except Poison as error:
            log.warning("canary.unreadable", error=str(error))
            return
        for at, probe in enumerate(self.probes):
            match fact:
                case Reply():
                    after = probes.answered(probe, fact)
                case Acknowledgement():
                    after = probes.acknowledged(probe, fact)
                case _:
                    after = probe
            if after != probe:
                self.probes[at] = after
                self._measured(probe, after)

    def _measured(self, before: Probe, after: Probe) -> None:
        earlier, now = before.seconds(), after.seconds()
        for stage, histogram in self._seconds.items():
            seconds = now[f"{stage}_s"]
            if seconds is not None and earlier[f"{stage}_s"] is None:
                histogram.observe(seconds)
        if before.effective_at is None and after.effective_at is not None:
            log.info("canary.arrived", service_id=after.service_id, midnight=instant_text(after.midnight),
                     **after.seconds())  # fmt: skip

    def _order(self, now: datetime) -> None:
        midnight = probes.next_midnight(now)
        at = next((at for at, probe in enumerate(self.probes) if probe.midnight == midnight), None)
        if at is None:
            probe, request = probes.order(midnight, probes.ELEMENTS[0], now)
            self.probes.append(probe)
        elif self.probes[at].refused == _WRONG_PLAN and self.probes[at].element == probes.ELEMENTS[0]:
            # It is on the other plan: the way back.
            probe, request = probes.order(midnight, probes.ELEMENTS[1], now)
            self.probes[at] = probe
        elif self.probes[at].change_id is None and self.probes[at].refused is None:
            # Nobody has answered yet, or we died before it was sent: the same request again does no harm.
            if time.monotonic() - self._ordered_at < ASK_AGAIN_S:
                return
            probe, request = probes.order(midnight, self.probes[at].element, self.probes[at].ordered_at)
            waited_s = round((now - probe.ordered_at).total_seconds())
            if waited_s >= ASK_AGAIN_S:
                log.warning("canary.not_answered", service_id=probe.service_id, for_s=waited_s,
                            remedy="is the worker plan-changes up? curfew lag --group plan-changes")  # fmt: skip
        else:
            return
        with self._book.page():
            self._keep()
        write_records(self._settings, self._codec, REQUESTS, {request.account_id: request})
        self._ordered_at = time.monotonic()
        log.info("canary.ordered", service_id=probe.service_id, midnight=instant_text(midnight), element=probe.element)

    def _keep(self) -> None:
        self._book.note("probes", probes.dump(self.probes))

    def _judge(self, now: datetime) -> None:
        verdict, probe = probes.overall(self.probes, now)
        if self._problem is not None and not self.probes:
            return
        # One success ends the alarm: a canary has arrived, so the way is open.
        alarm, notice = follow(self.alarm, verdict, done=True, now=now, limits=Limits())
        if alarm == self.alarm:
            return
        with self._book.page():
            self._book.keep_alarm(alarm)
            if notice is not None and probe is not None:
                self.notifier.notify(self._message(verdict, probe, alarm, notice, now))
        self.alarm = alarm

    def _message(self, verdict: Verdict, probe: Probe, alarm: Alarm, notice: Notice, now: datetime) -> Message:
        said = verdict.detail or f"the change of {probe.service_id} came through"
        return Message(
            notice_id=derive("canary", notice.notice_id, probe.request_id),
            type=f"canary.{notice.kind}",
            at=now,
            subject_kind="canary",
            subject_id=probe.service_id,
            sequence=alarm.said,
            summary=f"canary: {'still so: ' if notice.repeated else ''}{said}",
            detail=self._problem or f"midnight {instant_text(probe.midnight)}, zone of {probe.service_id}",
            remedy="curfew lag, curfew plan-changes show SERVICE; what customers ordered waits at the same place",
            facts={name: _json(value) for name, value in probe.row(now).items() if name != "detail"},
        )

    # -- the process ------------------------------------------------------------------------------------------------

    async def run(self, *, every_s: float = LOOK_EVERY_S, health_port: int | None = None) -> None:
        """Look again and again until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        health = Health(
            health_port,
            lambda: (time.monotonic() - self._alive_at < ALIVE_S, self.report()),
            host=self._settings.health_host,
            metrics=self.metrics,
        )
        await health.start()
        try:
            while not stop.is_set():
                await asyncio.to_thread(self.look)
                await self.notifier.pump()
                try:
                    await asyncio.wait_for(stop.wait(), every_s)
                except TimeoutError:
                    continue
        finally:
            await health.stop()
            await self.close()

    async def once(self) -> dict[str, Any]:
        """One look, for cron: every ten minutes or more often."""
        try:
            await asyncio.to_thread(self.look)
            await self.notifier.pump()
            if self._problem is not None:
                raise Transient(self._problem)
            return self.report()
        finally:
            await self.close()

    def metrics(self) -> str:
        """For Prometheus."""
        out = Exposition()
        out.add(m.CANARY_STATE, self.alarm.level)
        for stage, histogram in self._seconds.items():
            out.add_histogram(m.CANARY_SECONDS, histogram, stage)
        return out.text() + process_metrics()

    def report(self) -> dict[str, Any]:
        """State, the newest probes, and the histograms of the stages in seconds, over the probes remembered."""
        now = self._now or datetime.now(UTC)
        newest = sorted(self.probes, key=lambda probe: probe.midnight, reverse=True)
        stages = ("accepted_s", "persisted_s", "effective_s")
        return {
            "state": self.alarm.level.word,
            "problem": self._problem,
            "histograms": {name: probes.histogram([one.seconds()[name] for one in newest]) for name in stages},
            "probes": [probe.row(now) for probe in newest],
        }

    @property
    def failing(self) -> bool:
        return self.alarm.level is not Level.OK

    async def close(self) -> None:
        await self.notifier.close()
        self._book.close()


def _json(value: Any) -> str | int | bool | None:
    return str(value) if isinstance(value, float) else value


def _text(key: Any) -> str | None:
    return key.decode(errors="replace") if isinstance(key, bytes) else key
