"""The field on which contenders meet: one broker, its topics, and the rounds."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from agents.bench import record
from agents.bench.contenders import PRODUCER, Task
from streams.core.errors import CurfewError
from streams.kafka.partitioner import partition_of

PARTITIONS = 4
#: A contender that hangs must not hang the bench.
TIMEOUT_S = 1800.0


@dataclass(slots=True, kw_only=True)
class Field:
    """A broker and a scratch directory; ``run`` one contender at a time."""

    servers: str
    directory: Path
    say: Callable[[str], None] = print
    rates: dict[str, list[float]] = field(default_factory=dict)
    #: Processor time per record in microseconds, of the contenders that say so.
    cpu_us: dict[str, list[float]] = field(default_factory=dict)

    def topic(self, name: str, **config: str) -> str:
        """Make a topic with a name of its own that ends with ``name``."""
        full = f"bench-{uuid4().hex[:8]}-{name}"
        admin = AdminClient({"bootstrap.servers": self.servers})
        for future in admin.create_topics([NewTopic(full, PARTITIONS, 1, config=config)]).values():
            future.result(30)
        return full

    def fill(self, topic: str, records: int) -> None:
        """Write the input records."""
        self.produce((topic, *record.make(number), -1) for number in range(records))

    def fill_store(self, changelog: str) -> None:
        """Write the services' rows, each to the partition that its input records go to."""
        rows = (record.row(number) for number in range(record.SERVICES))
        self.produce((changelog, key, value, partition_of(key, PARTITIONS)) for key, value in rows)

    def fill_changelog(self, changelog: str, rows: int) -> None:
        """Write ``rows`` rows of 100 bytes."""
        body = b"x" * 88
        self.produce(
            (changelog, b"row%09d" % number, b"%012d" % number + body, number % PARTITIONS) for number in range(rows)
        )

    def produce(self, items: Iterator[tuple[str, bytes, bytes, int]]) -> None:
        """Write (topic, key, value, partition) records; -1 lets the key decide."""
        producer = Producer({"bootstrap.servers": self.servers, **PRODUCER, "linger.ms": 20})
        for number, (topic, key, value, partition) in enumerate(items):
            producer.produce(topic, value, key, partition)
            if number % 10_000 == 0:
                producer.poll(0)
                while len(producer) > 500_000:
                    producer.poll(0.1)
        producer.flush()

    def run(self, label: str, contender: str, **task: Any) -> float:
        """Run one contender; returns and remembers its records per second. Raises CurfewError with its last words."""
        task.setdefault("group", f"bench-{uuid4().hex}")
        given = Task(servers=self.servers, directory=str(self.directory), **task)
        words = [sys.executable, "-m", "agents.bench.contenders", contender, msgspec.json.encode(given).decode()]
        result = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        lines = [line for line in result.stdout.splitlines() if line.startswith("{")]
        if not lines:
            raise CurfewError(f"{label} ended with exit code {result.returncode}: {result.stderr.strip()[-2000:]}")
        answer = msgspec.json.decode(lines[-1])
        rate = answer["records"] / answer["seconds"]
        self.rates.setdefault(label, []).append(rate)
        if answer.get("cpu") is not None:
            self.cpu_us.setdefault(label, []).append(answer["cpu"] / answer["records"] * 1e6)
        self.say(f"  {label:<32} {rate:>12,.0f} records/s   ({answer['records']:,} in {answer['seconds']:.1f} s)")
        return float(rate)

    def median(self, label: str) -> float:
        return statistics.median(self.rates[label])

    def ratio(self, ours: str, theirs: str) -> float:
        """Median of the ratios round by round: a machine that gets slower meanwhile slows both sides of a pair."""
        pairs = zip(self.rates[ours], self.rates[theirs], strict=True)
        return round(statistics.median(mine / other for mine, other in pairs), 2)

    def report(self) -> dict[str, float]:
        return {label: round(self.median(label)) for label in self.rates}


@contextmanager
def open_field(servers: str | None, say: Callable[[str], None]) -> Iterator[Field]:
    """A field on a given broker, or on an embedded one of its own that ends with it."""
    with tempfile.TemporaryDirectory(prefix="curfew-bench-") as scratch:
        directory = Path(scratch)
        if servers is not None:
            yield Field(servers=servers, directory=directory, say=say)
            return
        from agents.embedded import Stack, StackConfig

        with Stack(StackConfig(data_dir=directory / "stack", with_registry=False)) as address:
            yield Field(servers=address.bootstrap_servers, directory=directory, say=say)
