"""The contenders of the benches, each run as its own process: ``python -m agents.bench.contenders NAME JSON``.

Each prints one JSON line with ``records`` and ``seconds``. Time runs from the first record in hand until the last
offset is committed; for recovery from the start of the process until the store is complete.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from agents.bench import record
from streams.kafka.outbox import LINGER_MS
from streams.kafka.store import Origin, RocksStore
from streams.settings import Settings

#: The same for every contender that uses librdkafka; the outbox's own values.
PRODUCER = {
    "acks": "all",
    "enable.idempotence": True,
    "compression.type": "lz4",
    "linger.ms": LINGER_MS,
    "partitioner": "murmur2_random",
    "queue.buffering.max.messages": 1_000_000,
}
BATCH = 500


class Task(msgspec.Struct, kw_only=True):
    """What the bench tells a contender."""

    servers: str
    source: str = ""
    target: str = ""
    changelog: str = ""
    group: str
    records: int
    directory: str
    store: str = "rocksdb"
    instance: str = "1"


def say(records: int, seconds: float, cpu: float | None = None) -> None:
    """Print the result past whatever took hold of ``sys.stdout`` (Faust's worker does); ``cpu``: processor seconds."""
    os.write(1, json.dumps({"records": records, "seconds": seconds, "cpu": cpu}).encode() + b"\n")


def stream_confluent(task: Task) -> None:
    """A raw confluent-kafka loop: consume 500, handle, flush, commit."""
    from confluent_kafka import Consumer, Producer

    store = RocksStore(
        Path(task.directory) / "rows", Origin(cluster_id="bench", topic_id="bench", topic="rows", partition=0)
    )
    store.write([record.row(number) for number in range(record.SERVICES)], None)
    consumer = Consumer(
        {
            "bootstrap.servers": task.servers, "group.id": task.group,
            "auto.offset.reset": "earliest", "enable.auto.commit": False,
        }
    )  # fmt: skip
    producer = Producer({"bootstrap.servers": task.servers, **PRODUCER})
    consumer.subscribe([task.source])
    produce, get, done, began = producer.produce, store.get, 0, 0.0
    while done < task.records:
        messages: list[Any] = consumer.consume(BATCH, timeout=1.0)
        if not messages:
            continue
        began = began or time.perf_counter()
        for message in messages:
            key, value, headers = record.enrich(message.value(), get)
            produce(task.target, value, key, headers=headers)  # type: ignore[arg-type]
        producer.flush()
        consumer.commit(asynchronous=False)
        done += len(messages)
    say(done, time.perf_counter() - began)


def stream_curfew(task: Task) -> None:
    """Our runtime: the same function inside an agent, the rows in the worker's own recovered store."""
    from streams.kafka.chunks import Batch

    began = 0.0

    def handle(batch: Batch) -> None:
        nonlocal began
        began = began or time.perf_counter()
        get, emit, target = batch.rows.get, batch.emit, task.target
        for item in batch.records:
            key, value, headers = record.enrich(item.value or b"", get)
            emit(target, key=key, value=value, headers=headers)

    _run(task, handle, lambda: began)


def puts_curfew(task: Task) -> None:
    """Our runtime: one put with changelog for each record."""
    from streams.kafka.chunks import Batch

    began = 0.0

    def handle(batch: Batch) -> None:
        nonlocal began
        began = began or time.perf_counter()
        put = batch.rows.put
        for item in batch.records:
            decoded = record.decode(item.value or b"")
            put(decoded["event_id"].encode(), item.value or b"")

    _run(task, handle, lambda: began)


def _run(task: Task, handle: Callable[[Any], None], began: Callable[[], float]) -> None:
    runtime = _runtime(task)
    runtime.agent("bench", topics=[task.source], handler=handle)

    async def watch() -> None:
        spent = 0.0
        while runtime.counters.records < task.records or not runtime.idle:
            spent = spent or (time.process_time() if runtime.counters.records else 0.0)
            await asyncio.sleep(0.001)  # outside of the hot path: an event would have to be set in it
        say(runtime.counters.records, time.perf_counter() - began(), time.process_time() - spent)
        runtime.stop()

    runtime.background(watch)
    sys.exit(runtime.run())


def _runtime(task: Task) -> Any:
    from streams.kafka.runtime import Runtime
    from streams.telemetry import configure_logging

    settings = Settings(bootstrap_servers=task.servers, data_dir=Path(task.directory), log_level="warning")
    configure_logging(settings)
    return Runtime(settings, "bench", group=task.group, changelog=task.changelog, memory_store=task.store == "memory")


def recovery_curfew(task: Task) -> None:
    """Our runtime: from process start until the stores of all partitions are recovered."""
    runtime = _runtime(task)
    opened: set[int] = set()

    def on_open(batch: Any) -> None:
        opened.add(batch.partition)
        if len(opened) == 4:
            say(task.records, time.time() - _started())
            os._exit(0)

    runtime.agent("bench", topics=[task.source], handler=lambda batch: None, open=on_open)
    runtime.run()


def _started() -> float:
    """When this process was started, Unix seconds, so that imports count."""
    import psutil

    return float(psutil.Process().create_time())


def _stock(task: Task, **conf: Any) -> Any:
    import faust

    os.chdir(task.directory)
    return faust.App(
        task.group, broker=f"kafka://{task.servers}", topic_partitions=4, web_enabled=False, topic_disable_leader=True,
        key_serializer="raw", value_serializer="raw", consumer_auto_offset_reset="earliest",
        broker_max_poll_records=5_000, stream_buffer_maxsize=4_096, consumer_max_fetch_size=4 << 20,
        producer_compression_type="lz4", producer_acks=-1, worker_redirect_stdouts=False,
        datadir=task.directory, **conf,
    )  # fmt: skip


def _serve(app: Any) -> None:
    sys.argv = ["faust", "-L", "uvloop", "worker", "-l", "error", "--without-web"]
    app.main()


def stream_faust(task: Task) -> None:
    """Stock Faust: the same function in an agent, ``topic.send`` awaited."""
    store = RocksStore(
        Path(task.directory) / "rows", Origin(cluster_id="bench", topic_id="bench", topic="rows", partition=0)
    )
    store.write([record.row(number) for number in range(record.SERVICES)], None)
    app = _stock(task, store="memory://")
    source = app.topic(task.source, key_type=bytes, value_type=bytes)
    target = app.topic(task.target, key_type=bytes, value_type=bytes)
    done, began = 0, 0.0

    @app.agent(source)  # type: ignore[untyped-decorator]
    async def enrich(stream: Any) -> None:
        nonlocal done, began
        async for item in stream:
            began = began or time.perf_counter()
            key, value, headers = record.enrich(item, store.get)
            await target.send(key=key, value=value, headers=dict(headers))
            done += 1
            if done >= task.records:
                await app.commit({task.source})
                say(done, time.perf_counter() - began)
                os._exit(0)

    _serve(app)


def puts_faust(task: Task) -> None:
    """Stock Faust: one table put for each record."""
    app = _stock(task, store="memory://" if task.store == "memory" else "rocksdb://")
    options = None if task.store == "memory" else {"driver": "rocksdict"}
    table = app.Table("rows", key_type=bytes, value_type=bytes, partitions=4, options=options)
    source = app.topic(task.source, key_type=bytes, value_type=bytes)
    done, began = 0, 0.0

    @app.agent(source)  # type: ignore[untyped-decorator]
    async def put(stream: Any) -> None:
        nonlocal done, began
        async for item in stream:
            began = began or time.perf_counter()
            table[record.decode(item)["event_id"].encode()] = item
            done += 1
            if done >= task.records:
                await app.producer.flush()
                await app.commit({task.source})
                say(done, time.perf_counter() - began)
                os._exit(0)

    _serve(app)


def recovery_faust(task: Task) -> None:
    """Stock Faust: from process start until its table is recovered."""
    app = _stock(task, store="memory://" if task.store == "memory" else "rocksdb://")
    options = None if task.store == "memory" else {"driver": "rocksdict"}
    table = app.Table("rows", key_type=bytes, value_type=bytes, partitions=4, options=options)
    source = app.topic(task.source, key_type=bytes, value_type=bytes)

    @app.agent(source)  # type: ignore[untyped-decorator]
    async def idle(stream: Any) -> None:
        async for _ in stream:
            pass

    @app.task  # type: ignore[untyped-decorator]
    async def recovered() -> None:
        found = len(table)
        if found != task.records:
            raise RuntimeError(f"stock Faust recovered {found:,} of {task.records:,} rows; this figure would be none")
        say(task.records, time.time() - _started())
        os._exit(0)

    _serve(app)


def events_curfew(task: Task) -> None:
    """The events worker as it is, see :mod:`agents.bench.events`."""
    from agents.bench.events_worker import run

    run(task)


CONTENDERS: dict[str, Callable[[Task], None]] = {
    "events-curfew": events_curfew,
    "stream-confluent": stream_confluent,
    "stream-curfew": stream_curfew,
    "stream-faust": stream_faust,
    "puts-curfew": puts_curfew,
    "puts-faust": puts_faust,
    "recovery-curfew": recovery_curfew,
    "recovery-faust": recovery_faust,
}

if __name__ == "__main__":
    given = msgspec.json.decode(sys.argv[2], type=Task)
    with tempfile.TemporaryDirectory(dir=given.directory) as own:
        given.directory = own
        CONTENDERS[sys.argv[1]](given)
