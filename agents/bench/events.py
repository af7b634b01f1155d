"""The events bench: object changes in, enriched events in their queue.

Everything is the worker's own: decode, revision guard, rows from RocksDB, detectors, parameters over four objects,
routing, Avro with CloudEvents headers, the row of the service and its changelog, commits.
"""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition

from agents.bench import events_records
from agents.bench.contenders import PRODUCER, Task
from agents.bench.field import TIMEOUT_S, Field
from agents.configuration.records import write_records
from streams.codec import Codec, LocalIds, LocalSchemas
from streams.core.errors import CurfewError
from streams.kafka import admin as kafka_admin
from streams.kafka.manifest import Manifest
from streams.kafka.partitioner import partition_of
from streams.settings import Settings
from streams.topics import PLAN_CONTEXTS, ROUTES, USAGE_CONTEXTS, VALIDATED

QUEUE = f"queue.{events_records.QUEUE}"
#: The producer of the latency measurement sends so often; at 5,000 records per second 25 at a time.
BEAT_S = 0.005
#: The first part of a latency measurement: caches fill, and the producer's connection is made.
WARM_UP_S = 2.0
#: The queue is read until nothing has come for so long.
SILENT_S = 2.0


class Worker:
    """One events worker as a process."""

    def __init__(self, task: Task) -> None:
        words = [sys.executable, "-m", "agents.bench.contenders", "events-curfew", msgspec.json.encode(task).decode()]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._lines: list[dict[str, Any]] = []
        self._errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=lambda: self._errors.extend(self._process.stderr or ()), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            if line.startswith("{"):
                self._lines.append(msgspec.json.decode(line))

    def wait_for_partitions(self, number: int) -> None:
        """Until it has so many."""
        self._wait(lambda: [line["ready"] for line in self._lines if "ready" in line][-1:] == [number])

    def result(self) -> dict[str, float]:
        """What it says at its end."""
        self._wait(lambda: any("records" in line for line in self._lines))
        self._process.wait(TIMEOUT_S)
        return next(line for line in self._lines if "records" in line)

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            if self._process.poll() is not None and not condition():
                raise CurfewError(f"a worker ended with {self._process.returncode}: {''.join(self._errors)[-2000:]}")
            if time.monotonic() > deadline:
                raise CurfewError("a worker does not get on; see what else runs on this machine")
            time.sleep(0.01)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join(5.0)


@dataclass(kw_only=True)
class Bench:
    """Call :meth:`prepare`, then :meth:`round` as often as wanted, then :meth:`latency` and :meth:`report`."""

    field: Field
    records: int
    say: Callable[[str], None]
    cpu_us: dict[int, list[float]] = dataclasses.field(default_factory=dict)
    latencies_ms: list[float] = dataclasses.field(default_factory=list)
    rate: float = 0.0
    _sent: int = 0
    _stream: dict[str, Any] = dataclasses.field(default_factory=dict)

    def prepare(self) -> None:
        """Topics of both benches, the catalogue, a route, and the records of `bench stream`."""
        self._settings = Settings(bootstrap_servers=self.field.servers)
        schemas = LocalSchemas()
        self._codec = Codec(LocalIds(schemas), schemas)
        manifest = Manifest.load()
        self._reads = [topic.name for topic in manifest.topics.values() if "events" in topic.readers]
        kafka_admin.create_topics(
            kafka_admin.admin_client(self._settings.kafka()),
            [topic for topic in manifest.topics.values() if topic.name in self._reads or topic.read_whole]
            + [manifest.topic(name) for name in (QUEUE, PLAN_CONTEXTS, VALIDATED, USAGE_CONTEXTS)]
            + [manifest.topic("dead-letters.events")],
        )
        self._write("catalog.product", events_records.PRODUCT.id, events_records.PRODUCT)
        self._write("catalog.rate-plan", events_records.RATE_PLAN.id, events_records.RATE_PLAN)
        self._write(ROUTES, events_records.ROUTE.name, events_records.ROUTE)
        self._encode = self._codec.encoder(events_records.SOURCE, type(self._change(0)))
        source, target = self.field.topic("in"), self.field.topic("out")
        changelog = self.field.topic("store-changelog", **{"cleanup.policy": "compact"})
        self.say(f"writing {self.records:,} records for bench stream")
        self.field.fill(source, self.records)
        self.field.fill_store(changelog)
        self._stream = {"source": source, "target": target, "changelog": changelog, "records": self.records}

    def _write(self, topic: str, key: str, value: object) -> None:
        write_records(self._settings, self._codec, topic, {key: value})

    def _change(self, number: int) -> Any:
        return events_records.change(number, datetime.now(UTC))

    def round(self) -> None:
        """`bench stream`, the events worker, and two of them."""
        self.field.run("stream", "stream-curfew", **self._stream)
        self._measure(1)
        self._measure(2)

    def _measure(self, workers: int) -> None:
        """One worker finds its records, as in `bench stream`; two are ready when the records come, or the first one
        would do the part of the second while that one is joining."""
        with self._workers(workers, self.records if workers == 1 else 0) as running:
            if workers > 1:
                self._produce(self.records)
            results = [worker.result() for worker in running]
        records, cpu = sum(one["records"] for one in results), sum(one["cpu"] for one in results)
        rate = records / max(one["seconds"] for one in results)
        label = "events" if workers == 1 else f"events_{workers}_workers"
        self.field.rates.setdefault(label, []).append(rate)
        self.cpu_us.setdefault(workers, []).append(cpu / records * 1e6)
        self.say(f"  {label:<32} {rate:>12,.0f} records/s   {cpu / records * 1e6:.0f} us of processor time each")

    @contextmanager
    def _workers(self, number: int, waiting: int = 0) -> Iterator[list[Worker]]:
        """So many workers of a new group, with the rows of now and with so many records waiting."""
        group = f"bench-{uuid4().hex}"
        changelog = self.field.topic("store-changelog", **{"cleanup.policy": "compact"})
        self.field.produce(
            (changelog, key, value, partition_of(account, 4)) for account, key, value in events_records.rows(self._sent)
        )
        self._begin_at_the_end(group)
        self._produce(waiting)
        running: list[Worker] = []
        try:
            for instance in range(1, number + 1):
                directory = self.field.directory / group / str(instance)
                directory.mkdir(parents=True)
                task = Task(
                    servers=self.field.servers, group=group, changelog=changelog, records=0,
                    directory=str(directory), instance=str(instance),
                )  # fmt: skip
                running.append(Worker(task))
            for worker in running:
                worker.wait_for_partitions(4 // number)
            yield running
        finally:
            for worker in running:
                worker.end()

    def _begin_at_the_end(self, group: str) -> None:
        consumer = Consumer({"bootstrap.servers": self.field.servers, "group.id": group})
        try:
            partitions = [TopicPartition(topic, number) for topic in self._reads for number in range(4)]
            for partition in partitions:
                partition.offset = consumer.get_watermark_offsets(partition, timeout=30.0)[1]
            consumer.commit(offsets=partitions, asynchronous=False)
        finally:
            consumer.close()

    def _produce(self, records: int) -> None:
        encoded = [
            (events_records.account_id(number % events_records.SERVICES), self._encode(self._change(number)))
            for number in range(self._sent, self._sent + records)
        ]
        self._sent += records
        self.field.produce((events_records.SOURCE, key.encode(), value, -1) for key, value in encoded)

    def latency(self, seconds: float) -> None:
        """From the change's own time to its event in the hands of a consumer, at half of the measured rate."""
        self.rate = self.field.median("events") / 2
        self.say(f"latency at {self.rate:,.0f} records/s for {seconds:.0f} s")
        found: list[float] = []
        done = threading.Event()
        consumer = Consumer(
            {
                "bootstrap.servers": self.field.servers, "group.id": "bench-latency", "enable.auto.commit": False,
                "fetch.wait.max.ms": 5,
            }
        )  # fmt: skip
        consumer.assign(
            [
                TopicPartition(QUEUE, number, consumer.get_watermark_offsets(TopicPartition(QUEUE, number), 30.0)[1])
                for number in range(4)
            ]
        )
        with self._workers(1, waiting=1):
            # The worker may have partitions long before it has its rows, and must not begin with a backlog.
            if not consumer.consume(1, TIMEOUT_S):
                raise CurfewError("the worker raises nothing; see what else runs on this machine")
            sent = threading.Thread(target=self._send_evenly, args=(seconds, done))
            sent.start()
            began, quiet_since = time.time(), time.time()
            while not done.is_set() or time.time() - quiet_since < SILENT_S:
                for message in consumer.consume(1_000, 0.05):
                    now = quiet_since = time.time()
                    headers: dict[str, Any] = dict(message.headers() or ())
                    happened = datetime.fromisoformat(headers["ce_time"].decode()).timestamp()
                    if happened > began + WARM_UP_S:
                        found.append((now - happened) * 1000)
            sent.join()
        consumer.close()
        self.latencies_ms = sorted(found)

    def _send_evenly(self, seconds: float, done: threading.Event) -> None:
        producer = Producer({"bootstrap.servers": self.field.servers, **PRODUCER})
        began, sent = time.monotonic(), 0
        while (elapsed := time.monotonic() - began) < seconds + WARM_UP_S:
            for _ in range(int(elapsed * self.rate) - sent):
                key = events_records.account_id(self._sent % events_records.SERVICES)
                producer.produce(events_records.SOURCE, self._encode(self._change(self._sent)), key)
                self._sent, sent = self._sent + 1, sent + 1
            producer.poll(0)
            time.sleep(BEAT_S)
        producer.flush()
        done.set()

    def report(self) -> dict[str, Any]:
        """All figures."""
        one, two = self.cpu_us[1], self.cpu_us[2]
        ratio = statistics.median(both / alone for alone, both in zip(one, two, strict=True))
        return {
            "records_per_second": self.field.report(),
            "ratio_to_bench_stream": self.field.ratio("events", "stream"),
            "cpu_us_per_record": {
                "stream": round(statistics.median(self.field.cpu_us["stream"])),
                "one_worker": round(statistics.median(one)),
                "two_workers": round(statistics.median(two)),
            },
            "cpu_ratio_of_two_workers": round(ratio, 2),
            "latency_ms": {
                "at_records_per_second": round(self.rate),
                "events": len(self.latencies_ms),
                "p50": self._quantile(0.5),
                "p99": self._quantile(0.99),
            },
        }

    def _quantile(self, part: float) -> float | None:
        found = self.latencies_ms
        return round(found[min(len(found) - 1, int(len(found) * part))], 1) if found else None
