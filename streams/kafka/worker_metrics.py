"""What a worker tells Prometheus on its health port."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

import psutil

from streams import metrics as m
from streams.exposition import Exposition

if TYPE_CHECKING:
    from streams.kafka.lanes import Counters

#: In the environment of a process that a supervisor has started: how often it did so before.
RESTARTS: Final = "CURFEW_RESTARTS"


def worker_metrics(
    *,
    app: str,
    instance: str,
    alive: bool,
    outstanding: int,
    counters: Counters,
    lags: Mapping[tuple[str, int], int],
    now: Mapping[int, datetime | None],
) -> str:
    """``lags`` in records by topic and partition, ``now`` business time by partition."""
    out, who = Exposition(), (app, instance)
    out.add(m.WORKER_ALIVE, alive, *who)
    out.add(m.WORKER_OUTSTANDING, outstanding, *who)
    out.add(m.WORKER_RECORDS, counters.records, *who)
    out.add(m.WORKER_OUTPUTS, counters.outputs, *who)
    out.add(m.WORKER_ROWS, counters.rows, *who)
    out.add(m.WORKER_RETRIES, counters.retries, *who)
    out.add(m.WORKER_RESTARTS, int(os.environ.get(RESTARTS, "0")), *who)
    for reason, count in sorted(counters.dead_letters.items()):
        out.add(m.WORKER_DEAD_LETTERS, count, *who, reason)
    for (topic, partition), lag in sorted(lags.items()):
        out.add(m.WORKER_LAG, lag, *who, topic, partition)
    for partition, instant in sorted(now.items()):
        out.add(m.WORKER_BUSINESS_TIME, None if instant is None else instant.timestamp(), *who, partition)
    out.add_histogram(m.WORKER_CHUNK_SECONDS, counters.chunk_seconds, *who)
    return out.text() + process_metrics()


def process_metrics() -> str:
    """Under the names that every client library of Prometheus uses."""
    process, out = psutil.Process(), Exposition()
    with process.oneshot():
        times = process.cpu_times()
        out.add(m.PROCESS_CPU, round(times.user + times.system, 2))
        out.add(m.PROCESS_MEMORY, process.memory_info().rss)
        out.add(m.PROCESS_START, process.create_time())
    return out.text()
