"""A miniature of a real worker, run as a process of its own so that SIGKILL is real; and the handle on that process.

Input records are JSON :class:`Change`; the key is the row key. The handler guards by revision, puts the row and emits
one :class:`Effect` with a deterministic id: what the agents do, without their business.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from streams.core.clock import Tick
from streams.core.errors import CurfewError, Poison, Transient
from streams.kafka import assignment, outbox, pump, runtime, ticks
from streams.kafka.chunks import Batch, Handler, Record
from streams.settings import ClockMode, Settings
from streams.telemetry import configure_logging
from tests.support.kafka_io import TIMEOUT_SECONDS, wait_until

EXIT_MISCONFIGURED = 78
#: A transient record fails this often before it works.
TRANSIENT_FAILURES = 3
#: The generator shape makes what it did durable after so many records.
SLICE_RECORDS = 50


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """An input record: ``do`` tells the miniature to misbehave, ``text`` is ballast."""

    revision: int
    do: str = ""
    text: str = ""


class Row(msgspec.Struct, frozen=True):
    """What is kept per key."""

    revision: int
    text: str = ""


class Effect(msgspec.Struct, frozen=True):
    """An output record; the same ``id`` must always come with the same content."""

    id: str
    previous: int
    text: str = ""
    now: datetime | None = None


class TickJson(msgspec.Struct, frozen=True):
    """A tick on the wire of the miniature."""

    epoch: str
    seq: int
    now: datetime


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """How one process of the miniature runs."""

    app: str
    topics: tuple[str, ...]
    output: str
    data_dir: str
    instance: str = "1"
    shape: str = "plain"  # plain | generator | async
    stateful: bool = True
    memory_store: bool = False
    ticks: str | None = None  # the topic that plays clock.ticks
    health_port: int | None = None
    chunk_seconds: float = 0.0  # every chunk takes at least so long, so that something is in flight
    session_timeout_ms: int | None = None
    delivery_timeout_ms: int | None = None
    buffer_bytes: int | None = None
    hold: str | None = None  # while this file is there, records with do="hold" are transient failures


class Miniature:
    """The handlers of one process."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._failed: Counter[tuple[int, int]] = Counter()

    def handler(self) -> Handler:
        shapes: dict[str, Handler] = {"plain": self.plain, "generator": self.generator, "async": self.waiting}
        return shapes[self._spec.shape]

    def open(self, batch: Batch) -> None:
        """A derived index: how many rows the partition has."""
        batch.memory["rows"] = sum(1 for _ in batch.rows.scan(b""))

    def plain(self, batch: Batch) -> None:
        for record in batch.records:
            self._decide(batch, record)

    def generator(self, batch: Batch) -> Iterator[None]:
        for index, record in enumerate(batch.records, start=1):
            self._decide(batch, record)
            if index % SLICE_RECORDS == 0:
                yield

    async def waiting(self, batch: Batch) -> None:
        await asyncio.sleep(self._spec.chunk_seconds)
        for record in batch.records:
            self._decide(batch, record)

    def tick(self, batch: Batch) -> None:
        """Tell what time it is, once for each tick."""
        for record in batch.records:
            effect = Effect(id=f"tick:{batch.partition}:{record.offset}", previous=0, now=batch.now)
            batch.emit(self._spec.output, key=None, value=msgspec.json.encode(effect), partition=batch.partition)

    def _decide(self, batch: Batch, record: Record) -> None:
        try:
            self._handle(batch, record)
        except Poison as error:
            batch.dead_letter(record, error)

    def _handle(self, batch: Batch, record: Record) -> None:
        if record.key is None:
            raise Poison("no_key")
        try:
            change = msgspec.json.decode(record.value or b"", type=Change)
        except msgspec.MsgspecError as error:
            raise Poison("not_a_change", str(error)) from error
        self._misbehave(change, record)
        if change.do == "delete":
            batch.rows.delete(record.key)
            return
        known = batch.rows.get(record.key)
        revision = msgspec.json.decode(known, type=Row).revision if known is not None else 0
        if change.revision <= revision:
            return
        text = change.text if change.do == "keep" else ""
        row = msgspec.json.encode(Row(change.revision, text))
        effect = Effect(id=f"{record.key.decode()}:{change.revision}", previous=revision, text=change.text)
        batch.emit(self._spec.output, key=record.key, value=msgspec.json.encode(effect))
        batch.rows.put(record.key, row)

    def _misbehave(self, change: Change, record: Record) -> None:
        if change.do == "poison":
            raise Poison("told_to")
        if change.do == "break":
            raise RuntimeError("an invariant is broken")
        if change.do == "hold" and self._spec.hold is not None and Path(self._spec.hold).exists():
            raise Transient("the test holds it")
        if change.do == "transient":
            place = record.partition, record.offset
            self._failed[place] += 1
            if self._failed[place] <= TRANSIENT_FAILURES:
                raise Transient("the world is not ready")


def read_tick(value: bytes) -> Tick:
    try:
        tick = msgspec.json.decode(value, type=TickJson)
    except msgspec.MsgspecError as error:
        raise Poison("not_a_tick", str(error)) from error
    return Tick(epoch=tick.epoch, seq=tick.seq, now=tick.now.astimezone(UTC))


def set_constant(name: str, value: object, *modules: ModuleType) -> None:
    """Give a constant of the runtime another value in this process: a test cannot wait for the one of production."""
    for module in modules:
        assert hasattr(module, name)
        setattr(module, name, value)


def run(spec: Spec) -> int:
    """Run until SIGTERM; returns the exit code."""
    if spec.session_timeout_ms is not None:
        set_constant("SESSION_TIMEOUT_MS", spec.session_timeout_ms, pump, runtime)
    if spec.delivery_timeout_ms is not None:
        set_constant("DELIVERY_TIMEOUT_MS", spec.delivery_timeout_ms, outbox)
    if spec.buffer_bytes is not None:
        set_constant("BUFFER_BYTES", spec.buffer_bytes, assignment)
    if spec.ticks is not None:
        set_constant("TICKS", spec.ticks, ticks, runtime, assignment)
    settings = Settings(
        data_dir=Path(spec.data_dir), clock=ClockMode.VIRTUAL if spec.ticks else ClockMode.WALL, log_format="json"
    )
    configure_logging(settings)
    worker = runtime.Runtime(
        settings,
        spec.app,
        instance=spec.instance,
        read_tick=read_tick,
        stateful=spec.stateful,
        memory_store=spec.memory_store,
        health_port=spec.health_port,
    )
    miniature = Miniature(spec)
    worker.agent("changes", topics=spec.topics, handler=miniature.handler(), open=miniature.open)
    if spec.ticks is not None:
        worker.agent("ticks", topics=[spec.ticks], handler=miniature.tick)
    try:
        return worker.run()
    except CurfewError as error:
        print(json.dumps({"event": "refused", "error": str(error), "kind": type(error).__name__}), file=sys.stderr)
        return EXIT_MISCONFIGURED


class AppProcess:
    """One run of the miniature as a child process; always leave through :meth:`kill` or :meth:`stop`."""

    def __init__(self, spec: Spec, servers: str, log: Path, *, fail_point: str | None = None) -> None:
        self.spec = spec
        self._log = log
        environment = {**os.environ, "CURFEW_BOOTSTRAP_SERVERS": servers}
        environment.pop("CURFEW_FAILPOINT", None)
        if fail_point is not None:
            environment["CURFEW_FAILPOINT"] = fail_point
        with log.open("wb") as out:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "tests.support.apps", msgspec.json.encode(spec).decode()],
                stdout=out, stderr=subprocess.STDOUT, env=environment,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def code(self) -> int | None:
        """The exit code; negative for a signal; None while it runs."""
        return self._child.poll()

    def log(self) -> list[dict[str, Any]]:
        """The structured lines so far; what is not JSON (a traceback) comes as ``{"event": line}``."""
        lines = []
        for line in self._log.read_text(errors="replace").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                lines.append({"event": line})
        return lines

    def said(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line.get("event") == event]

    def wait_for(self, event: str, times: int = 1, timeout_seconds: float = TIMEOUT_SECONDS) -> dict[str, Any]:
        """Wait for a log line; AssertionError with the log when the process ends first."""

        def there() -> bool:
            assert self.code is None or len(self.said(event)) >= times, f"ended with {self.code}: {self.tail()}"
            return len(self.said(event)) >= times

        wait_until(there, f"{event} of {self.spec.app}-{self.spec.instance}", timeout_seconds)
        return self.said(event)[-1]

    def partitions(self) -> list[int]:
        """Partitions of the last assignment."""
        assigned = self.said("worker.assigned")
        return list(assigned[-1]["partitions"]) if assigned else []

    def wait_ended(self, timeout_seconds: float = TIMEOUT_SECONDS) -> int:
        try:
            return self._child.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout_seconds:.0f} s: {self.tail()}") from None

    def send(self, number: signal.Signals) -> None:
        self._child.send_signal(number)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self._child.terminate()
        return self.wait_ended()

    def kill(self) -> None:
        """SIGKILL; harmless when it has ended."""
        with suppress(ProcessLookupError):
            self._child.kill()
        self._child.wait()

    def tail(self) -> str:
        """The last lines of its log, without those of librdkafka: twenty a second while the broker is away."""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join([line for line in lines if not line.startswith("%") and "pump.kafka" not in line][-15:])


if __name__ == "__main__":
    sys.exit(run(msgspec.json.decode(sys.argv[1], type=Spec)))
