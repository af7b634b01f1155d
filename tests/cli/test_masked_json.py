"""What commands and the board show of a record whose personal data nobody has asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO

from fastavro import schemaless_writer

from agents.record_json import masked_json
from streams.codec import Codec, LocalIds, LocalSchemas
from streams.core.objects import Account, AccountChange, Op
from tests.delivery.plant import Plant, event, subscription

SCHEMAS = LocalSchemas()
IDS = LocalIds(SCHEMAS)
CODEC = Codec(IDS, SCHEMAS)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
FOREIGN = {"type": "record", "name": "other.Person", "fields": [{"name": "email", "type": "string"}]}


def test_marked_fields_are_masked_wherever_they_are_and_the_others_are_shown() -> None:
    """Of an event, and of an account inside its change."""
    one = replace(event(1), current={"email": "ana@example.com"}, parameters={"account.email": "ana@example.com"})
    account = Account(
        id="A1", name="Ana", email="ana@example.com", locale="pt-BR", currency="BRL", zone="UTC", status="Active",
        billing_day=1,
    )  # fmt: skip
    change = AccountChange(op=Op.CREATED, current=account, revision=1, occurred_at=NOW, source="crm")

    shown = masked_json(CODEC, CODEC.encode("queue.any", one))
    of_account = masked_json(CODEC, CODEC.encode("billing.account", change))

    assert (shown["value"]["current"], shown["value"]["parameters"], shown["value"]["previous"]) == (
        "(masked)",
        "(masked)",
        None,
    )
    assert (shown["value"]["event_id"], shown["value"]["facts"]["to"]) == (one.event_id, "Suspended")
    assert (of_account["value"]["current"]["name"], of_account["value"]["current"]["status"]) == ("(masked)", "Active")
    assert "ana@" not in json.dumps([shown, of_account])


def test_the_event_inside_an_attempt_is_masked_too() -> None:
    """It is bytes there, which would say everything to whoever decodes them."""
    plant = Plant(subscription())
    [attempt] = plant.attempts(plant.feed(event(1)))

    shown = masked_json(CODEC, CODEC.encode("delivery.attempts", attempt))

    assert (shown["value"]["value"], shown["value"]["unit_id"]) == ("(masked)", attempt.unit_id)


def test_what_nobody_has_described_is_masked_whole() -> None:
    """Text, and Avro of a schema that is none of ours; a tombstone has nothing to hide."""
    out = BytesIO()
    schemaless_writer(out, FOREIGN, {"email": "ana@example.com"})
    header = b"\x00" + IDS.id_for("other", FOREIGN).to_bytes(4, "big")

    foreign = masked_json(CODEC, header + out.getvalue())

    assert foreign == {"value": "(masked)", "schema": "other.Person"}
    assert masked_json(CODEC, b"ana@example.com") == {"value": "(masked)"}
    assert masked_json(CODEC, None) == {"value": None}
