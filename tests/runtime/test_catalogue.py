"""The topics that are read whole: a worker whose follower dies must not go on with yesterday's configuration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from streams.core.errors import EXIT_FATAL
from streams.kafka.catalogue import Catalogue, Source
from tests.faults.flow import create_topics, producer
from tests.support.brokers import Brokers
from tests.support.kafka_io import TIMEOUT_SECONDS, wait_until

#: A worker as agents/worker.py builds it, with a fault in what decodes its routes.
SCRIPT = """
import sys
from pathlib import Path
from streams.kafka.catalogue import Catalogue, Source
from streams.kafka.runtime import Runtime
from streams.settings import Settings
from streams.telemetry import configure_logging

name, directory = sys.argv[1:]

def decode(value):
    if value == b"break":
        raise RuntimeError("a fault in the decoder")
    return value

settings = Settings(data_dir=Path(directory), log_format="json")
configure_logging(settings)
catalogue = Catalogue(settings.kafka(), [Source(kind="route", topic=f"{name}-routes", decode=decode)])
catalogue.start()
worker = Runtime(settings, name, stateful=False)
worker.agent("changes", topics=[f"{name}-in"], handler=lambda batch: None)
sys.exit(worker.run())
"""


@pytest.mark.kafka
def test_a_worker_whose_catalogue_is_not_followed_any_more_stops(
    kafka: Brokers, unique: Callable[[str], str], tmp_path: Path
) -> None:
    """Exit code 70 and one line that says what died, of which topics, and what happens now; nothing is passed over."""
    name, log = unique("catalogue"), tmp_path / "worker.log"
    create_topics(kafka.bootstrap_servers, {f"{name}-routes": {}, f"{name}-in": {}}, partitions=1)
    with log.open("wb") as lines:
        worker = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, name, str(tmp_path)],
            env={**os.environ, "CURFEW_BOOTSTRAP_SERVERS": kafka.bootstrap_servers},
            stdout=lines,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: "worker.assigned" in log.read_text() or worker.poll() is not None, "the worker runs")
        assert worker.poll() is None, log.read_text()

        out = producer(kafka.bootstrap_servers)
        out.produce(f"{name}-routes", b"break", b"a-route")
        assert out.flush(30.0) == 0
        wait_until(lambda: worker.poll() is not None, "the worker stops")
    finally:
        worker.kill()
        worker.wait()

    said = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    [died] = [line for line in said if line["event"] == "catalogue.died"]
    assert worker.returncode == EXIT_FATAL
    assert "a fault in the decoder" in died["error"]
    assert died["topics"] == [f"{name}-routes"]
    assert "restarts it" in died["remedy"]


@pytest.mark.kafka
def test_partitions_that_its_client_has_not_heard_of_do_not_keep_a_worker_from_starting(
    kafka: Brokers, unique: Callable[[str], str]
) -> None:
    """A client that asked for a topic at a bad moment believes what it heard for minutes; a start asks anew."""
    topic, config = unique("grows"), dict[str, Any]({"bootstrap.servers": kafka.bootstrap_servers})
    create_topics(kafka.bootstrap_servers, {topic: {}}, partitions=1)
    catalogue = Catalogue(config, [Source(kind="route", topic=topic, decode=lambda value: value)])
    catalogue._asker.get_watermark_offsets(TopicPartition(topic, 0), timeout=TIMEOUT_SECONDS)
    admin = AdminClient(config)
    admin.create_partitions([NewPartitions(topic, 4)])[topic].result(TIMEOUT_SECONDS)
    out = producer(kafka.bootstrap_servers)
    out.produce(topic, b"a-route", b"one", partition=3)
    assert out.flush(30.0) == 0

    wait_until(
        lambda: len(admin.list_topics(topic, timeout=TIMEOUT_SECONDS).topics[topic].partitions) == 4,
        "the topic has grown",
    )
    catalogue.start()
    try:
        assert catalogue.get("route", "one") == b"a-route"
    finally:
        catalogue.stop()
