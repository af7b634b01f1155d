"""Reads the first record at or after an offset, of many partitions, for its timestamp: the exact lag in time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, Message, TopicPartition

from streams.core.lag.track import Ends, FirstUnread
from streams.kafka.admin import quiet

#: Partitions that are read at once. Each holds a place in every fetch request.
AT_ONCE: Final = 200
#: Of each partition one record is wanted; what a fetch brings beyond it is thrown away.
FETCH_BYTES: Final = 16 * 1024
POLL_S: Final = 0.02


class Question(NamedTuple):
    """What is the first record of this partition from this offset on?"""

    topic: str
    partition: int
    offset: int


class _Answer(NamedTuple):
    """``offset`` of the record; -1 when there was none in front of ``readable``."""

    at_ms: int | None
    offset: int
    readable: int


class FirstUnreadReader:
    """One consumer that is assigned by hand, commits nothing and reads committed records only. It remembers answers
    for as long as they are asked for. Use it from one thread."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._consumer = Consumer(
            quiet(
                {
                    **config,
                    "group.id": "curfew-monitor",  # required by the client, never joined
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                    "isolation.level": "read_committed",
                    # what was asked for may have been removed by age: the first that is left, then
                    "auto.offset.reset": "earliest",
                    "max.partition.fetch.bytes": FETCH_BYTES,
                    # a partition with something queued waits a second by default before it is fetched again
                    "fetch.queue.backoff.ms": 10,
                    "fetch.wait.max.ms": 20,
                    "fetch.error.backoff.ms": 20,
                }
            )
        )
        self._answers: dict[Question, _Answer] = {}
        self.reads = 0

    def close(self) -> None:
        self._consumer.close()

    def known(self, question: Question, ends: Ends) -> FirstUnread | None:
        """What an earlier read has found and is still true; None where nobody has read."""
        answer = self._answers.get(question)
        if answer is None:
            return None
        if answer.at_ms is None:  # nothing was there; something may have come
            return FirstUnread(at_ms=None) if ends.readable == answer.readable else None
        return FirstUnread(at_ms=answer.at_ms) if ends.start <= answer.offset else None

    def forget_all_but(self, asked: Iterable[Question]) -> None:
        """Bound the memory: groups move on, and what was true of their old offsets is of no use."""
        self._answers = {one: self._answers[one] for one in asked if one in self._answers}

    def read(self, questions: Sequence[tuple[Question, int]], *, deadline: float) -> None:
        """Find answers, in this order, until ``deadline`` (``time.monotonic()``). With each question comes where the
        partition could be read to when it was asked."""
        waiting = dict(questions)
        while waiting and time.monotonic() < deadline:
            chosen: dict[tuple[str, int], Question] = {}
            for one in waiting:
                if len(chosen) < AT_ONCE:  # a partition can be read from one place at a time
                    chosen.setdefault((one.topic, one.partition), one)
            self._round(chosen, waiting, deadline)
            for one in chosen.values():
                del waiting[one]

    def _round(
        self, chosen: dict[tuple[str, int], Question], readable: Mapping[Question, int], deadline: float
    ) -> None:
        self._consumer.assign([TopicPartition(*one) for one in chosen.values()])
        left = dict(chosen)
        while left and time.monotonic() < deadline:
            answered = []
            for message in self._consumer.consume(AT_ONCE, POLL_S):
                place = message.topic() or "", message.partition() or 0
                question = left.get(place)
                if question is not None and (message.error() or (message.offset() or 0) >= question.offset):
                    self._take(question, message, readable[question])
                    answered.append(TopicPartition(*place))
                    del left[place]
            if answered and left:
                self._consumer.incremental_unassign(answered)
        self._consumer.unassign()

    def _take(self, question: Question, message: Message, readable: int) -> None:
        error = message.error()
        if error is not None:  # any but the end: not readable for us, or gone; there is no answer
            if error.code() == KafkaError._PARTITION_EOF:
                self._answers[question] = _Answer(None, -1, readable)
                self.reads += 1
            return
        kind, at_ms = message.timestamp()
        if kind != TIMESTAMP_NOT_AVAILABLE:
            self._answers[question] = _Answer(at_ms, message.offset() or 0, readable)
            self.reads += 1
