"""The compiled writer against fastavro: the same bytes, and the same refusals."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_writer
from hypothesis import example, given
from hypothesis import strategies as st

from streams.codec import LocalSchemas
from streams.codec.convert import from_datum, to_datum
from streams.codec.golden import Example, examples
from streams.codec.wire_types import wire_class
from streams.codec.writer import compile_writer
from streams.core.delivery.messages import Attempt, Header
from streams.core.events import Audience, Event
from streams.core.plan_change.messages import Request, RequestKind

SCHEMAS = LocalSchemas()
PARSED = SCHEMAS.newest("curfew.events.Event").parsed
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WRITE = compile_writer(PARSED)
assert _WRITE is not None
WRITE = _WRITE
DATUM = to_datum(PARSED)


def fastavro(event: Event) -> bytes:
    out = BytesIO()
    schemaless_writer(out, PARSED, DATUM(event))
    return out.getvalue()


def an_event(**changed: Any) -> Event:
    fields: dict[str, Any] = {
        "event_id": "e1", "type": "invoice.posted", "occurred_at": EPOCH, "subject_kind": "invoice",
        "subject_id": "I1", "sequence": 3, "facts": {}, "parameters": {},
    }  # fmt: skip
    return Event(**{**fields, **changed})


class Plan(str, Enum):  # noqa: UP042  # formats itself as "Plan.GOLD", unlike a StrEnum
    GOLD = "gold"


class Shouting(str):
    __slots__ = ()

    def __format__(self, _: str) -> str:
        return str.upper(self) + "!"


REQUEST = Request(
    request_id="r", kind=RequestKind.ORDER, account_id="A1", service_id="S1", element_key=None, effective_date=None,
    silent=False, apply_fees=True, options=(), channel="crm", expected_revision=1, requested_at=EPOCH,
)  # fmt: skip
_WRITE_REQUEST = compile_writer(SCHEMAS.newest("curfew.planchange.Request").parsed)
assert _WRITE_REQUEST is not None
WRITE_REQUEST = _WRITE_REQUEST

texts = st.text(max_size=90) | st.just(Plan.GOLD)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    texts,
    st.sampled_from(list(Audience)),
    st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**30), max_value=10**30),
    st.dates(),
    st.integers(-60_000_000_000_000_000, 250_000_000_000_000_000).map(lambda us: EPOCH + timedelta(microseconds=us)),
)
maps = st.dictionaries(texts, values, max_size=70)


@given(maps, st.none() | maps, st.lists(texts, max_size=70), st.integers(-(2**63), 2**63 - 1), st.none() | texts)
@example({"a": True, "b": 1, "c": Decimal("1.5"), "d": date(1969, 12, 31)}, None, [], -1, None)
def test_the_bytes_are_those_of_fastavro(
    facts: dict[str, Any], state: dict[str, Any] | None, missing: list[str], number: int, text: str | None
) -> None:
    """For every value that an event can have, of every size."""
    event = an_event(
        facts=facts, parameters=facts, previous=state, current=state, missing=tuple(missing), sequence=number,
        account_id=text, traceparent=text,
    )  # fmt: skip

    assert WRITE(event) == fastavro(event)


def test_a_text_of_another_class_is_written_as_its_characters_are() -> None:
    """However it formats itself: its length is that of the characters."""

    def written(text: type[str]) -> bytes:
        value = text("silver")
        return WRITE(an_event(type=value, facts={value: value}, missing=(value,), account_id=value))

    assert written(Shouting) == written(str)


@pytest.mark.parametrize(
    "changed",
    [
        {"event_id": None},
        {"sequence": 2**63},
        {"facts": {"a": 2**63}},
        {"facts": {"a": 1.5}},
        {"facts": {"a": Decimal("1.1234567")}},
        {"facts": {"a": ["b"]}},
        {"occurred_at": "today"},
        {"facts": None},
        {"missing": None},
        {"facts": {1: "a"}},
        {"type": b"invoice.posted"},
    ],
)
def test_what_fastavro_refuses_is_refused(changed: dict[str, Any]) -> None:
    """An event that does not fit must stop the worker, and not become bytes that nobody can read."""
    with pytest.raises((AttributeError, KeyError, TypeError, ValueError, OverflowError)):
        fastavro(an_event(**changed))
    with pytest.raises((AttributeError, KeyError, TypeError, ValueError, OverflowError)):
        WRITE(an_event(**changed))


@pytest.mark.parametrize(
    "changed",
    [
        {"expected_revision": True},
        {"expected_revision": 3.0},
        {"expected_revision": Decimal(3)},
        {"options": None},
        {"options": "abc"},
        {"element_key": 1},
        {"silent": "false"},
    ],
)
def test_a_value_of_another_type_is_refused(changed: dict[str, Any]) -> None:
    """It must not be written as something that looks right."""
    request = replace(REQUEST, **changed)
    with pytest.raises((AttributeError, KeyError, TypeError, ValueError, OverflowError)):
        WRITE_REQUEST(request)


@given(st.binary(max_size=300), st.none() | st.binary(), st.lists(st.tuples(texts, st.binary(max_size=9)), max_size=70))
def test_bytes_and_lists_of_records_too(value: bytes, key: bytes | None, headers: list[tuple[str, bytes]]) -> None:
    """Attempts carry a queue's record, and they are written once for every webhook."""
    attempt = Attempt(
        attempt_id="a", unit_id="u", number=1, subscription_id="s", subscription="crm", recipient="", queue="q",
        queue_partition=0, queue_offset=2**40, event_id="e", follows=None, key=key, value=value,
        headers=tuple(Header(name=name, value=text) for name, text in headers), sent_at=EPOCH,
    )  # fmt: skip
    parsed = SCHEMAS.newest("curfew.delivery.Attempt").parsed
    out, write = BytesIO(), compile_writer(parsed)
    schemaless_writer(out, parsed, to_datum(parsed)(attempt))

    assert write is not None
    assert write(attempt) == out.getvalue()


@pytest.mark.parametrize("example", list(examples(SCHEMAS)), ids=lambda one: f"{one.schema.name}-{one.json.stem}")
def test_every_example_is_written_as_it_is_pinned(example: Example) -> None:
    """Records in records, amounts, dates, lists and maps of all kinds; no schema of ours is left to fastavro."""
    parsed = example.schema.parsed
    cls: type[Any] = wire_class(example.schema.name)
    write, build = compile_writer(parsed), from_datum(cls, parsed)

    assert write is not None
    assert write(build(example.datum())) == example.avro.read_bytes()


@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**31), max_value=10**31)
    | st.decimals(allow_nan=False, allow_infinity=False, min_value=-1000, max_value=1000)
)
@example(Decimal("-0"))
@example(Decimal("-0.000128"))
@example(Decimal("1E+31"))
def test_an_amount_is_written_or_refused_as_fastavro_does(amount: Decimal) -> None:
    kind = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 6}
    parsed = parse_schema({"type": "record", "name": "Amount", "fields": [{"name": "amount", "type": kind}]})
    out = BytesIO()
    write = compile_writer(parsed)
    assert write is not None
    try:
        schemaless_writer(out, parsed, {"amount": amount})
    except ValueError:
        with pytest.raises(ValueError, match="does not fit into 38 digits"):
            write(SimpleNamespace(amount=amount))
        return

    assert write(SimpleNamespace(amount=amount)) == out.getvalue()


def test_a_schema_with_other_types_is_left_to_fastavro() -> None:
    """Nothing of ours has a floating point number in it, but somebody's may."""
    fields = [{"name": "share", "type": "double"}]
    assert compile_writer(parse_schema({"type": "record", "name": "Share", "fields": fields})) is None
