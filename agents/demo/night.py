"""The demo from its first to its last step."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agents.clock import ClockFace, VirtualClock, barrier_reads, due_reports
from agents.demo import report as reports
from agents.demo import script as scripts
from agents.demo.fleet import Fleet
from agents.demo.place import Place
from agents.demo.producer import GROUP
from agents.demo.report import Check, Report
from agents.demo.screen import Screen
from agents.demo.script import Script
from agents.demo.watch import Seen, Watch
from agents.events.engine import totals
from streams.core.errors import CurfewError
from streams.kafka.catalogue import patiently
from streams.kafka.ledger import Line
from streams.kafka.ledger import check as check_ledger
from streams.kafka.quiescence import Quiescence, Waiting
from streams.kafka.scan import Scanner
from streams.topics import TICKS

#: Without anything due the clock goes on by this.
STEP = timedelta(hours=1)
#: Releases are spread over every second of their windows; the clock takes them in portions, midnights to the second.
GRAIN = timedelta(minutes=30)
LOOK_EVERY_S = 0.1
#: A tick that takes this long will not end: a worker that cannot go on, or a machine that is far too small.
STUCK_S = 300.0
#: The last deliveries follow the last tick; a webhook that failed is tried again after five seconds.
DELIVERED_WITHIN_S = 120.0
WEBHOOK_SUBSCRIPTIONS = frozenset({"crm"})
EVENTS_CHANGELOG = "events-store-changelog"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the person chose."""

    accounts: int
    changes: int
    seed: int


@dataclass(slots=True)
class _Moment:
    """Where the clock is; written by its thread, read by the screen."""

    now: datetime | None = None
    ticks: int = 0
    ticked_at: float = field(default_factory=time.monotonic)
    waiting: tuple[Waiting, ...] = ()
    error: Exception | None = None

    def on_tick(self, now: datetime) -> None:
        self.now, self.ticks, self.ticked_at = now, self.ticks + 1, time.monotonic()

    def on_wait(self, waiting: list[Waiting]) -> None:
        self.waiting = tuple(waiting)

    def waits_for(self) -> str:
        return waiting_text(self.waiting)


def waiting_text(waiting: Iterable[Waiting]) -> str:
    return ", ".join(map(str, waiting))


class Night:
    """One run. :meth:`run` makes it, and leaves ``seen`` for whoever prints the report."""

    def __init__(self, options: Options, place: Place, screen: Screen, fleet: Fleet) -> None:
        self.options = options
        self.place = place
        self.screen = screen
        self.fleet = fleet
        self.seen = Seen(zone_of={account.id: account.zone for account in fleet.accounts})
        self.watch: Watch | None = None

    def run(self) -> Report:
        """All phases; raises CurfewError or StackError when one of them cannot be done."""
        place, screen, fleet = self.place, self.screen, self.fleet
        script = scripts.write(fleet, self.options.changes, self.options.seed)
        with screen.phase("stack", "Kafka and the schema registry; the first time they are downloaded"):
            place.start()
        with screen.phase("topics", "all of the manifest, and one more queue"):
            place.apply_topics()
        with screen.phase("schemas", "every subject"):
            place.apply_schemas()
        with screen.phase("configuration", "routes and subscriptions, and a receiver of webhooks"):
            place.apply_configuration(place.start_receiver())
        with screen.phase(
            "fleet", f"{len(fleet.accounts):,} accounts, {len(fleet.services):,} services; workers start"
        ):
            place.start_producer(self.options.accounts, self.options.changes, self.options.seed)
            place.start_workers()
            self.watch = Watch(place.kafka(), place.codec, place.manifest.queues, self.seen)
            self.watch.start()
            place.load_plans(fleet)
            quiescence = self._quiescence()
            self._settle(quiescence)
        before = self._records()
        moment = _Moment()
        with (
            screen.phase("night", f"{self.options.changes:,} plan changes in {len(fleet.deadlines)} zones"),
            screen.night(),
        ):
            self._clock(quiescence, moment)
            place.wait_for_producer()
        records = self._records() - before
        with screen.phase("checks", "orders, replies, acknowledgements, billing store, ledger"):
            with Scanner(self.place.kafka()) as scanner:
                self.watch.catch_up(scanner)
            self.watch.stop()
            lines = self._ledger()
            return self._report(script, lines, records, moment.ticks)

    def close(self) -> None:
        """Stop watching; to be called before the broker is stopped."""
        if self.watch is not None:
            self.watch.stop()

    def _quiescence(self) -> Quiescence:
        manifest = self.place.manifest
        reads = barrier_reads(manifest.groups, manifest.topics) | {GROUP: [TICKS]}
        return Quiescence(self.place.kafka(), reads)

    def _settle(self, quiescence: Quiescence) -> None:
        """Wait until the fleet has been sent and is in all tables."""
        deadline = time.monotonic() + STUCK_S
        while True:
            self.place.check()
            waiting = quiescence.waiting()
            if not waiting:
                return
            what = waiting_text(waiting)
            if time.monotonic() > deadline:
                raise CurfewError(f"the workers do not take in the fleet; waiting for {what}")
            self.screen.waits("fleet", what)
            time.sleep(LOOK_EVERY_S)

    def _clock(self, quiescence: Quiescence, moment: _Moment) -> None:
        """Run the clock in a thread, and look after everything else here: children belong to the main thread."""
        stop = threading.Event()
        thread = threading.Thread(target=self._tick, args=(quiescence, moment, stop), name="demo-clock", daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                self.place.check()
                self.screen.draw(self.seen, moment.now, moment.ticks, moment.waits_for())
                self.screen.webhook(self.place.received)
                if self.watch is not None and self.watch.error is not None:
                    raise self.watch.error
                if time.monotonic() - moment.ticked_at > STUCK_S:
                    raise CurfewError(f"nothing moves since {moment.now}; waiting for {moment.waits_for()}")
                thread.join(LOOK_EVERY_S)
        finally:
            stop.set()
            thread.join()
        if moment.error is not None:
            raise moment.error

    def _tick(self, quiescence: Quiescence, moment: _Moment, stop: threading.Event) -> None:
        config, codec = self.place.settings.kafka(log_level=0), self.place.codec
        try:
            face, due = ClockFace(config=config, codec=codec), due_reports(config, codec)
            patiently(due.start)
            clock = VirtualClock(
                face=face,
                quiescence=quiescence,
                due=due,
                step=STEP,
                grain=GRAIN,
                exactly=frozenset(self.fleet.deadlines.values()),
                on_tick=moment.on_tick,
                on_wait=moment.on_wait,
            )
            try:
                clock.run(stop, start=scripts.begins(self.fleet), until=scripts.ends(self.fleet))
            finally:
                due.stop()
                face.close()
        except Exception as error:  # told by the main thread
            moment.error = error

    def _records(self) -> int:
        """All records of the cluster."""
        with Scanner(self.place.kafka()) as scanner:
            return sum(span.end for topic in self.place.manifest.topics for span in scanner.spans(topic).values())

    def _ledger(self) -> list[Line]:
        deadline = time.monotonic() + DELIVERED_WITHIN_S
        while True:
            lines = check_ledger(self.place.kafka(), self.place.codec)
            if not any(line.balance.pending or line.lag for line in lines) or time.monotonic() > deadline:
                return lines
            self.place.check()

    def _counted(self) -> Counter[str]:
        """What the events worker says of itself, from the rows that it keeps."""
        rows: dict[tuple[int, bytes], bytes] = {}
        with Scanner(self.place.kafka()) as scanner:
            for message in scanner.read(EVENTS_CHANGELOG, scanner.spans(EVENTS_CHANGELOG)):
                key, value = message.key(), message.value()
                if key is not None and value is not None:
                    rows[message.partition() or 0, key] = value
        return totals((key, value) for (_, key), value in rows.items())

    def _report(self, script: Script, lines: list[Line], records: int, ticks: int) -> Report:
        seen, store = self.seen, self.place.store
        got, counted = reports.webhooks(self.place.received), self._counted()
        checks = list(reports.checks(seen, script, store, lines, got, counted, WEBHOOK_SUBSCRIPTIONS))
        restarts = self.place.restarts()
        checks.append(
            Check(name="no worker died", holds=not restarts, found=", ".join(restarts) or "all ran through the night")
        )
        slack, counts = reports.least_slack(store), store.counts()
        return Report(
            changes=dict(Counter(reports.final_states(seen).values()).most_common()),
            rejections=reports.rejections(seen),
            zones=reports.by_zone(seen, self.fleet.deadlines),
            slack_min=None if slack is None else slack.total_seconds(),
            missed=counts.missed + counts.late,
            events=dict(sorted(Counter(seen.event_types.values()).items())),
            unrouted={name: n for name, n in counted.items() if not name.startswith("raised ")},
            deliveries=reports.delivery_rows(lines),
            webhooks=got,
            records=records,
            records_per_s=round(records / self.screen.phases["night"]),
            ticks=ticks,
            phases=self.screen.phases,
            checks=checks,
        )
