"""The Kafka Connect configurations fit the manifest, the schemas, and what the connectors understand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streams.codec import LocalSchemas
from streams.kafka.manifest import Manifest

CONNECT = Path(__file__).resolve().parents[2] / "docker" / "connect"
SINKS: dict[str, dict[str, str]] = {
    path.stem: json.loads(path.read_text("utf-8"))["config"] for path in sorted(CONNECT.glob("*.json"))
}

#: Of every sink connector: Kafka 4.3, "Kafka Connect configs".
COMMON = {
    "connector.class", "tasks.max", "topics", "key.converter", "value.converter", "errors.tolerance",
    "value.converter.schema.registry.url",
}  # fmt: skip
#: docs/sink-connector-config-options.rst of Aiven-Open/http-connector-for-apache-kafka 0.9.0 and, without its options
#: of one database, of Aiven-Open/jdbc-connector-for-apache-kafka 6.10.0.
OWN = {
    "http-sink": {
        "http.url", "http.authorization.type", "http.headers.authorization", "http.headers.content.type",
        "http.headers.additional", "http.timeout", "batching.enabled", "batch.max.size", "batch.prefix",
        "batch.suffix", "batch.separator", "kafka.retry.backoff.ms", "max.retries", "retry.backoff.ms",
        "decimal.format",
    },
    "jdbc-sink": {
        "connection.url", "connection.user", "connection.password", "db.timezone", "insert.mode", "batch.size",
        "delete.enabled", "table.name.format", "table.name.normalize", "topics.to.tables.mapping", "pk.mode",
        "pk.fields", "fields.whitelist", "auto.create", "auto.evolve", "max.retries", "retry.backoff.ms",
    },
}  # fmt: skip
#: Avro types that become one column.
COLUMNS = {"string", "boolean", "int", "long", "bytes"}

sinks = pytest.mark.parametrize("name", [*OWN])


def fields(name: str) -> dict[str, Any]:
    """Field → Avro type, of the values in the topics of a sink."""
    manifest = Manifest.load()
    [value] = {manifest.topics[topic].value for topic in SINKS[name]["topics"].split(",")}
    assert value is not None
    schema = LocalSchemas().newest(value).parsed
    return {one["name"]: one["type"] for one in schema["fields"]}


def test_there_is_one_file_for_each_sink() -> None:
    assert SINKS.keys() == OWN.keys()


@sinks
def test_topics_are_those_of_the_manifest_with_a_task_for_each_partition(name: str) -> None:
    topics = [Manifest.load().topics[topic] for topic in SINKS[name]["topics"].split(",")]

    assert int(SINKS[name]["tasks.max"]) == sum(topic.partitions for topic in topics)


@sinks
def test_keys_are_text_and_values_avro_as_the_manifest_says(name: str) -> None:
    assert SINKS[name]["key.converter"] == "org.apache.kafka.connect.storage.StringConverter"
    assert SINKS[name]["value.converter"].endswith(".AvroConverter")
    assert fields(name)


@sinks
def test_every_option_is_known_to_the_connector(name: str) -> None:
    """Connect ignores one that is misspelt."""
    assert SINKS[name].keys() <= COMMON | OWN[name]


@sinks
def test_no_secret_is_written_down(name: str) -> None:
    for option, value in SINKS[name].items():
        assert not option.endswith(("password", "authorization")) or value.startswith("${env:"), option


@sinks
def test_a_sink_that_retries_is_not_taken_for_dead(name: str) -> None:
    """The HTTP sink sleeps within one call, and Kafka's default allows five minutes between two polls."""
    config = SINKS[name]

    assert 120_000 < int(config["max.retries"]) * int(config["retry.backoff.ms"]) < 300_000


def test_amounts_are_numbers_in_json() -> None:
    """Connect's default is base64 of an unscaled integer."""
    assert SINKS["http-sink"]["decimal.format"] == "NUMERIC"


def test_the_columns_are_plain_fields_of_the_event_and_its_id_is_the_key() -> None:
    """A map is refused by the JDBC sink, and a key may not be null."""
    known = fields("jdbc-sink")

    assert known[SINKS["jdbc-sink"]["pk.fields"]] == "string"
    for column in SINKS["jdbc-sink"]["fields.whitelist"].split(","):
        of_column = known[column]
        [plain] = [one for one in (of_column if isinstance(of_column, list) else [of_column]) if one != "null"]
        assert (plain["type"] if isinstance(plain, dict) else plain) in COLUMNS, column
