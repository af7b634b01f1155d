"""What `curfew produce` checks of a line, without a cluster: the same as the worker that will read it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agents.record_json import parse_line
from streams.codec import Codec, LocalSchemas
from streams.codec.golden import examples
from streams.codec.readable import to_json
from streams.codec.registry import LocalIds
from streams.codec.wire_types import wire_class
from streams.core.objects import AccountChange
from streams.kafka.manifest import Manifest

SCHEMAS = LocalSchemas()
CODEC = Codec(LocalIds(SCHEMAS), SCHEMAS)
MANIFEST = Manifest.load()
ACCOUNT = {"id": "acct-9002", "status": "Active", "zone": "Europe/Lisbon", "currency": "EUR", "locale": "pt-PT",
           "name": "Padaria", "email": "a@b.example", "billing_day": 15}  # fmt: skip
CREATED: dict[str, Any] = {"op": "created", "previous": None, "current": ACCOUNT, "revision": 1,
                           "occurred_at": "2026-03-01T00:00:00Z", "source": "billing"}  # fmt: skip


def _refused(topic: str, value: Any, **more: Any) -> str:
    with pytest.raises(ValueError, match=".") as refused:
        parse_line(json.dumps({"value": value, **more}), MANIFEST.topic(topic), CODEC)
    return str(refused.value)


def test_a_change_that_the_worker_takes_is_taken() -> None:
    """With the key that its topic wants."""
    outgoing = parse_line(json.dumps({"value": CREATED}), MANIFEST.topic("billing.account"), CODEC)

    assert outgoing.key == b"acct-9002"
    assert CODEC.decode(outgoing.value, AccountChange).current is not None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"op": "make"}, "op is 'make'; use 'created' or 'updated' or 'deleted'"),
        ({"op": "update"}, "op is 'update' (did you mean 'updated'?)"),
        ({"op": "updated"}, "updated: created goes with `current` only, updated with both"),
        ({"revision": 0}, "revision 0: revisions of an object start at 1"),
        ({"current": {**ACCOUNT, "billing_day": 32}}, "billing_day of account acct-9002 is 32; it must be 1 to 31"),
    ],
)
def test_a_change_that_would_be_a_dead_letter_is_refused_with_the_reason(wrong: dict[str, Any], words: str) -> None:
    """As the publisher for Python does; nobody should look for it among the dead letters an hour later."""
    said = _refused("billing.account", {**CREATED, **wrong})

    assert said.startswith("value is no valid curfew.billing.AccountChange: ")
    assert words in said


def test_every_schema_has_the_class_that_reads_it() -> None:
    """Found by the last part of its name."""
    assert all(SCHEMAS.name_of(wire_class(name)) == name for name in SCHEMAS.names())


def test_a_key_of_another_account_is_told_as_text() -> None:
    """Not as Python's bytes."""
    said = _refused("billing.account", CREATED, key="acct-1")

    assert said.startswith("key is 'acct-1', but billing.account is keyed by account_id: for this value 'acct-9002'")


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        ("1.1234567", "value.current.amount is 1.1234567: it has 7 decimals, and there is room for 6; round it"),
        ("1E+40", "there is room for 32 digits before the point"),
        ("NaN", "must be a decimal as text"),
    ],
)
def test_a_decimal_without_room_names_its_field_and_the_limit(amount: str, words: str) -> None:
    """Fastavro speaks of the scale provided in the schema."""
    [example, *_] = [one for one in examples(SCHEMAS) if one.schema.name.endswith("InvoiceChange")]
    value = to_json(example.schema.parsed, example.datum())
    value["current"] = value["current"] or value["previous"]
    value["current"]["amount"] = amount

    assert words in _refused("billing.invoice", value)
