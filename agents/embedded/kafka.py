"""One Kafka broker in KRaft combined mode (broker and controller in one process), on loopback only."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from agents.embedded.errors import StackError
from agents.embedded.java import cache_options, class_path, run_java, start_java

PROPERTIES: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    # A misspelt topic must fail, not come into being with one partition.
    "auto.create.topics.enable": "false",
    # There is one broker; the defaults of 3 would make internal topics impossible to create.
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # 50 partitions each by default: their creation makes the first consumer wait for seconds.
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.num.partitions": "8",
    "share.coordinator.state.topic.num.partitions": "4",
    # The default lets every new group wait 3 s for more members.
    "group.initial.rebalance.delay.ms": "0",
    # The default of 6 s refuses the short sessions with which tests notice a killed worker.
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    # After a kill -9 the controller refuses the broker until the session of its former life has expired. With 3 s a
    # machine that stalled for a moment fenced its healthy broker, and no partition had a leader; with Kafka's 9 s a
    # restart takes as long as the sessions of our workers.
    "broker.session.timeout.ms": "6000",
    "broker.heartbeat.interval.ms": "1000",
    # The default allocates 128 MiB, a quarter of the heap.
    "log.cleaner.dedupe.buffer.size": str(16 << 20),
    "num.network.threads": "2",
    "num.io.threads": "4",
}

_LOG4J2 = """\
Configuration:
  Appenders:
    Console:
      name: out
      PatternLayout: {pattern: "%d %p %c %m%n"}
  Loggers:
    Root: {level: warn, AppenderRef: {ref: out}}
"""
_LOG4J1 = """\
log4j.rootLogger=WARN, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d %p %c %m%n
"""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("-")[0].split(".") if part.isdigit())


class Broker:
    """The files of one broker in `directory` and the way to start it. Owns no process."""

    def __init__(self, directory: Path, version: str, jars: Sequence[Path]) -> None:
        self._directory = directory
        self._version = version
        self._jars = jars
        self._identity = directory / "kafka.json"  # written last, so that it vouches for a complete format
        self._cache = f"kafka-{version}"
        self.log = directory / "kafka.log"

    @property
    def cluster_id(self) -> str:
        return str(json.loads(self._identity.read_text("utf-8"))["cluster_id"])

    def prepare(
        self, *, port: int, controller_port: int, overrides: Mapping[str, str], more: Mapping[str, tuple[int, str]]
    ) -> None:
        """Write the configuration and, once per directory, format the storage. StackError when that fails.

        ``more`` listeners: name → port and security protocol.
        """
        listeners = ",".join(
            [f"PLAINTEXT://127.0.0.1:{port}", *(f"{name}://127.0.0.1:{number}" for name, (number, _) in more.items())]
        )
        protocols = [
            PROPERTIES["listener.security.protocol.map"],
            *(f"{name}:{kind}" for name, (_, kind) in more.items()),
        ]
        properties = {
            **PROPERTIES,
            "listener.security.protocol.map": ",".join(protocols),
            "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": listeners,
            "log.dirs": str(self._directory / "kafka"),
            **overrides,
        }
        self._directory.joinpath("kafka.properties").write_text(
            "".join(f"{key}={value}\n" for key, value in properties.items()), "utf-8"
        )
        self._directory.joinpath("log4j2.yaml").write_text(_LOG4J2, "utf-8")
        self._directory.joinpath("log4j.properties").write_text(_LOG4J1, "utf-8")
        if self._identity.exists():
            self._refuse_downgrade()
        else:
            self._format()

    def start(self, heap_mib: int, keep_open: Sequence[int], train_into: Path | None = None) -> subprocess.Popen[bytes]:
        arguments = [
            f"-Xmx{heap_mib}m",
            *cache_options(self._cache, train_into),
            *self._logging_options(),
            "-cp",
            class_path(self._jars),
            "kafka.Kafka",
            str(self._directory / "kafka.properties"),
        ]
        return start_java(arguments, log=self.log, cwd=self._directory, environment={}, keep_open=keep_open)

    def answers(self, port: int, timeout_seconds: float) -> bool:
        """Whether *this* broker (its cluster id) serves metadata at the port."""
        # Without log_level 0 librdkafka writes "connection refused" to stderr until the broker is up.
        client = AdminClient({"bootstrap.servers": f"127.0.0.1:{port}", "log_level": 0})
        try:
            metadata = client.list_topics(timeout=timeout_seconds)
        except KafkaException:
            return False
        return bool(metadata.brokers) and metadata.cluster_id == self.cluster_id

    def _logging_options(self) -> list[str]:
        if _numbers(self._version) >= (4,):
            return [f"-Dlog4j2.configurationFile={self._directory.joinpath('log4j2.yaml').as_uri()}"]
        return [f"-Dlog4j.configuration={self._directory.joinpath('log4j.properties').as_uri()}"]

    def _format(self) -> None:
        shutil.rmtree(self._directory / "kafka", ignore_errors=True)  # of a format that was interrupted
        # "A" in front: Kafka refuses ids that begin with a dash, and reads such arguments as options.
        cluster_id = "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
        result = run_java(
            "kafka.tools.StorageTool",
            ["format", "-t", cluster_id, "-c", str(self._directory / "kafka.properties")],
            jars=self._jars,
            options=cache_options(self._cache),
        )
        if result.returncode != 0:
            raise StackError(
                f"Kafka cannot format its storage: {(result.stderr or result.stdout).strip()[-2000:]}",
                where=str(self._directory / "kafka"),
                remedy="check that the directory is writable and the disk is not full",
            )
        self._write_identity(cluster_id)

    def _write_identity(self, cluster_id: str) -> None:
        scratch = self._identity.with_suffix(".tmp")
        scratch.write_text(json.dumps({"cluster_id": cluster_id, "kafka_version": self._version}), "utf-8")
        os.replace(scratch, self._identity)

    def _refuse_downgrade(self) -> None:
        """Newer data in the hands of an older Kafka fails late and obscurely; older data is upgraded in place."""
        written_by = str(json.loads(self._identity.read_text("utf-8"))["kafka_version"])
        if _numbers(written_by) > _numbers(self._version):
            raise StackError(
                f"The data was written by Kafka {written_by}, which Kafka {self._version} cannot read.",
                where=str(self._directory),
                remedy=f"use --kafka-version {written_by}, another --data-dir, or --fresh (deletes the data)",
            )
        if written_by != self._version:
            self._write_identity(self.cluster_id)
