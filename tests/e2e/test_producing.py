"""docs/producing.md is true: its program runs as it is written; and what the publisher refuses, and tells."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.record_json import parse_line
from streams.codec import Codec, LocalIds, LocalSchemas
from streams.codec.cloudevents import cloud_event
from streams.core.errors import Misconfigured
from streams.core.events import Event
from streams.core.ids import event_id
from streams.core.objects import AccountChange, RatePlan
from streams.kafka.manifest import Manifest
from streams.kafka.record_keys import key_of
from streams.publisher import NotDelivered, Publisher
from streams.settings import Settings
from tests.core.billing import ACCOUNT, BILL_RUN, INVOICE, PACKAGE, SERVICE, created
from tests.e2e.application import Application
from tests.support.kafka_io import wait_until

PAGE = Path(__file__).parents[2] / "docs" / "producing.md"


@pytest.mark.kafka
@pytest.mark.slow
def test_the_program_of_the_page_publishes_what_becomes_an_event(application: Application, tmp_path: Path) -> None:
    """Twice, as after a crash: keys and headers are right, and the repetition changes nothing.

    The account is known before, since topics have no order among them: the event could be made without its name.
    """
    with Publisher(application.settings) as publisher:
        publisher.publish(created(replace(ACCOUNT, id="acct-7001", name="Padaria Aurora")))
    application.settle()
    [program] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    script = tmp_path / "program.py"
    script.write_text(program)
    for _ in range(2):
        ran = subprocess.run(
            [sys.executable, str(script)], env={**os.environ, **application.env}, cwd=tmp_path, capture_output=True,
            text=True, timeout=120, check=False,
        )  # fmt: skip
        assert (ran.returncode, ran.stdout) == (0, "3 changes are durable\n"), ran.stderr
    wait_until(lambda: application.events("acct-7001"), "the suspension is an event", 120.0)
    application.settle()

    events: list[Event] = application.events("acct-7001")
    assert [event.facts for event in events] == [{"from": "Active", "to": "Suspended"}]
    assert events[0].parameters["account.name"] == "Padaria Aurora"
    sent = [one for one in application.records("billing.service") if one.key() == b"acct-7001"]
    attributes = [cloud_event(one.headers() or ()) for one in sent]  # type: ignore[arg-type]
    assert [one and (one.type, one.subject) for one in attributes][:2] == [
        ("service.created", "service/svc-7001"), ("service.updated", "service/svc-7001"),
    ]  # fmt: skip
    assert attributes[0] is not None
    assert attributes[0].id == event_id("service.created", "service", "svc-7001", 1)


@pytest.mark.kafka
@pytest.mark.slow
def test_what_kafka_does_not_take_is_told_with_its_coordinates(application: Application) -> None:
    """The registry answers, the broker does not: the error has topic, key and the record, to be published again."""
    nobody = application.settings.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    change = created(ACCOUNT)

    told = pytest.raises(NotDelivered, match=r"1 records were not delivered.*billing\.account key A1")
    with told as failed, Publisher(nobody, delivery_timeout_s=1.0) as publisher:
        publisher.publish(change)

    [one] = failed.value.undelivered
    assert (one.topic, one.key, one.record) == ("billing.account", "A1", change)


def test_what_cannot_be_published_is_refused_before_anything_leaves() -> None:
    """Curfew's own records, things that are no records, and objects without their key; no broker is asked."""
    publisher = Publisher(Settings(bootstrap_servers="127.0.0.1:1", schema_registry_url="http://127.0.0.1:1"))
    homeless: Any = replace(created(SERVICE), current=replace(SERVICE, account_id=""))

    for wrong, words in (
        ("text", "a str cannot be published; these can: AccountChange"),
        (Event(event_id="e", type="t", occurred_at=created(ACCOUNT).occurred_at, subject_kind="k", subject_id="s",
               sequence=1, facts={}, parameters={}), "a Event cannot be published"),
        (homeless, "keyed by account_id, and this ServiceChange has '' there"),
    ):  # fmt: skip
        with pytest.raises(Misconfigured, match=words):
            publisher.publish(wrong)


@pytest.mark.parametrize(
    ("topic", "record", "key"),
    [
        ("billing.account", created(ACCOUNT), "A1"),
        ("billing.service", created(SERVICE), "A1"),
        ("billing.package", created(PACKAGE), "A1"),
        ("billing.invoice", created(INVOICE), "A1"),
        ("billing.bill-run", created(BILL_RUN), "R1"),
        ("catalog.rate-plan", RatePlan(id="basic", product_id="fibre", name="Basic"), "basic"),
    ],
)
def test_keys_are_those_of_the_manifest(topic: str, record: object, key: str) -> None:
    """Of objects of an account the account's, of a bill run its own."""
    assert key_of(Manifest.load().topics[topic], record) == key


def test_produce_adds_the_key_and_refuses_another_one() -> None:
    """What a worker would put aside an hour later is said at once."""
    schemas = LocalSchemas()
    codec, topic = Codec(LocalIds(schemas), schemas), Manifest.load().topics["billing.account"]
    line = (Path(__file__).parents[2] / "docs/examples/accounts.jsonl").read_text().splitlines()[0]
    record = json.loads(line)
    without = {name: value for name, value in record.items() if name != "key"}
    expected = record["value"]["current"]["id"].encode()

    assert parse_line(json.dumps(without), topic, codec).key == expected
    assert codec.decode(parse_line(line, topic, codec).value, AccountChange).subject.id.encode() == expected
    with pytest.raises(ValueError, match="billing.account is keyed by account_id"):
        parse_line(json.dumps(record | {"key": "somebody"}), topic, codec)
