"""The clock process: writes ticks, one to each partition, and so moves business time.

Wall mode ticks once per second; several such processes may run. Virtual mode moves time only when nothing is in flight,
straight to the next instant at which anyone has something to do, but never further than one step. Free-running mode
moves time at a multiple of real time and waits for nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import structlog
from confluent_kafka import Consumer, TopicPartition

from streams.codec import Codec
from streams.core.clock import NextDue, Tick
from streams.core.errors import Misconfigured, Transient
from streams.kafka.catalogue import Catalogue, Source
from streams.kafka.outbox import Outbox
from streams.kafka.quiescence import Quiescence, Waiting
from streams.kafka.watermarks import watermarks
from streams.topics import DUE, TICKS

WALL_TICK_S = 1.0
#: Between two looks whether anything is in flight; a look costs the broker a request per group.
LOOK_EVERY_S = 0.01
#: In free-running mode ticks come this often, whatever the speed.
FREE_RUN_TICK_S = 0.1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class ClockFace:
    """Writes ticks with rising ``seq``; refuses to start before the last tick of the cluster."""

    config: dict[str, Any]
    codec: Codec
    epoch: str | None = None
    seq: int = 0
    now: datetime | None = None
    _outbox: Outbox = field(init=False)
    _partitions: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._partitions, last = self._last_ticks()
        self._outbox = Outbox(self.config)
        if last is not None:
            self.epoch, self.seq, self.now = last.epoch, last.seq, last.now
        elif self.epoch is None:
            self.epoch = str(uuid4())

    def _last_ticks(self) -> tuple[list[int], Tick | None]:
        consumer = Consumer({"group.id": "curfew-clock", "enable.auto.commit": False, **self.config})
        try:
            metadata = consumer.list_topics(TICKS, timeout=10.0).topics[TICKS]
            if metadata.error is not None:
                raise Misconfigured(f"no such topic: {TICKS}. Create it with: curfew topics apply")
            last: Tick | None = None
            for number in metadata.partitions:
                low, high = watermarks(consumer, TopicPartition(TICKS, number), 10.0)
                if high > low:
                    consumer.assign([TopicPartition(TICKS, number, high - 1)])
                    message = consumer.poll(10.0)
                    if message is None or message.error() is not None:
                        # Taken for "no tick yet" it would begin a new epoch, which stops every worker.
                        raise Transient(f"cannot read the last tick of {TICKS}[{number}]: is the broker well?")
                    tick = self.codec.decode(message.value(), Tick)
                    last = tick if last is None or tick.now > last.now else last
            return sorted(metadata.partitions), last
        finally:
            consumer.close()

    def tick(self, now: datetime) -> None:
        """Write one tick to every partition and wait until all are durable; raises Misconfigured for going back."""
        if self.now is not None and now < self.now:
            raise Misconfigured(
                f"the clock cannot go back from {self.now.isoformat()} to {now.isoformat()}: ticks are facts that "
                "workers have acted upon. Start this run with fresh data (curfew dev start --fresh)."
            )
        assert self.epoch is not None
        self.seq, self.now = self.seq + 1, now
        value = self.codec.encode(TICKS, Tick(epoch=self.epoch, seq=self.seq, now=now))
        before = self._outbox.failures
        for number in self._partitions:
            self._outbox.emit(TICKS, None, value, None, number)
        self._outbox.flush(before)

    def close(self) -> None:
        self._outbox.close()


def run_wall(face: ClockFace, stop: threading.Event) -> None:
    """Tick once per second until ``stop``; a machine clock that was set back is waited for, never followed.

    So is a broker that is away: the next tick says the time as it is then.
    """
    while not stop.is_set():
        now = datetime.now(UTC)
        if face.now is None or now > face.now:
            try:
                face.tick(now.replace(microsecond=now.microsecond // 1000 * 1000))
            except Transient as error:
                log.warning("clock.waits_for_kafka", error=str(error))
        stop.wait(WALL_TICK_S)


def run_free(face: ClockFace, stop: threading.Event, *, start: datetime, until: datetime, speed: float) -> None:
    """Tick ``start`` + ``speed`` × elapsed until ``until``; lateness in such a run is real."""
    began = time.monotonic()
    while not stop.is_set() and (face.now is None or face.now < until):
        elapsed = timedelta(seconds=(time.monotonic() - began) * speed)
        now = min(until, start + elapsed)
        try:
            face.tick(now.replace(microsecond=now.microsecond // 1000 * 1000))
        except Transient as error:  # time runs on; the next tick says what it is then
            log.warning("clock.waits_for_kafka", error=str(error))
        stop.wait(FREE_RUN_TICK_S)


@dataclass(slots=True, kw_only=True)
class VirtualClock:
    """Moves time at quiescence only, so a night passes as quickly as its work allows.

    A source of input outside of Kafka (the demo's producer, a test) is itself a group of the quiescence: it commits a
    tick when everything due up to it is sent, and reports on ``clock.due`` when it wants the next one.

    With a ``grain``, due instants are rounded up to multiples of it (counted from 1970), except those in ``exactly``:
    five thousand changes are released in as many different seconds, and a tick for each would make a night of hours.
    """

    face: ClockFace
    quiescence: Quiescence
    due: Catalogue
    step: timedelta
    grain: timedelta | None = None
    exactly: Collection[datetime] = ()
    on_tick: Callable[[datetime], None] = lambda now: None
    on_wait: Callable[[list[Waiting]], None] = lambda waiting: None

    def run(self, stop: threading.Event, *, start: datetime, until: datetime) -> None:
        """Tick from ``start`` to ``until``; returns when everything that the last tick caused is finished."""
        now = start if self.face.now is None else max(start, self.face.now)
        self._settle(stop)
        self._tick(stop, now)
        while not stop.is_set():
            self._settle(stop)
            if now >= until:
                return
            now = min(self._next(now), until)
            self._tick(stop, now)

    def _tick(self, stop: threading.Event, now: datetime) -> None:
        """Tick until Kafka has it; a tick that comes twice moves nothing."""
        while not stop.is_set():
            try:
                self.face.tick(now)
            except Transient as error:
                log.warning("clock.waits_for_kafka", error=str(error))
            else:
                self.on_tick(now)
                return

    def _next(self, now: datetime) -> datetime:
        # Something due in the past is work that the workers bound in flight; they go on when results arrive.
        dues: list[datetime] = [due for due in self.due.all("due").values() if due > now]
        exact = [instant for instant in self.exactly if instant > now]
        return min([*map(self._rounded, dues), *exact, now + self.step])

    def _rounded(self, due: datetime) -> datetime:
        return due if self.grain is None else due + (_EPOCH - due) % self.grain

    def _settle(self, stop: threading.Event) -> None:
        while not stop.is_set():
            waiting = self.quiescence.waiting()
            if waiting:
                self.on_wait(waiting)
                stop.wait(LOOK_EVERY_S)
                continue
            try:
                self.due.sync()
                return
            except Transient as error:  # time does not move before it is known how far
                log.warning("clock.waits_for_kafka", error=str(error))
                stop.wait(WALL_TICK_S)


def due_reports(config: dict[str, Any], codec: Codec) -> Catalogue:
    """Follows ``clock.due``: key ``<group>/<partition>`` → the next instant at which that partition has work."""
    read = codec.decoder(NextDue)
    return Catalogue(config, [Source(kind="due", topic=DUE, decode=lambda value: read(value).due)])


def barrier_reads(groups: Mapping[str, Any], topics: Mapping[str, Any]) -> dict[str, list[str]]:
    """Group → topics, of the groups that the manifest marks with ``barrier``, without their own timers."""
    return {
        name: [topic.name for topic in topics.values() if name in topic.readers and not topic.timer]
        for name, group in groups.items()
        if group.barrier
    }
