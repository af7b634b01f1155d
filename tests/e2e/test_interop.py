"""Clients that are not ours read what Curfew writes, and write what it reads."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from agents.embedded import DEFAULT_KAFKA_VERSION, run_kafka_tool
from streams.codec.cloudevents import cloud_event
from streams.core.objects import Invoice, InvoiceChange, Op
from tests.e2e.application import Application, as_bytes, created, headers, now, suspended
from tests.support.kafka_io import TIMEOUT_SECONDS

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def posted_invoice(account_id: str) -> InvoiceChange:
    invoice = Invoice(
        id=f"I-{account_id}", account_id=account_id, number="2026-0001", amount=Decimal("1234.50"),
        balance=Decimal("0.1"), currency="BRL", due_date=date(2026, 3, 31), state="Posted",
    )  # fmt: skip
    return InvoiceChange(op=Op.CREATED, current=invoice, revision=1, occurred_at=now(), source="billing-engine")


def test_confluents_own_deserializer_reads_an_event_with_its_types(application: Application) -> None:
    """Decimals, dates, numbers, texts and nulls among the parameters arrive as such; the headers are a CloudEvent."""
    application.send("billing.account", ("interop-avro", created("interop-avro")))
    application.settle()
    application.send("billing.invoice", ("interop-avro", posted_invoice("interop-avro")))
    application.settle()
    topic = "queue.billing-events"
    registry = SchemaRegistryClient({"url": application.settings.schema_registry_url, "timeout": 10})
    deserialize = AvroDeserializer(registry)

    [message] = [one for one in application.records(topic) if one.key() == b"interop-avro"]
    event = deserialize(message.value(), SerializationContext(topic, MessageField.VALUE))
    attributes = cloud_event([(name, text.encode()) for name, text in headers(message).items()])

    assert isinstance(event, dict)
    assert event["type"] == "invoice.posted"
    assert event["parameters"].items() >= {
        "invoice.amount": Decimal("1234.500000"),
        "invoice.due_date": date(2026, 3, 31),
        "invoice.bill_run_id": None,
        "account.email": "contato@aurora.example",
        "account.billing_day": 31,
    }.items()  # fmt: skip
    assert event["missing"] == []
    assert attributes is not None
    assert (attributes.id, attributes.type, attributes.subject, attributes.specversion, attributes.time) == (
        event["event_id"], "invoice.posted", "invoice/I-interop-avro", "1.0", event["occurred_at"],
    )  # fmt: skip
    assert headers(message)["content-type"] == "application/avro"


def test_kafkas_console_consumer_prints_key_and_headers(application: Application) -> None:
    """The record key is the plain account id, and the CloudEvents headers are plain text."""
    application.send(
        "billing.account",
        ("interop-console", created("interop-console")),
        ("interop-console", suspended("interop-console")),
    )
    application.settle()
    waiting = len(application.records("queue.customer-events"))

    read = run_kafka_tool(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        ["--bootstrap-server", application.settings.bootstrap_servers, "--topic", "queue.customer-events",
         "--from-beginning", "--max-messages", str(waiting), "--timeout-ms", "120000",
         "--property", "print.key=true", "--property", "print.headers=true", "--property", "print.value=false"],
        kafka_version=DEFAULT_KAFKA_VERSION, timeout_seconds=TIMEOUT_SECONDS,
    )  # fmt: skip

    assert read.returncode == 0, read.stderr
    [line] = [line for line in read.stdout.splitlines() if line.endswith("\tinterop-console")]
    [event] = application.events("interop-console")
    assert f"ce_id:{event.event_id},ce_type:account.status_changed," in line
    assert "ce_specversion:1.0" in line
    assert "ce_subject:account/interop-console" in line


def test_text_from_kafkas_console_producer_becomes_a_dead_letter(application: Application) -> None:
    """Java's client, compressed: put aside unchanged, the reason under headers that tools know; the flow goes on."""
    sent = run_kafka_tool(
        "org.apache.kafka.tools.ConsoleProducer",
        ["--bootstrap-server", application.settings.bootstrap_servers, "--topic", "billing.account",
         "--compression-codec", "zstd", "--property", "parse.key=true", "--property", "key.separator=|"],
        stdin='interop-java|{"id": "interop-java"}\n',
        kafka_version=DEFAULT_KAFKA_VERSION, timeout_seconds=TIMEOUT_SECONDS,
    )  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    application.send(
        "billing.account", ("interop-java", created("interop-java")), ("interop-java", suspended("interop-java"))
    )
    application.settle()

    [letter] = [one for one in application.dead_letters("events") if one.key() == b"interop-java"]
    found = headers(letter)
    assert as_bytes(letter.value()) == b'{"id": "interop-java"}'
    assert found["curfew-reason"] == "not_avro"
    assert found["__connect.errors.topic"] == "billing.account"
    partition, offset = found["__connect.errors.partition"], found["__connect.errors.offset"]
    assert f"(record billing.account[{partition}]@{offset})" in found["__connect.errors.exception.message"]
    assert [event.type for event in application.events("interop-java")] == ["account.status_changed"]
