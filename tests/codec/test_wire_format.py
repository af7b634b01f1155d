"""The codec without a registry: types, reasons for dead letters, versions."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.codec import Codec, LocalIds, LocalSchemas
from streams.core.clock import NextDue, Tick
from streams.core.errors import Fatal, Misconfigured, Poison
from streams.core.events import Event, Value

SCHEMAS = LocalSchemas()
CODEC = Codec(LocalIds(SCHEMAS), SCHEMAS)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 2, 28, 23, 0, 0, 250_000, tzinfo=UTC)
TICK = Tick(epoch="e1", seq=7, now=NOW)


def _event(**values: Value) -> Event:
    return Event(
        event_id="id-1",
        type="service.state_transitioned",
        occurred_at=NOW,
        subject_kind="Service",
        subject_id="svc-1",
        account_id="acc-1",
        sequence=3,
        previous=values,
        current=None,
        facts={},
        parameters=values,
    )


def test_the_wire_format_is_confluents() -> None:
    """A zero byte, the id big-endian, the Avro body: any client with the registry can read it."""
    value = CODEC.encode("clock.ticks", TICK)

    assert value[0] == 0
    assert int.from_bytes(value[1:5], "big") == LocalIds(SCHEMAS).id_for("", SCHEMAS.newest("curfew.clock.Tick").raw)
    assert value[5:] == b"\x04e1\x0e" + _zigzag(1772319600250)


def _zigzag(number: int) -> bytes:
    number, out = number << 1, b""
    while number > 127:
        out, number = out + bytes((number & 127 | 128,)), number >> 7
    return out + bytes((number,))


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(),
    st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**30), max_value=10**30),
    st.dates(),
    st.integers(-60_000_000_000_000, 250_000_000_000_000).map(lambda ms: EPOCH + timedelta(milliseconds=ms)),
)


@given(st.dictionaries(st.text(), values, max_size=5))
@example({"true": True, "one": 1, "text": "1", "money": Decimal(1), "day": date(2026, 3, 1), "at": NOW, "none": None})
def test_every_value_of_an_event_keeps_its_type(parameters: dict[str, Value]) -> None:
    """Python's True is an int and its datetime a date; on the wire they stay what they are."""
    event = _event(**parameters)

    decoded = CODEC.decode(CODEC.encode("queue.x", event), Event)

    assert decoded == event
    assert {k: type(v) for k, v in decoded.parameters.items()} == {k: type(v) for k, v in parameters.items()}


@given(st.binary(max_size=60))
def test_garbage_is_poison_and_nothing_else(garbage: bytes) -> None:
    """Whatever foreign bytes are on a topic, the worker goes on."""
    header = CODEC.encode("queue.x", _event())[:5]
    for value in (garbage, header + garbage):
        try:
            decoded = CODEC.decode(value, Event)
        except Poison:
            continue
        assert CODEC.decode(CODEC.encode("queue.x", decoded), Event) == decoded


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no_value"),
        (b"", "not_avro"),
        (b"\x00\x00", "not_avro"),
        (b'{"json": 1}', "not_avro"),
        (b"\x00\x00\x00\x00\x01rest", "unknown_schema_id"),
        (CODEC.encode("clock.ticks", TICK)[:-1], "undecodable"),
        (CODEC.encode("clock.ticks", TICK) + b"\x00", "undecodable"),
        (CODEC.encode("clock.due", NextDue(group="g", partition=0, due=None)), "wrong_type"),
    ],
)
def test_each_kind_of_poison_has_its_reason(value: bytes | None, reason: str) -> None:
    """Dead letters are counted by reason, so the reasons are an interface."""
    with pytest.raises(Poison) as caught:
        CODEC.decode(value, Tick)

    assert caught.value.reason == reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """A wire class of these tests; refuses a negative amount."""

    name: str
    amount: Decimal
    extra: str | None = None

    def __post_init__(self) -> None:
        if self.amount < 0:
            raise ValueError("amount must not be negative")


THING: dict[str, Any] = {
    "type": "record",
    "name": "Thing",
    "namespace": "test",
    "fields": [
        {"name": "name", "type": "string"},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 6}},
    ],
}
THING_2 = copy.deepcopy(THING)
THING_2["fields"].append({"name": "extra", "type": ["null", "string"], "default": None})


def _schemas(root: Path, *versions: dict[str, Any]) -> LocalSchemas:
    folder = root / "test.Thing"
    folder.mkdir(parents=True, exist_ok=True)
    for number, raw in enumerate(versions, 1):
        (folder / f"v{number}.avsc").write_text(json.dumps(raw))
    return LocalSchemas(root)


def test_a_new_reader_reads_what_an_old_writer_wrote(tmp_path: Path) -> None:
    """By the writer's id, resolved to our newest schema, defaults filled in."""
    old = _schemas(tmp_path / "old", THING)
    wire = Codec(LocalIds(old), old).encode_datum("t", "test.Thing", {"name": "n", "amount": Decimal("1.5")})
    new = _schemas(tmp_path / "new", THING, THING_2)

    decoded = Codec(LocalIds(new), new).decode(wire, Thing)

    assert decoded == Thing(name="n", amount=Decimal("1.5"), extra=None)


def test_an_old_reader_reads_what_a_new_writer_wrote(tmp_path: Path) -> None:
    """Workers are deployed in any order."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class OldThing:
        name: str
        amount: Decimal

    OldThing.__name__ = "Thing"
    new = _schemas(tmp_path / "new", THING, THING_2)
    wire = Codec(LocalIds(new), new).encode("t", Thing(name="n", amount=Decimal(1), extra="more"))
    old = _schemas(tmp_path / "old", THING)
    ids = LocalIds(old)
    ids.id_for("t", THING_2)  # the registry knows the new version, this worker's files do not

    assert Codec(ids, old).decode(wire, OldThing) == OldThing(name="n", amount=Decimal(1))


def test_a_value_that_the_class_refuses_is_poison(tmp_path: Path) -> None:
    """Valid Avro is not yet a valid object."""
    schemas = _schemas(tmp_path, THING_2)
    codec = Codec(LocalIds(schemas), schemas)
    wire = codec.encode_datum("t", "test.Thing", {"name": "n", "amount": Decimal(-1), "extra": None})

    with pytest.raises(Poison, match="amount must not be negative") as caught:
        codec.decode(wire, Thing)
    assert caught.value.reason == "invalid"


def test_an_object_that_does_not_fit_its_schema_stops_the_worker(tmp_path: Path) -> None:
    """Seven decimal places would be rounded away: money is never changed in silence."""
    schemas = _schemas(tmp_path, THING_2)

    with pytest.raises(Fatal, match=r"test\.Thing for t does not fit"):
        Codec(LocalIds(schemas), schemas).encode("t", Thing(name="n", amount=Decimal("0.0000001")))


def test_a_field_that_only_the_class_has_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Avro drops fields that it does not know without a word."""
    schemas = _schemas(tmp_path, THING)

    with pytest.raises(Misconfigured, match=r"test\.Thing\.extra is only in the class"):
        Codec(LocalIds(schemas), schemas).encoder("t", Thing)


def test_a_gap_in_the_versions_is_refused(tmp_path: Path) -> None:
    """Without v2 nobody can say what v3 was compared with."""
    _schemas(tmp_path, THING, THING_2)
    (tmp_path / "test.Thing" / "v2.avsc").rename(tmp_path / "test.Thing" / "v3.avsc")

    with pytest.raises(Misconfigured, match="without gaps"):
        LocalSchemas(tmp_path)


def test_a_folder_with_another_name_than_its_record_is_refused(tmp_path: Path) -> None:
    """A class finds its schema by the folder's name."""
    _schemas(tmp_path, THING)
    (tmp_path / "test.Thing").rename(tmp_path / "test.Other")

    with pytest.raises(Misconfigured, match=r"describes 'test\.Thing'"):
        LocalSchemas(tmp_path)
