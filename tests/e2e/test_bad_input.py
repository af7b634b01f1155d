"""Bad input: a clear message, dead-lettered or waited for as fits, and the flow goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pytest
from confluent_kafka import Message
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but the stubs do not say so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from fastavro import parse_schema, schemaless_writer

from streams.codec.subjects import subject_of
from tests.e2e.application import (
    Application,
    as_bytes,
    created,
    headers,
    service_created,
    suspended,
)
from tests.support.kafka_io import TIMEOUT_SECONDS, wait_until, whole_lines
from tests.support.proxy import Proxy

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ACCOUNTS = "billing.account"
UNKNOWN_ID = 999_999
#: Over what Kafka takes by default (1 MiB); the topic's limit is raised where it should get in.
BIG = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """A record that cannot be handled: what it is, and what is to be read of it."""

    value: Callable[[Application, str], bytes | None]
    reason: str
    says: str


def change_datum(application: Application, account_id: str) -> dict[str, Any]:
    """An account's creation in Avro's own types."""
    decoded = application.codec.decode_any(application.codec.encode(ACCOUNTS, created(account_id)))
    assert isinstance(decoded.datum, dict)
    return decoded.datum


def impossible(application: Application, account_id: str) -> bytes:
    datum = change_datum(application, account_id) | {"op": "deleted"}
    return application.codec.encode_datum(ACCOUNTS, "curfew.billing.AccountChange", datum)


BAD = {
    "text": Bad(value=lambda app, id: b"id;status;zone", reason="not_avro", says="begins with 69643b7374"),
    "nothing": Bad(value=lambda app, id: b"", reason="not_avro", says="begins with nothing"),
    "unknown-schema": Bad(
        value=lambda app, id: b"\x00" + UNKNOWN_ID.to_bytes(4, "big") + b"body",
        reason="unknown_schema_id",
        says=f"has no schema with id {UNKNOWN_ID}",
    ),
    "other-type": Bad(
        value=lambda app, id: app.codec.encode("billing.service", service_created(id, f"S-{id}")),
        reason="wrong_type",
        says="is curfew.billing.ServiceChange, not curfew.billing.AccountChange",
    ),
    "cut-off": Bad(
        value=lambda app, id: app.codec.encode(ACCOUNTS, created(id))[:-9],
        reason="undecodable",
        says="the bytes are no curfew.billing.AccountChange",
    ),
    "wrong-key": Bad(
        value=lambda app, id: app.codec.encode(ACCOUNTS, created("somebody-else")),
        reason="wrong_key",
        says="for this record it must be 'somebody-else'",
    ),
    "impossible": Bad(value=impossible, reason="invalid", says="deleted with `previous` only"),
    "tombstone": Bad(value=lambda app, id: None, reason="no_value", says="a tombstone, where a value is needed"),
}


def letters_of(application: Application, account_id: str) -> list[Message]:
    return [one for one in application.dead_letters("events") if one.key() == account_id.encode()]


def assert_told(letter: Message, bad: Bad) -> None:
    """The dead letter names the reason, the remedy or the cause, and the very record."""
    found = headers(letter)
    message = found["__connect.errors.exception.message"]
    partition, offset = found["__connect.errors.partition"], found["__connect.errors.offset"]
    assert found["curfew-reason"] == bad.reason
    assert bad.says in message
    assert message.endswith(f"(record {ACCOUNTS}[{partition}]@{offset})")


def assert_flows(application: Application, account_id: str) -> None:
    """What came after on the same partition has become an event."""
    assert [event.type for event in application.events(account_id)] == ["account.status_changed"]


@pytest.mark.parametrize("name", BAD)
def test_a_record_that_cannot_be_handled_is_put_aside_alone(application: Application, name: str) -> None:
    """One dead letter, unchanged, with reason and coordinates; good records around it on its partition are handled."""
    bad, account_id = BAD[name], f"bad-{name}"
    value = bad.value(application, account_id)
    application.send(
        ACCOUNTS, (account_id, created(account_id)), (account_id, value), (account_id, suspended(account_id))
    )
    application.settle()

    [letter] = letters_of(application, account_id)
    assert letter.value() == value
    assert_told(letter, bad)
    assert_flows(application, account_id)


@pytest.mark.parametrize("compression", ["lz4", "zstd", "gzip", "snappy"])
def test_compressed_batches_of_a_foreign_producer_are_read(application: Application, compression: str) -> None:
    """Every codec of Kafka, in batches of many records: all are handled, none is put aside."""
    accounts = [f"{compression}-{number}" for number in range(50)]
    application.send(
        ACCOUNTS,
        *((one, created(one)) for one in accounts),
        *((one, suspended(one)) for one in accounts),
        **{"compression.type": compression, "linger.ms": 50, "partitioner": "murmur2"},
    )
    application.settle()

    events = application.records("queue.customer-events")
    assert {one.key() for one in events} >= {one.encode() for one in accounts}
    assert [one for one in application.dead_letters("events") if as_bytes(one.key()).decode() in accounts] == []


def set_topic_limit(application: Application, limit: int | None) -> None:
    """Raise the limit of a record in billing.account, or (None) take that back."""
    operation = AlterConfigOpType.DELETE if limit is None else AlterConfigOpType.SET
    entry = ConfigEntry("max.message.bytes", None if limit is None else str(limit), incremental_operation=operation)
    resource = ConfigResource(ResourceType.TOPIC, ACCOUNTS, incremental_configs=[entry])
    admin = AdminClient(application.kafka())
    [done] = admin.incremental_alter_configs([resource]).values()
    done.result(TIMEOUT_SECONDS)


def test_a_record_of_two_megabytes_is_put_aside(application: Application) -> None:
    """A topic whose limit was raised lets it in; its row and its events could not be written, so it must not begin."""
    name = "x" * BIG
    set_topic_limit(application, 2 * BIG)
    try:
        application.send(
            ACCOUNTS,
            ("big", created("big", name=name)),
            ("big", created("big")),
            ("big", suspended("big")),
            **{"message.max.bytes": 2 * BIG},
        )
        application.settle()
    finally:
        set_topic_limit(application, None)

    [letter] = letters_of(application, "big")
    found = headers(letter)
    assert found["curfew-reason"] == "too_large"
    assert f"{int(found['curfew-truncated'])} bytes" in found["__connect.errors.exception.message"]
    assert int(found["curfew-truncated"]) > BIG
    assert_flows(application, "big")


def test_registry_down_when_a_new_schema_comes_is_waited_for(application: Application, registry_proxy: Proxy) -> None:
    """A record with an id that no worker has seen waits, with the address in the log; nothing is put aside."""
    newest = application.codec.schemas.newest("curfew.billing.AccountChange").raw
    note = {"name": "note", "type": ["null", "string"], "default": None}
    extended = {**newest, "fields": [*newest["fields"], note]}
    schema_id = application.registry.register(subject_of(ACCOUNTS), extended)
    out = BytesIO(b"\x00" + schema_id.to_bytes(4, "big"))
    out.seek(0, 2)
    schemaless_writer(out, parse_schema(extended), change_datum(application, "new-schema") | {"note": "by phone"})
    heard = application.listen("events")
    registry_proxy.cut()
    try:
        application.send(ACCOUNTS, ("new-schema", out.getvalue()), ("new-schema", suspended("new-schema")))
        wait_until(lambda: "lane.waits" in heard(), "the worker says that it waits")
        said = heard()
        waiting = application.events("new-schema")
    finally:
        registry_proxy.restore()
    application.settle()

    assert waiting == []
    assert f"the schema registry {registry_proxy.url} cannot be reached" in said
    assert "is schema_registry_url right?" in said
    assert letters_of(application, "new-schema") == []
    assert_flows(application, "new-schema")


def test_a_worker_waits_for_a_registry_that_is_down_at_its_start(application: Application) -> None:
    """It says so, with the address, and starts as soon as the registry is back."""
    proxy = Proxy(application.settings.schema_registry_url)
    proxy.cut()
    log = application.directory / "late.log"
    worker = application.popen(log, "worker", "execution", "--instance", "late", CURFEW_SCHEMA_REGISTRY_URL=proxy.url)
    try:
        wait_until(lambda: "worker.waits_for_registry" in whole_lines(log), "the worker says that it waits")
        assert f"{proxy.url} cannot be reached" in whole_lines(log)
        assert "worker.started" not in whole_lines(log)
        proxy.restore()
        wait_until(lambda: "worker.started" in whole_lines(log), "the worker starts")
    finally:
        worker.terminate()
        worker.wait(TIMEOUT_SECONDS)
        proxy.cut()
    application.settle()

    assert worker.returncode == 0


def test_two_workers_of_one_name_and_instance_are_told_apart(application: Application) -> None:
    """The second one does not start, and says what to do; the first goes on."""
    log = application.directory / "twin.log"
    worker = application.popen(log, "worker", "events", "--instance", "1")
    try:
        worker.wait(TIMEOUT_SECONDS)
    finally:
        worker.kill()
    application.send(ACCOUNTS, ("twin", created("twin")), ("twin", suspended("twin")))
    application.settle()

    assert worker.returncode not in (0, -9)
    assert "is in use by another worker: give each worker of an app its own --instance" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert_flows(application, "twin")


def test_two_workers_of_one_instance_on_two_machines_are_told_apart(
    application: Application, tmp_path_factory: Any
) -> None:
    """Static membership lets the second one take over; the first stops, says why, and is no zombie."""
    logs = [application.directory / f"machine-{number}.log" for number in (1, 2)]
    homes = [tmp_path_factory.mktemp(f"machine-{number}") for number in (1, 2)]
    command = ("worker", "dispatch", "--instance", "moved")
    first = application.popen(logs[0], *command, CURFEW_DATA_DIR=str(homes[0]))
    second = None
    try:
        wait_until(lambda: "worker.assigned" in logs[0].read_text(), "the first worker has joined")
        second = application.popen(logs[1], *command, CURFEW_DATA_DIR=str(homes[1]))
        first.wait(TIMEOUT_SECONDS)
        assert second.poll() is None
    finally:
        first.kill()
        if second is not None:
            second.terminate()
            second.wait(TIMEOUT_SECONDS)
    application.settle()

    said = logs[0].read_text()
    assert first.returncode == 70
    assert "another worker has joined as dispatch-moved" in said
    assert "--instance" in said
