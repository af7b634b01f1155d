"""Why a schema is refused: the field and the reason."""

from __future__ import annotations

from typing import Any

import pytest

from streams.codec.compat import field_differences

INNER = {"type": "record", "name": "Inner", "fields": [{"name": "a", "type": "string"}]}
INSTANT = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}


def _record(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "R", "namespace": "n", "fields": list(fields)}


def _field(schema: Any, **more: Any) -> dict[str, Any]:
    return {"name": "f", "type": schema, **more}


OPTIONAL = _field(["null", "string"], default=None)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([], [_field("string")], "R.f: added without a default"),
        ([_field("string")], [], "R.f: removed, but it had no default"),
        ([_field("long")], [_field("string")], "R.f: long became string"),
        ([_field("int")], [_field("long")], "R.f: int became long"),
        ([_field("string")], [OPTIONAL], "R.f: string became a union of null, string"),
        ([_field(["null", "string"])], [_field(["null", "string", "long"])], "R.f: it may now be long"),
        ([_field(["null", "string"])], [_field(["null"])], "R.f: it may no longer be string"),
        ([_field(INSTANT)], [_field(MICROS)], "R.f: timestamp-millis (long) became timestamp-micros (long)"),
        (
            [_field({"type": "array", "items": INNER})],
            [_field({"type": "array", "items": {**INNER, "fields": []}})],
            "R.f[].a: removed, but it had no default",
        ),
        (
            [_field(["null", INNER]), {"name": "g", "type": "Inner"}],
            [_field(["null", {**INNER, "fields": [{"name": "a", "type": "long"}]}]), {"name": "g", "type": "Inner"}],
            "R.f.a: string became long",
        ),
    ],
)
def test_what_breaks_a_reader_is_named(old: list[Any], new: list[Any], expected: str) -> None:
    """The person who changed a schema wants the field, not the verdict."""
    assert any(text.startswith(expected) for text in field_differences(_record(*old), _record(*new)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([], [OPTIONAL]),
        ([OPTIONAL], []),
        ([_field("string")], [_field("string", doc="now documented", pii=True)]),
        ([_field({"type": "string"})], [_field("string")]),
        (
            [_field(["null", INNER]), {"name": "g", "type": "Inner"}],
            [_field(["null", INNER]), {"name": "g", "type": INNER}],
        ),
    ],
)
def test_what_everyone_can_read_is_no_difference(old: list[Any], new: list[Any]) -> None:
    """Optional fields come and go, docs change, and the same record may be written in full or by name."""
    assert field_differences(_record(*old), _record(*new)) == []
