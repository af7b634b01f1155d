"""The delivery bench: webhooks from their queue to a local receiver, against a bare client loop in the same run.

The delivery and dispatch workers are real processes on an embedded Kafka, with everything that makes a delivery
durable: a row per unit, an attempt in a topic, a row before the request, a result, the settled row, and changelogs.
Both sides are measured by the receiver, from the first request that it gets to the last one.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import psutil

from agents.bench import delivery_events as events
from agents.bench.delivery_loop import Task
from agents.bench.delivery_receiver import FIGURES, HOST, RELEASE, RESET, Watch
from agents.bench.ground import Ground
from agents.clock import barrier_reads
from agents.configuration.records import write_records
from agents.supervisor import die_with_parent
from streams.core.errors import CurfewError
from streams.kafka.ledger import check as check_ledger
from streams.kafka.outbox import Outbox
from streams.kafka.quiescence import Quiescence
from streams.topics import SUBSCRIPTIONS

WORKERS: Final = ("delivery", "dispatch")
#: Endpoints of which one does not answer, and pairs of measurements with and without it.
ENDPOINTS, PAIRS = 100, 5
SILENT: Final = ENDPOINTS // 2
#: Connections are made and code is warm; neither is what is measured. Kafka takes longest: over the first ten thousand
#: webhooks half of what it costs is its compiler.
WARM_UP: Final = 5_000
#: The first part of a latency measurement.
SETTLING_S: Final = 2.0
#: The latency producer sends so often.
BEAT_S: Final = 0.005
LOOK_EVERY_S: Final = 0.1
STUCK_S: Final = 120.0
#: What the design asks for.
LEAST_RATIO, LEAST_KEPT = 0.4, 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``requests`` of each side over all ``rounds``; ``fan_out`` events for each of the hundred endpoints per
    measurement; ``seconds`` of latency."""

    requests: int
    rounds: int
    concurrency: int
    fan_out: int
    seconds: float


@dataclass(slots=True, kw_only=True)
class Delivery:
    """One run on one ground. :meth:`run` makes the report; whoever made the ground closes it."""

    options: Options
    ground: Ground
    say: Callable[[str], None]
    rates: dict[str, list[float]] = field(default_factory=dict)
    #: Side → process → milliseconds of processor time per webhook, round by round.
    cpu_ms: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    repeated: int = 0
    _sent: dict[str, int] = field(default_factory=dict)
    _url: str = ""
    _loop_cpu_s: float = 0.0
    _receiver: psutil.Process = field(init=False)
    _outbox: Outbox = field(init=False)
    _quiescence: Quiescence = field(init=False)

    def run(self) -> dict[str, Any]:
        """All measurements. Raises CurfewError or StackError when one of them cannot be made."""
        options = self.options
        self.say("Kafka and registry with fresh data, a receiver, two workers …")
        self.ground.start()
        with self._receiving():
            self._subscribe()
            self.ground.start_workers()
            self._outbox = Outbox(self.ground.kafka())
            manifest = self.ground.manifest
            reads = barrier_reads({name: manifest.groups[name] for name in WORKERS}, manifest.topics)
            self._quiescence = Quiescence(self.ground.kafka(), reads)
            try:
                self._deliver(WARM_UP)
                self._send_bare(WARM_UP)
                for number in range(1, options.rounds + 1):
                    count = options.requests // options.rounds
                    self._note("curfew", count, self._deliver)
                    self._note("aiohttp_loop", count, self._send_bare)
                    curfew, loop = (self.rates[side][-1] for side in ("curfew", "aiohttp_loop"))
                    self.say(
                        f"round {number}: curfew {curfew:,.0f}/s, the bare loop {loop:,.0f}/s, {curfew / loop:.2f}"
                    )
                latency = self._latency()
                pairs = [pair for number in range(PAIRS) if (pair := self._pair(number))]
                self._settle()
            finally:
                self._outbox.close()
        lines = check_ledger(self.ground.kafka(), self.ground.codec)
        return self._report(latency, pairs, lines)

    # -- the sides --------------------------------------------------------------------------------------------------

    def _deliver(self, count: int) -> float:
        """Events into the queue, webhooks out; per second, as the receiver has seen them. Ends when all is settled."""
        self._tell(RESET, Watch())
        self._produce(events.QUEUE, count)
        found = self._wait_for(lambda found: found["distinct"] >= count, f"of {count:,} webhooks")
        self._settle()
        self.repeated += self._figures()["requests"] - count
        return count / float(found["seconds"])

    def _send_bare(self, count: int) -> float:
        self._tell(RESET, Watch())
        task = Task(
            url=f"{self._url}/{events.MAIN}", first=0, count=count, concurrency=self.options.concurrency
        )  # fmt: skip
        words = [sys.executable, "-m", "agents.bench.delivery_loop", msgspec.json.encode(task).decode()]
        done = subprocess.run(words, env=self._env, capture_output=True, text=True, timeout=1800, check=False)
        if done.returncode:
            raise CurfewError(f"the bare loop ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
        said, found = json.loads(done.stdout), self._figures()
        if found["distinct"] != count or said["refused"]:
            raise CurfewError(f"the bare loop has sent {found['distinct']:,} of {count:,} webhooks")
        self._loop_cpu_s = said["cpu_s"]
        return count / float(found["seconds"])

    def _note(self, side: str, count: int, measure: Callable[[int], float]) -> None:
        """Measure a round of one side, with what it costs."""
        before = self._cpu_s()
        self.rates.setdefault(side, []).append(measure(count))
        after = self._cpu_s()
        spent = {name: after[name] - before[name] for name in (*WORKERS, "kafka", "receiver")}
        if side != "curfew":
            spent = {"loop": self._loop_cpu_s, "receiver": spent["receiver"]}
        for name, seconds in spent.items():
            self.cpu_ms.setdefault(side, {}).setdefault(name, []).append(seconds / count * 1000)

    def _latency(self) -> dict[str, Any]:
        """From the event's own time, which is when it goes into the queue, to its request at the receiver, at half of
        the measured rate."""
        rate = statistics.median(self.rates["curfew"]) / 2
        self.say(f"latency at {rate:,.0f} webhooks/s for {self.options.seconds:g} s")
        self._tell(RESET, Watch(ages_after_s=SETTLING_S))
        began, sent = time.monotonic(), 0
        while (elapsed := time.monotonic() - began) < self.options.seconds + SETTLING_S:
            due = int(elapsed * rate) - sent
            self._produce(events.QUEUE, due, flush=False)
            sent += due
            time.sleep(BEAT_S)
        self._outbox.flush(0)
        self._wait_for(lambda found: found["distinct"] >= sent, f"of {sent:,} webhooks")
        self._settle()
        found = self._figures()
        self.repeated += found["requests"] - sent
        return {
            "at_webhooks_per_second": round(rate),
            "webhooks": found["ages"],
            "p50": found["p50_ms"],
            "p99": found["p99_ms"],
        }

    def _pair(self, number: int) -> dict[str, float]:
        """What 99 endpoints get per second while the hundredth does not answer, and while it does."""
        found: dict[str, float] = {}
        for silent in (False, True) if number % 2 == 0 else (True, False):
            found["silent" if silent else "well"] = self._fan_out(silent)
        found["kept"] = found["silent"] / found["well"]
        self.say(
            f"pair {number + 1}: {found['well']:,.0f}/s for 99 endpoints, with a silent one beside them "
            f"{found['silent']:,.0f}/s, {found['kept']:.2f}"
        )
        return {name: round(value, 2) for name, value in found.items()}

    def _fan_out(self, silent: bool) -> float:
        count, others = self.options.fan_out, self.options.fan_out * (ENDPOINTS - 1)
        self._tell(RESET, Watch(aside=f"/{SILENT}", silent=silent))
        self._produce(events.FAN_OUT, count)
        found = self._wait_for(lambda found: found["distinct"] >= others, f"of {others:,} webhooks")
        self.repeated += found["requests"] - others
        self._tell(RELEASE)
        self._wait_for(lambda found: found["aside"] >= count, "the endpoint that was silent")
        self._settle()
        return others / float(found["seconds"])

    # -- what they need ---------------------------------------------------------------------------------------------

    @property
    def _env(self) -> dict[str, str]:
        return {**os.environ, **self.ground.supervisor.env}

    @contextmanager
    def _receiving(self) -> Iterator[None]:
        port_file = self.ground.directory / "receiver.port"
        port_file.unlink(missing_ok=True)
        words = [sys.executable, "-m", "agents.bench.delivery_receiver", str(port_file)]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, env=self._env, preexec_fn=die_with_parent)
        self._receiver = psutil.Process(process.pid)
        try:
            deadline = time.monotonic() + STUCK_S
            while not port_file.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise CurfewError("the receiver does not start")
                time.sleep(LOOK_EVERY_S)
            self._url = f"http://{HOST}:{port_file.read_text()}"
            yield
        finally:
            process.kill()
            process.wait()
            port_file.unlink(missing_ok=True)

    def _subscribe(self) -> None:
        """One endpoint that gets all of one queue, a hundred that get all of another."""
        wide = self.options.concurrency
        made = [events.subscription(events.MAIN, events.QUEUE, f"{self._url}/{events.MAIN}", wide)]
        made += [
            events.subscription(f"fan-{number}", events.FAN_OUT, f"{self._url}/{number}", wide)
            for number in range(ENDPOINTS)
        ]
        write_records(self.ground.settings, self.ground.codec, SUBSCRIPTIONS, {one.name: one for one in made})

    def _produce(self, queue: str, count: int, *, flush: bool = True) -> None:
        topic, first = f"queue.{queue}", self._sent.get(queue, 0)
        self._sent[queue] = first + count
        for event in events.make(first, count, datetime.now(UTC)):
            self._outbox.emit(topic, event.key, self.ground.codec.encode(topic, event))
        if flush:
            self._outbox.flush(0)

    def _settle(self) -> None:
        """Wait until the workers have nothing in flight: the other side shall have the machine for itself."""
        while self._quiescence.waiting():
            self.ground.check()
            time.sleep(LOOK_EVERY_S)

    def _wait_for(self, reached: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """The figures as soon as they are so. Raises CurfewError when nothing comes for long."""
        last, moved = -1, time.monotonic()
        while not reached(found := self._figures()):
            self.ground.check()
            come = found["requests"] + found["aside"]
            if come != last:
                last, moved = come, time.monotonic()
            if time.monotonic() - moved > STUCK_S:
                raise CurfewError(f"{come:,} {what}, and nothing comes; see {self.ground.supervisor.log_dir}")
            time.sleep(LOOK_EVERY_S)
        return found

    def _figures(self) -> dict[str, Any]:
        found: dict[str, Any] = self._tell(FIGURES)
        return found

    def _tell(self, path: str, watch: Watch | None = None) -> Any:
        body = b"" if watch is None else msgspec.json.encode(watch)
        with urllib.request.urlopen(f"{self._url}{path}", body, timeout=60) as answer:
            return json.loads(answer.read())

    def _cpu_s(self) -> dict[str, float]:
        spent = self._receiver.cpu_times()
        return {**self.ground.cpu_s(), "receiver": spent.user + spent.system}

    # -- report -----------------------------------------------------------------------------------------------------

    def _report(self, latency: dict[str, Any], pairs: list[dict[str, float]], lines: list[Any]) -> dict[str, Any]:
        ratios = [curfew / loop for curfew, loop in zip(self.rates["curfew"], self.rates["aiohttp_loop"], strict=True)]
        ratio, kept = statistics.median(ratios), statistics.median(pair["kept"] for pair in pairs)
        main = next(line for line in lines if line.subscription == events.MAIN)
        result: dict[str, Any] = {
            "requests": self.options.requests,
            "rounds": self.options.rounds,
            "concurrency": self.options.concurrency,
            "webhooks_per_second": {side: round(statistics.median(rates)) for side, rates in self.rates.items()},
            "ratios": [round(one, 2) for one in ratios],
            "ratio_to_aiohttp_loop": round(ratio, 2),
            "cpu_ms_per_webhook": {
                side: {name: round(statistics.median(found), 3) for name, found in spent.items()}
                for side, spent in self.cpu_ms.items()
            },
            "queue_to_attempt_ms": latency,
            "silent_endpoint": {"endpoints": ENDPOINTS, "pairs": pairs, "kept": round(kept, 2)},
            "repeated": self.repeated,
            "lost": self._sent[events.QUEUE] - main.balance.delivered,
            "ledger_difference": sum(line.balance.difference for line in lines),
        }
        safe = not (result["repeated"] or result["lost"] or result["ledger_difference"])
        result["holds"] = safe and ratio >= LEAST_RATIO and kept >= LEAST_KEPT
        return result
