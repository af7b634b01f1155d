"""The worker ``sources`` as a process on a Kafka of its own, which knows who may read what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka import Producer
from fastavro import parse_schema, schemaless_writer

from agents.configuration.records import write_records
from agents.embedded.ports import free_port
from agents.sources.feeds import feed_of
from agents.sources.rows import ROWS
from agents.supervisor import Supervisor
from streams.codec import Codec, Registry
from streams.codec.registration import register_all
from streams.core.sources import DataSource, Format, SourceRow, SourceTopic
from streams.kafka import admin as kafka_admin
from streams.kafka.lag.offset_fetch import committed_offsets
from streams.kafka.manifest import Manifest
from streams.kafka.scan import Scanner
from streams.settings import Settings
from tests.support.brokers import Address, private
from tests.support.proxy import Proxy

NEEDED = ("config.sources", ROWS, "sources.shared", "dead-letters.sources")
#: Of another team, so it is in no schema of ours.
DEVICE: dict[str, Any] = {
    "type": "record",
    "name": "Device",
    "fields": [{"name": "account_id", "type": "string"}, {"name": "model", "type": "string"}],
}
#: A start of the worker in minutes, on a machine that is busy; waits between tries are half a minute.
PATIENCE_S = 120.0


def json_source(name: str) -> DataSource:
    """A table of accounts, fed by the topic ``crm.<name>``, whose keys are the accounts'."""
    topic = SourceTopic(name=f"crm.{name}", format=Format.JSON, key_in="record")
    return DataSource(name=name, object="account", fields={"tier": "string"}, topic=topic)


AVRO = DataSource(name="device", object="account", fields={"model": "string"}, topic=SourceTopic(name="crm.device"))


@contextmanager
def provided(directory: Path) -> Iterator[Site]:
    """A site; its worker is ended at the end, and may not have to be killed."""
    properties = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with private(directory / "stack", kafka_properties=properties) as address:
        made = Site(address, directory)
        try:
            yield made
        finally:
            killed = made.close()
    assert killed == []


class Site:
    """A Kafka that knows who may read what, a registry that can go away, and the worker."""

    def __init__(self, address: Address, directory: Path) -> None:
        self.servers = address.bootstrap_servers
        self.proxy = Proxy(address.schema_registry_url)
        self.registry = Registry(address.schema_registry_url)
        self.codec = Codec(self.registry)
        self.decode = self.codec.decoder(SourceRow)
        self.settings = Settings(bootstrap_servers=self.servers, schema_registry_url=address.schema_registry_url)
        self.admin = kafka_admin.admin_client(self.settings.kafka())
        self.port = free_port()
        self.supervisor = Supervisor(
            log_dir=directory / "logs",
            grace_s=PATIENCE_S,
            env={
                "CURFEW_BOOTSTRAP_SERVERS": self.servers,
                "CURFEW_SCHEMA_REGISTRY_URL": self.proxy.url,
                "CURFEW_DATA_DIR": str(directory),
                "CURFEW_LOG_FORMAT": "json",
            },
        )
        manifest = Manifest.load()
        kafka_admin.create_topics(self.admin, [manifest.topics[name] for name in NEEDED])
        subjects = manifest.subjects()
        names = [f"{name}-value" for name in NEEDED]
        register_all(self.registry, {name: subjects[name] for name in names if name in subjects})

    def declare(self, *sources: DataSource) -> None:
        write_records(self.settings, self.codec, "config.sources", {one.name: one for one in sources})

    def start(self) -> None:
        self.supervisor.add("sources", "worker", "sources", "--health-port", str(self.port))

    def send(self, topic: str, *records: tuple[str, bytes]) -> None:
        producer = Producer({"bootstrap.servers": self.servers, "enable.idempotence": True})
        failures: list[str] = []

        for key, value in records:
            producer.produce(
                topic, key=key, value=value, on_delivery=lambda e, _: failures.append(str(e)) if e else None
            )
        assert producer.flush(PATIENCE_S) == 0
        assert failures == []

    def device(self, account_id: str, model: str) -> bytes:
        """A record of the Avro source, in the wire format."""
        schema_id = self.registry.register("crm.device-value", DEVICE)
        out = BytesIO()
        out.write(b"\0" + schema_id.to_bytes(4, "big"))
        schemaless_writer(out, parse_schema(DEVICE), {"account_id": account_id, "model": model})
        return out.getvalue()

    def read(self, topic: str) -> list[Any]:
        with Scanner(self.settings.kafka()) as scanner:
            return list(scanner.read(topic, scanner.spans(topic)))

    def rows(self, source: str) -> list[SourceRow]:
        """What has come of a source, in its order."""
        found = [self.decode(message.value()) for message in self.read(ROWS)]
        return [row for row in found if row.source == source]

    def values(self, source: str) -> dict[str, object]:
        """By account, what the last of these rows says."""
        return {row.key: next(iter((row.fields or {}).values()), None) for row in self.rows(source)}

    def unread(self, source: DataSource) -> int:
        """Records of its topic that its feed has not committed."""
        assert source.topic is not None
        with Scanner(self.settings.kafka()) as scanner:
            ends = {(source.topic.name, n): span.end for n, span in scanner.spans(source.topic.name).items()}
        done = committed_offsets(self.settings.kafka(), feed_of(source), ends)
        return sum(end - done.get(place, 0) for place, end in ends.items())

    def health(self) -> tuple[int, dict[str, Any]]:
        """Status and answer; (0, {}) while nobody answers."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=PATIENCE_S, trust_env=False)
        except httpx.ConnectError:
            return 0, {}
        return answer.status_code, answer.json()

    def states(self) -> dict[str, str]:
        return {name: one["state"] for name, one in self.health()[1].get("sources", {}).items()}

    def problem(self, source: str) -> str:
        return str(self.health()[1].get("sources", {}).get(source, {}).get("problem"))

    def waits(self) -> dict[str, float]:
        """The metric, by source."""
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=PATIENCE_S, trust_env=False).text
        lines = [line for line in text.splitlines() if line.startswith("curfew_source_waiting{")]
        return {line.split('source="')[1].split('"')[0]: float(line.rpartition(" ")[2]) for line in lines}

    def close(self) -> list[str]:
        killed = self.supervisor.stop()
        self.proxy.cut()
        return killed
