"""Follows the topics while the night runs, in a thread and without a consumer group, and keeps what was seen there."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from streams.codec import Codec
from streams.core import ids
from streams.core.errors import CurfewError
from streams.core.events import Event, Finding
from streams.core.plan_change.messages import Acknowledgement, AcknowledgementKind, Reply, Request, RequestKind
from streams.core.rows import Kind
from streams.kafka.scan import Scanner
from streams.topics import ACKNOWLEDGEMENTS, FINDINGS, REPLIES, REQUESTS

BATCH = 2_000
POLL_S = 0.2
#: A watcher that does not reach the end of its topics in this time has lost the broker.
CATCH_UP_S = 180.0
STAGES = ("pending", "started", "executed", "persisted", "completed", "effective")
QUEUE = "queue."


@dataclass(slots=True)
class Seen:
    """Everything that the topics said, each fact once however often it was sent.

    Keys are change ids, or (service id, request id); ``in_zone`` counts changes by zone and stage, and ``slack`` is the
    least time that was left to the deadline when a change of the zone was committed.
    """

    zone_of: Mapping[str, str]
    requests: dict[tuple[str, str], Request] = field(default_factory=dict)
    sent: int = 0
    replies: dict[tuple[str, str], Reply] = field(default_factory=dict)
    contradictions: int = 0
    stages: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    committed: dict[str, datetime] = field(default_factory=dict)
    missed: set[str] = field(default_factory=set)
    released: set[str] = field(default_factory=set)
    event_types: dict[str, str] = field(default_factory=dict)
    queued: Counter[str] = field(default_factory=Counter)
    in_zone: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    slack: dict[str, timedelta] = field(default_factory=dict)
    deadlines: dict[str, datetime] = field(default_factory=dict)

    def request(self, request: Request) -> None:
        self.sent += 1
        self.requests[request.service_id, request.request_id] = request

    def reply(self, reply: Reply) -> None:
        key = reply.service_id, reply.request_id
        known = self.replies.setdefault(key, reply)
        if known is not reply:
            if known != reply:  # the same request gets the same answer
                self.contradictions += 1
            return
        if not reply.accepted or reply.change_id is None:
            self.in_zone[self.zone_of.get(reply.account_id, "?")]["refused"] += 1
        elif reply.state == "cancelled":
            self.step(reply.change_id, reply.account_id, "cancelled")
        else:
            if reply.deadline_at is not None:
                self.deadlines[reply.change_id] = reply.deadline_at
                self._slack(reply.change_id, reply.account_id)
            self.step(reply.change_id, reply.account_id, "accepted")

    def finding(self, finding: Finding) -> None:
        if finding.subject_kind == Kind.RATE_PLAN_CHANGE:
            name = finding.type.partition(".")[2]
            if name not in ("ordered", "cancelled"):  # known from the replies, which silent changes have too
                self.step(finding.subject_id, finding.account_id or "", name)

    def acknowledgement(self, one: Acknowledgement) -> None:
        match one.kind:
            case AcknowledgementKind.PERSISTED:
                self.committed.setdefault(one.change_id, one.committed_at)
                self._slack(one.change_id, one.account_id)
            case AcknowledgementKind.MISSED:
                self.missed.add(one.change_id)
            case AcknowledgementKind.RELEASED:
                self.released.add(one.change_id)
                self.step(one.change_id, one.account_id, "effective")

    def _slack(self, change_id: str, account_id: str) -> None:
        """Deadline and commit are on different topics, so either may be seen first."""
        if change_id in self.deadlines and change_id in self.committed:
            zone, slack = self.zone_of.get(account_id, "?"), self.deadlines[change_id] - self.committed[change_id]
            self.slack[zone] = min(slack, self.slack.get(zone, slack))

    def event(self, topic: str, event: Event) -> None:
        self.queued[topic] += 1
        self.event_types[event.event_id] = event.type

    def step(self, change_id: str, account_id: str, stage: str) -> None:
        if change_id not in self.stages[stage]:
            self.stages[stage].add(change_id)
            self.in_zone[self.zone_of.get(account_id, "?")][stage] += 1

    def orders(self) -> dict[str, Request]:
        """Change id → the order, of all orders that were sent."""
        return {
            ids.change_id(service, request): one
            for (service, request), one in self.requests.items()
            if one.kind is RequestKind.ORDER
        }

    def row(self, zone: str) -> dict[str, int]:
        """How many changes of a zone are pending, and how many have reached each later stage."""
        counts = self.in_zone[zone]
        gone = counts["started"] + counts["cancelled"] + counts["superseded"]
        return {"pending": max(0, counts["accepted"] - gone)} | {stage: counts[stage] for stage in STAGES[1:]}


class Watch:
    """Fills ``seen``, which may be read from any thread while it grows."""

    def __init__(self, config: dict[str, Any], codec: Codec, queues: tuple[str, ...], seen: Seen) -> None:
        self.seen = seen
        self.error: Exception | None = None
        self._takes: dict[str, tuple[Callable[[bytes | None], Any], Callable[[Any], None]]] = {
            REQUESTS: (codec.decoder(Request), self.seen.request),
            REPLIES: (codec.decoder(Reply), self.seen.reply),
            FINDINGS: (codec.decoder(Finding), self.seen.finding),
            ACKNOWLEDGEMENTS: (codec.decoder(Acknowledgement), self.seen.acknowledgement),
        }
        event = codec.decoder(Event)
        for name in queues:
            self._takes[QUEUE + name] = event, self._event_taker(QUEUE + name)
        self._consumer = Consumer(
            {
                **config,
                "group.id": "demo-watch",  # required by the client; it is never joined and nothing is committed
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            }
        )
        self._done: dict[tuple[str, int], int] = {}
        self._partitions: list[TopicPartition] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="demo-watch", daemon=True)

    def _event_taker(self, topic: str) -> Callable[[Event], None]:
        return lambda event: self.seen.event(topic, event)

    def start(self) -> None:
        metadata = self._consumer.list_topics(timeout=10.0).topics
        self._partitions = [
            TopicPartition(topic, number, 0) for topic in self._takes for number in metadata[topic].partitions
        ]
        self._consumer.assign(self._partitions)
        self._thread.start()

    def catch_up(self, scanner: Scanner) -> None:
        """Wait until all that is in the topics now has been taken; raises CurfewError when that cannot be."""
        deadline = time.monotonic() + CATCH_UP_S
        ends = {(topic, number): span.end for topic in self._takes for number, span in scanner.spans(topic).items()}
        while any(self._done.get(partition, 0) < end for partition, end in ends.items()):
            if self.error is not None or time.monotonic() > deadline:
                raise CurfewError(f"the demo's watcher does not reach the end of its topics: {self.error}")
            time.sleep(POLL_S / 4)

    def _follow(self) -> None:
        try:
            while not self._stopping.is_set():
                for message in self._consumer.consume(BATCH, POLL_S):
                    self._take(message)
        except Exception as error:  # shown by whoever waits for us
            self.error = error
        finally:
            self._consumer.close()

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            if error.code() != KafkaError._PARTITION_EOF:
                raise CurfewError(f"cannot read {message.topic()}: {error.str()}")
            return
        decode, take = self._takes[str(message.topic())]
        take(decode(message.value()))
        self._done[str(message.topic()), message.partition() or 0] = (message.offset() or 0) + 1

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
