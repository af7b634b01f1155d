"""A flow of changes through workers: feed it, wait until it is finished, and check that nothing is missing.

Shared by the broker tests, the fail points and the storm. :class:`Flow` knows what was fed; :meth:`Flow.verify`
compares that with the output topic, the changelog and the stores on disk.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from rocksdict import AccessType, Options, Rdict

from streams.kafka.outbox import PARTITIONER
from streams.kafka.scan import Scanner
from tests.support.apps import AppProcess, Change, Effect, Row, Spec
from tests.support.kafka_io import TIMEOUT_SECONDS, wait_until

PARTITIONS = 4
REQUEST_SECONDS = 60.0


def create_topics(servers: str, topics: dict[str, dict[str, str]], partitions: int = PARTITIONS) -> None:
    """Create with the given settings, and return when the broker shows them all."""
    admin = AdminClient({"bootstrap.servers": servers})
    new = [NewTopic(name, num_partitions=partitions, config=config) for name, config in topics.items()]
    for future in admin.create_topics(new).values():
        future.result(REQUEST_SECONDS)
    wait_until(lambda: topics.keys() <= admin.list_topics(timeout=REQUEST_SECONDS).topics.keys(), "topics are visible")


def producer(servers: str, **config: object) -> Producer:
    """As every producer of Curfew: murmur2, acknowledged by all, idempotent.

    Without idempotence librdkafka was seen to send the first records of a new topic behind later ones (a retry); the
    older revisions then are "seen already", and a checker takes the disorder of the input for a loss of the worker.
    """
    return Producer(
        {
            "bootstrap.servers": servers, "partitioner": PARTITIONER, "enable.idempotence": True, "linger.ms": 5,
            **config,
        }
    )  # fmt: skip


def read(servers: str, topic: str) -> list[Message]:
    """Everything that is in a topic now, in order within each partition."""
    with Scanner({"bootstrap.servers": servers}) as scanner:
        return list(scanner.read(topic, scanner.spans(topic)))


def fold(messages: Iterable[Message]) -> dict[bytes, bytes]:
    """Last value of each key; tombstones delete."""
    rows: dict[bytes, bytes] = {}
    for message in messages:
        key, value = message.key(), message.value()
        assert isinstance(key, bytes)
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = value
    return rows


def store_rows(directory: Path) -> dict[bytes, bytes]:
    """The rows of one store directory whose worker has ended; the store's own keys left out."""
    database = Rdict(str(directory), Options(raw_mode=True), access_type=AccessType.read_only())
    try:
        rows: list[tuple[Any, Any]] = list(database.items())
        return {bytes(key): bytes(value) for key, value in rows if not key.startswith(b"\x00")}
    finally:
        database.close()


@dataclass(slots=True, kw_only=True)
class Flow:
    """The topics of one miniature app, its processes, and what was fed into it."""

    servers: str
    name: str
    directory: Path
    partitions: int = PARTITIONS
    fed: dict[str, int] = field(default_factory=dict)  # key → last revision
    apps: list[AppProcess] = field(default_factory=list)
    _committed: Consumer | None = None

    @property
    def input(self) -> str:
        return f"{self.name}-in"

    @property
    def output(self) -> str:
        return f"{self.name}-out"

    @property
    def changelog(self) -> str:
        return f"{self.name}-store-changelog"

    @property
    def dead_letters(self) -> str:
        return f"dead-letters.{self.name}"

    def create(self, input_config: dict[str, str] | None = None) -> Flow:
        """Make the topics."""
        create_topics(
            self.servers,
            {
                self.input: input_config or {},
                self.output: {},
                self.changelog: {"cleanup.policy": "compact"},
                self.dead_letters: {},
            },
            self.partitions,
        )
        return self

    # -- processes --------------------------------------------------------------------------------------------------

    def start(
        self, instance: str = "1", *, fail_point: str | None = None, servers: str | None = None, **spec: object
    ) -> AppProcess:
        """Start a worker; ``spec`` are fields of :class:`tests.support.apps.Spec`."""
        fields = {"app": self.name, "topics": (self.input,), "output": self.output, "data_dir": str(self.directory)}
        made = msgspec.convert({**fields, "instance": instance, **spec}, type=Spec)
        log = self.directory / f"{len(self.apps)}-{instance}.log"
        app = AppProcess(made, servers or self.servers, log, fail_point=fail_point)
        self.apps.append(app)
        return app

    def store_directory(self, instance: str = "1") -> Path:
        return self.directory / "workers" / f"{self.name}-{instance}" / "store"

    def close(self) -> None:
        """Leave no process behind."""
        for app in self.apps:
            app.kill()
        if self._committed is not None:
            self._committed.close()

    # -- feeding ----------------------------------------------------------------------------------------------------

    def feed(
        self, count: int, *, keys: int = 200, per_second: float | None = None, stop: threading.Event | None = None
    ) -> None:
        """Produce ``count`` more changes, round-robin over the keys, each one revision higher; returns when all are
        acknowledged. Paced when ``per_second`` is given."""
        out = producer(self.servers, **{"delivery.timeout.ms": 120_000})
        failures: list[object] = []
        began = time.monotonic()
        for index in range(count):
            if per_second is not None and index % 100 == 0:
                ahead = index / per_second - (time.monotonic() - began)
                if stop.wait(max(0.0, ahead)) if stop is not None else _pause(ahead):
                    break
            key = f"k{index % keys}"
            revision = self.fed.get(key, 0) + 1
            self.fed[key] = revision
            self.put(out, key, Change(revision, text=f"{key} at {revision}"), failures)
        assert out.flush(REQUEST_SECONDS * 4) == 0
        assert failures == []

    def put(self, out: Producer, key: str | None, change: Change | bytes, failures: list[object]) -> None:
        """Produce one record, without waiting."""
        value = change if isinstance(change, bytes) else msgspec.json.encode(change)

        def delivered(error: object, _: object) -> None:
            if error is not None:
                failures.append(error)

        while True:
            try:
                out.produce(self.input, value, key, on_delivery=delivered)
            except BufferError:
                out.poll(0.1)
            else:
                out.poll(0)
                return

    def send(self, records: Sequence[tuple[str | None, Change | bytes]], **config: object) -> None:
        """Produce these records and wait for them; not part of what :meth:`verify` expects."""
        out, failures = producer(self.servers, **config), list[object]()
        for key, change in records:
            self.put(out, key, change, failures)
        assert out.flush(REQUEST_SECONDS) == 0
        assert failures == []

    # -- waiting ----------------------------------------------------------------------------------------------------

    def committed(self, topic: str | None = None) -> dict[int, int]:
        """Committed offsets of the group by partition; negative where there is none."""
        if self._committed is None:
            self._committed = Consumer({"bootstrap.servers": self.servers, "group.id": self.name})
        wanted = [TopicPartition(topic or self.input, number) for number in range(self.partitions)]
        deadline = time.monotonic() + REQUEST_SECONDS
        while True:
            try:
                found = self._committed.committed(wanted, timeout=REQUEST_SECONDS)
            except KafkaException:  # a broker that has just started has no coordinator yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return {one.partition: one.offset for one in found}

    def wait_committed(self, topic: str, offsets: dict[int, int]) -> None:
        wait_until(lambda: offsets.items() <= self.committed(topic).items(), f"{topic} is committed up to {offsets}")

    def ends(self) -> dict[int, int]:
        with Scanner({"bootstrap.servers": self.servers}) as scanner:
            return {number: span.end for number, span in scanner.spans(self.input).items()}

    def wait_finished(self, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """Wait until the group has committed everything that is in the input now."""
        ends = self.ends()

        def finished() -> bool:
            for app in self.apps:
                assert app.code in (None, 0, -9), f"a worker ended with {app.code}: {app.tail()}"
            return self.committed() == ends

        wait_until(finished, f"{self.name} commits {ends}", timeout_seconds)

    # -- checking ---------------------------------------------------------------------------------------------------

    def effects(self) -> list[Effect]:
        """All output records, in order within a partition, repetitions included."""
        return [msgspec.json.decode(message.value() or b"", type=Effect) for message in read(self.servers, self.output)]

    def verify(self, stores: Sequence[tuple[int, Path]] = ()) -> int:
        """Nothing lost, one content per id, order per key, rows equal to the fold of changelog and of input.

        ``stores``: (partition, directory) of every store to compare, their workers ended. Returns how many effects came
        more than once.
        """
        repeated = self.verify_effects()
        self.verify_rows(stores)
        return repeated

    def verify_rows(self, stores: Sequence[tuple[int, Path]] = ()) -> None:
        """The part of :meth:`verify` that looks at changelog and stores."""
        expected = {key.encode(): msgspec.json.encode(Row(revision)) for key, revision in self.fed.items()}
        changes = read(self.servers, self.changelog)
        assert fold(changes) == expected, "the changelog is not the fold of the input"
        for partition, directory in stores:
            rows = fold(change for change in changes if change.partition() == partition)
            assert store_rows(directory) == rows, f"store {directory} is not the fold of its changelog"

    def verify_effects(self) -> int:
        """The part of :meth:`verify` that looks at the output."""
        effects = self.effects()
        contents: defaultdict[str, set[Effect]] = defaultdict(set)
        order: defaultdict[str, list[int]] = defaultdict(list)
        for effect in effects:
            key, revision = effect.id.split(":")
            if effect.id not in contents:
                order[key].append(int(revision))
            contents[effect.id].add(effect)
        wanted = {f"{key}:{revision}" for key, last in self.fed.items() for revision in range(1, last + 1)}
        assert contents.keys() == wanted, f"lost {sorted(wanted - contents.keys())[:5]}, {len(wanted)} were fed"
        assert all(len(one) == 1 for one in contents.values()), "one id with two contents"
        assert all(list(range(1, self.fed[key] + 1)) == seen for key, seen in order.items()), "order within a key"
        return sum(count - 1 for count in Counter(effect.id for effect in effects).values())


def _pause(seconds: float) -> bool:
    time.sleep(max(0.0, seconds))  # pacing, not waiting for anything
    return False
