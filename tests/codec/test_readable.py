"""Avro data as JSON for people."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from streams.codec.readable import from_json, to_json
from streams.codec.schemas import LocalSchemas, parse

EVENT = LocalSchemas().newest("curfew.events.Event").parsed
VALUES = EVENT["fields"][next(i for i, f in enumerate(EVENT["fields"]) if f["name"] == "previous")]["type"]
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 6}


def test_values_with_several_types_say_which_they_are() -> None:
    """A date and the text "2026-03-01" are different parameters and must stay so."""
    values = {
        "null": None,
        "map": "a key that is also the name of a type",
        "yes": True,
        "one": 1,
        "text": "2026-03-01",
        "day": date(2026, 3, 1),
        "money": Decimal("12.500000"),
        "at": {"at": datetime(2026, 3, 1, tzinfo=UTC)},
    }

    readable = to_json(VALUES, values)

    assert readable["day"] == {"date": "2026-03-01"}
    assert readable["money"] == {"decimal": "12.500000"}
    assert readable["at"] == {"curfew.events.Instant": {"at": "2026-03-01T00:00:00.000Z"}}
    assert from_json(VALUES, readable) == values


def test_a_map_whose_one_key_is_called_like_a_type_is_still_a_map() -> None:
    """{"map": …} as data must not be taken for the name of the branch."""
    assert from_json(VALUES, {"map": "x"}) == {"map": "x"}


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        ("long", True, "value must be a long, not True"),
        ("long", "1", "value must be a long, not '1'"),
        ("string", 1, "value must be a string, not 1"),
        (DECIMAL, 12.5, "value must be a decimal as text"),
        ({"type": "long", "logicalType": "timestamp-millis"}, "2026-03-01T00:00:00", "an instant with its zone"),
        ({"type": "int", "logicalType": "date"}, "1.3.2026", 'a date such as "2026-03-01"'),
        ({"type": "array", "items": "int"}, [1, "x"], r"value\[1\] must be an int"),
        (["null", "string", "long", DECIMAL], {"money": 1}, '"decimal"'),
    ],
)
def test_a_wrong_value_is_refused_with_what_it_should_be(schema: Any, value: Any, message: str) -> None:
    """Somebody wrote this line by hand."""
    with pytest.raises(ValueError, match=message):
        from_json(schema, value)


def test_a_missing_and_an_unknown_field_are_named() -> None:
    """With the names that would be right."""
    record = parse({"type": "record", "name": "R", "fields": [{"name": "a", "type": "string"}]})

    with pytest.raises(ValueError, match=r"value\.a is missing"):
        from_json(record, {})
    with pytest.raises(ValueError, match=r"value\.b is no field of R; it has a"):
        from_json(record, {"a": "x", "b": 1})


def test_a_field_with_a_default_may_be_left_out() -> None:
    """As Avro itself does."""
    field = {"name": "a", "type": ["null", "string"], "default": None}

    assert from_json(parse({"type": "record", "name": "R", "fields": [field]}), {}) == {"a": None}
