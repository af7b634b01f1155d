"""The thread that talks to Kafka's group protocol: librdkafka in, chunks out, rebalances handed to the event loop.

Every assignment starts from the committed offsets. So whatever was buffered, in flight or dropped when a partition was
taken away is fetched again by whoever gets it; no seek has to be repaired.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any, Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streams.core.errors import Fatal
from streams.kafka.assignment import Partition
from streams.kafka.chunks import Chunk, Record, split
from streams.kafka.failpoints import passing
from streams.kafka.fatal import is_fatal
from streams.kafka.watermarks import watermarks

#: A worker that was killed is missed after this long. Together with the delivery time-out of the outbox it bounds how
#: late a record of a worker can arrive that has lost its partitions: 10 s delivery + 3 s heartbeat < 15 s session.
SESSION_TIMEOUT_MS = 15_000
#: A process that was stopped for half of it may have lost its partitions, and writes nothing any more.
STALLED_AFTER_S = SESSION_TIMEOUT_MS / 1000 / 2
HEARTBEAT_INTERVAL_MS = 2_000
#: How long a rebalance may wait for chunks in flight. They end within the outbox's delivery time-out; those that wait
#: for the outside look at ``Batch.closing``, and end with what they have begun.
MAX_POLL_INTERVAL_MS = 300_000
HAND_OVER_TIMEOUT_S = 60.0
#: The pump polls at least this often; a gap of a whole session means that the process was stopped meanwhile.
POLL_S = 0.1
#: While chunks are on their way their commit must not wait for a poll to end.
BUSY_POLL_S = 0.003
#: While not all workers of a group have heard of a topic, one that was given too much of it joins again so often.
REJOIN_S = 30.0
FETCH_RECORDS = 4_000
COMMIT_TIMEOUT_S = 10.0

log = structlog.get_logger(__name__)


class Callbacks(Protocol):
    """What the pump tells the event loop."""

    async def on_assigned(self, start: dict[Partition, int], fresh: dict[Partition, int], generation: int) -> None:
        """``start``: where each partition begins; ``fresh``: those of them that the group has not committed yet."""
        ...

    async def on_revoked(self, partitions: set[Partition]) -> dict[Partition, int]:
        """Finish or drop what is in flight; returns the offsets to commit."""
        ...

    def on_chunks(self, chunks: list[Chunk]) -> None: ...

    def on_ends(self, ends: dict[Partition, int], generation: int) -> None:
        """All records in front of these offsets have been given to ``on_chunks``, and there are no more now."""
        ...

    def on_committed(self, offsets: dict[Partition, int], error: KafkaError | None) -> None: ...

    def on_lost(self) -> None:
        """The group has given the partitions to others already; nothing may be written any more."""
        ...

    def on_failed(self, error: BaseException) -> None: ...


class Pump:
    """Owns the librdkafka consumer of one worker."""

    def __init__(
        self, config: dict[str, Any], topics: Iterable[str], callbacks: Callbacks, leading: Collection[str] = ()
    ) -> None:
        """``leading``: topics that every member of the group reads at any time; they say which partition numbers are
        ours (see :meth:`_ours`). Empty means all."""
        self._topics = list(topics)
        self._leading = frozenset(leading)
        self._resubscribe = False
        self._rejoin_at = float("inf")
        self._member = config.get("group.instance.id", "the same member")
        self._callbacks = callbacks
        self._loop = asyncio.get_running_loop()
        self._stopping = threading.Event()
        self._assigned: set[Partition] = set()
        self._ends: dict[Partition, int] = {}
        #: Where the partitions ended when they were assigned last.
        self.ends: dict[Partition, int] = {}
        self.generation = 0
        self.last_poll = time.monotonic()
        # What the event loop wants done. Every call of the client is made in the pump's thread: the client locks a
        # consumer for the whole of poll(), and a commit or pause from another thread was seen to wait for ever, with
        # Python's own lock in its hands.
        self._wishes: deque[Callable[[], None]] = deque()
        # One commit is on its way at a time. The client repeats one that a broker which went away has not answered, and
        # sends the next one without waiting for it: the older would arrive last, and set the offsets back for good.
        self._next_commit: dict[Partition, int] = {}
        self._committing = False
        #: Whether a commit is to be expected soon; then the pump looks for wishes more often.
        self.busy = False
        self._consumer = Consumer(
            {
                "enable.auto.commit": False,
                "enable.partition.eof": True,  # for on_ends
                # A committed offset that the topic no longer has must not silently become "from the end".
                "auto.offset.reset": "earliest",
                # Range gives the same partition numbers of all topics to one worker: joins stay local.
                "partition.assignment.strategy": "range",
                "session.timeout.ms": SESSION_TIMEOUT_MS,
                "heartbeat.interval.ms": HEARTBEAT_INTERVAL_MS,
                "max.poll.interval.ms": MAX_POLL_INTERVAL_MS,
                "fetch.wait.max.ms": 100,
                "fetch.error.backoff.ms": 100,
                "queued.max.messages.kbytes": 16 * 1024,
                "isolation.level": "read_committed",
                "topic.metadata.refresh.interval.ms": 30_000,
                **config,
                "error_cb": self._on_error,
                "on_commit": self._on_commit,
            }
        )
        self._thread = threading.Thread(target=self._run, name="pump", daemon=True)

    def start(self) -> None:
        self._thread.start()

    # -- called from the event loop ---------------------------------------------------------------------------------

    def subscribe(self, topics: Iterable[str]) -> None:
        """Read these topics from now on; the group is balanced anew."""
        self._topics = list(topics)
        self._resubscribe = True

    def commit(self, offsets: dict[Partition, int]) -> None:
        """Ask for a commit of all that is not committed, when the one before is answered; the answer comes to
        ``on_committed``. What was asked for before and is not on its way yet is forgotten."""
        self._wishes.append(lambda: setattr(self, "_next_commit", offsets))

    def _commit(self) -> None:
        passing("commit.before")
        offsets, self._next_commit = self._next_commit, {}
        current = {partition: offset for partition, offset in offsets.items() if partition in self._assigned}
        if current:
            self._consumer.commit(offsets=_listed(current), asynchronous=True)
            self._committing = True

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        passing("commit.after")
        self._committing = False
        refused = error or next((p.error for p in partitions if p.error is not None), None)
        offsets = {(p.topic, p.partition): p.offset for p in partitions}
        self._loop.call_soon_threadsafe(self._callbacks.on_committed, offsets, refused)

    def ask_ends(self, tell: Callable[[dict[Partition, int]], None]) -> None:
        """``tell`` the end of every partition, as the last fetch has brought it, in the pump's thread."""
        self._wishes.append(lambda: tell({one: self._known_end(one) for one in self._assigned}))

    def _known_end(self, partition: Partition) -> int:
        found = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        return -1 if found is None else int(found[1])  # negative: not fetched yet

    def pause(self, partition: Partition) -> None:
        """Stop fetching a partition whose buffer is full; takes effect at the next poll."""
        self._wishes.append(lambda: self._switch(self._consumer.pause, partition))

    def resume(self, partition: Partition) -> None:
        """Fetch a partition again."""
        self._wishes.append(lambda: self._switch(self._consumer.resume, partition))

    def _switch(self, call: Callable[[list[TopicPartition]], None], partition: Partition) -> None:
        if partition in self._assigned:
            call([TopicPartition(*partition)])

    async def stop(self) -> None:
        """Leave the group after what is in flight is finished and committed."""
        self._stopping.set()
        await self._loop.run_in_executor(None, self._thread.join, HAND_OVER_TIMEOUT_S)

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._subscribe()
            while not self._stopping.is_set():
                self._poll()
            self._await_commit()
            # librdkafka's close can wait for ever for a coordinator that is away. Nothing is lost without it: the
            # member is a static one, which does not leave its group, and what was not committed is repeated.
            if self._hand_over({*self._assigned}):
                self._consumer.close()
        except BaseException as error:
            self._loop.call_soon_threadsafe(self._callbacks.on_failed, error)

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _poll(self) -> None:
        if self._resubscribe or time.monotonic() >= self._rejoin_at:
            self._resubscribe, self._rejoin_at = False, float("inf")
            self._subscribe()
        while self._wishes:
            self._wishes.popleft()()
        if self._next_commit and not self._committing:
            self._commit()
        first = self._consumer.poll(BUSY_POLL_S if self.busy else POLL_S)
        self.last_poll = time.monotonic()
        if first is None:
            return
        # poll() returns at once when something arrives, consume(n, 0) takes what is there already; consume(n, 0.1)
        # would hold back a lonely record for the whole time-out.
        generation = self.generation
        messages = self._consumer.consume(FETCH_RECORDS, 0.0)
        if generation == self.generation:
            messages.insert(0, first)
        # Else a rebalance came in between: the first record is of the old assignment and is fetched again. Taken into
        # the new one it would be committed before the records in front of it are done.
        chunks = self._chunks(messages)
        if chunks:
            self._loop.call_soon_threadsafe(self._callbacks.on_chunks, chunks)
        if self._ends:
            ends, self._ends = self._ends, {}
            self._loop.call_soon_threadsafe(self._callbacks.on_ends, ends, self.generation)

    def _await_commit(self) -> None:
        """Wait for the answer of the commit that is on its way. What is fetched meanwhile is not done, so it is fetched
        again. A rebalance does not wait: what is set back there the next owner repeats; here none may come for long."""
        until = time.monotonic() + COMMIT_TIMEOUT_S
        while self._committing and time.monotonic() < until:
            self._consumer.poll(BUSY_POLL_S)

    def _chunks(self, messages: list[Any]) -> list[Chunk]:
        by_partition: dict[Partition, list[Record]] = {}
        for message in messages:
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    self._ends[message.topic(), message.partition()] = message.offset()
                else:
                    self._on_message_error(error)
                continue
            topic, partition = message.topic(), message.partition()
            record = Record(
                topic,
                partition,
                message.offset(),
                message.key(),
                message.value(),
                message.headers() or [],
                message.timestamp()[1],
            )
            try:
                by_partition[topic, partition].append(record)
            except KeyError:
                by_partition[topic, partition] = [record]
        return [
            chunk
            for (topic, partition), records in by_partition.items()
            if (topic, partition) in self._assigned
            for chunk in split(topic, partition, self.generation, records)
        ]

    def _fenced(self, error: KafkaError) -> Fatal:
        return Fatal(
            f"another worker has joined as {self._member}, so this one has lost its partitions: give each worker of an "
            "app its own --instance. If there is no other one, the broker was away for as long as a session, and a "
            f"restart goes on ({error.str()})"
        )

    def _on_message_error(self, error: KafkaError) -> None:
        if is_fatal(error):
            raise self._fenced(error)
        log.warning("pump.kafka", error=error.str(), code=error.name())

    def _on_error(self, error: KafkaError) -> None:
        if is_fatal(error):
            self._loop.call_soon_threadsafe(self._callbacks.on_failed, self._fenced(error))
        log.warning("pump.kafka", error=error.str(), code=error.name())

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        passing("rebalance.assign")
        self.generation += 1
        ours = self._ours(partitions)
        start, fresh = self._start_offsets(consumer, ours)
        self._assigned = set(start)
        if len(ours) < len(partitions):
            self._rejoin_at = time.monotonic() + REJOIN_S
        elif self.generation == 1 and self._lacks(consumer, partitions):
            self._rejoin_at = time.monotonic()
        else:
            self._rejoin_at = float("inf")
        # Wishes of the old assignment: a pause that nobody would take back, a commit that would set back the offsets.
        self._wishes.clear()
        self._next_commit = {}
        self._wait_for(self._callbacks.on_assigned(start, fresh, self.generation))
        passing("seek")
        consumer.assign(_listed(start))
        # librdkafka keeps a pause over a rebalance; the runtime counts what is buffered from zero again.
        consumer.resume(_listed(start))

    def _ours(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Without those of a number that another worker has: while not all workers have heard of a new topic, the group
        gives all of its partitions to those that have, and two workers would write the rows of one number. Most topics
        are known to all, so what most of them say counts. What is left out is read when all have heard of it and the
        group is balanced again."""
        given: dict[str, set[int]] = {}
        for one in partitions:
            if one.topic in self._leading or not self._leading:
                given.setdefault(one.topic, set()).add(one.partition)
        said = Counter(map(frozenset, given.values()))
        most = max(said.values(), default=0)
        numbers = (
            frozenset.intersection(*(one for one, count in said.items() if count == most)) if said else frozenset()
        )
        return [one for one in partitions if one.partition in numbers]

    def _lacks(self, consumer: Consumer, partitions: list[TopicPartition]) -> bool:
        """Whether this worker was given nothing of a topic. A static member that comes back within its session gets
        what it had before, whatever it subscribes to by now. When the leader of its group joins again, the group is
        balanced anew, so each member tries that once; what the others know by then counts."""
        numbers, given = {one.partition for one in partitions}, {one.topic for one in partitions}
        lacking = [topic for topic in self._topics if topic not in given]
        if not numbers or not lacking:
            return False
        try:
            known = consumer.list_topics(timeout=COMMIT_TIMEOUT_S).topics
        except KafkaException as error:  # joining again costs a moment, and may be needed
            log.warning("pump.kafka", error=error.args[0].str(), code=error.args[0].name())
            return True
        lacking = [one for one in lacking if one in known and not numbers.isdisjoint(known[one].partitions)]
        if lacking:
            log.info("pump.joins_again", lacking=lacking)
        return bool(lacking)

    def _start_offsets(
        self, consumer: Consumer, partitions: list[TopicPartition]
    ) -> tuple[dict[Partition, int], dict[Partition, int]]:
        """Where to begin; waits while the broker is away."""
        waited = 0
        while not self._stopping.is_set():
            try:
                return self._ask_start_offsets(consumer, partitions)
            except KafkaException as error:
                if error.args[0].fatal():
                    raise
                if waited % 10 == 0:
                    log.warning("pump.waits_for_offsets", error=error.args[0].str())
                waited += 1
                self._stopping.wait(1.0)
        return {}, {}

    def _ask_start_offsets(
        self, consumer: Consumer, partitions: list[TopicPartition]
    ) -> tuple[dict[Partition, int], dict[Partition, int]]:
        """Committed offsets; a partition without one is ``fresh``: its first offset gets committed, so that "nothing in
        flight" can be told from "never started" by anyone who reads the group's offsets."""
        start: dict[Partition, int] = {}
        fresh: dict[Partition, int] = {}
        ends: dict[Partition, int] = {}
        for known in consumer.committed(partitions, timeout=COMMIT_TIMEOUT_S) if partitions else []:
            if known.error is not None:
                raise KafkaException(known.error)
            low, high = watermarks(consumer, known, COMMIT_TIMEOUT_S)
            offset, ends[known.topic, known.partition] = known.offset, high
            if offset < low:
                if offset >= 0:
                    log.error(
                        "pump.records_lost_by_retention",
                        topic=known.topic, partition=known.partition, committed=offset, first=low,
                        remedy="raise the topic's retention; these records were deleted before this group read them",
                    )  # fmt: skip
                offset = fresh[known.topic, known.partition] = low
            start[known.topic, known.partition] = offset
        self.ends = ends
        return start, fresh

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        passing("rebalance.revoke")
        self._hand_over({(p.topic, p.partition) for p in partitions})
        passing("rebalance.revoked")

    def _hand_over(self, partitions: set[Partition]) -> bool:
        """Finish what is in flight and commit it; False if that could not be committed."""
        self._assigned -= partitions
        offsets = self._wait_for(self._callbacks.on_revoked(partitions))
        if not offsets:
            return True
        try:
            self._consumer.commit(offsets=_listed(offsets), asynchronous=False)
        except KafkaException as error:  # the next owner repeats these chunks; their ids are the same
            log.warning("pump.not_committed", error=str(error))
            return False
        return True

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        log.warning("pump.partitions_lost", partitions=len(partitions))
        self._assigned -= {(p.topic, p.partition) for p in partitions}
        self._loop.call_soon_threadsafe(self._callbacks.on_lost)
        self._wait_for(self._callbacks.on_revoked({(p.topic, p.partition) for p in partitions}))

    def _wait_for(self, call: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(HAND_OVER_TIMEOUT_S)


def _listed(offsets: dict[Partition, int]) -> list[TopicPartition]:
    return [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
