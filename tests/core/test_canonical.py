"""The canonical text: the same bytes for ever, since every seal and every remembered request hangs on them."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.canonical import canonical_text, fingerprint
from streams.core.ids import instant_text
from streams.core.midnight import zone
from streams.core.money import money_text
from tests.billing.makers import outcome


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True, kw_only=True)
class Empty:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class One:
    only: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Several:
    zebra: Any
    apple: Any
    mango: Any


def plainly(value: object) -> object:
    """``value`` as JSON types, one spelling per meaning."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Decimal):
        return money_text(value)
    if isinstance(value, datetime):
        return instant_text(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, (tuple, list)):
        return [plainly(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plainly(item) for key, item in value.items()}
    assert is_dataclass(value)
    return {field.name: plainly(getattr(value, field.name)) for field in fields(value)}


def as_json(value: object, without: frozenset[str] = frozenset()) -> str:
    """The definition of the canonical text, by the standard library's encoder."""
    plain = plainly(value)
    if isinstance(plain, dict):
        plain = {key: item for key, item in plain.items() if key not in without}
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-3)), zone("Europe/Berlin"), zone("America/Havana")])
TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ["\x00\x1f\x7f\u2028", '"\\/', "\U0001f600", ""]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | TEXTS
    | st.just(Colour.RED)
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=ZONES, allow_imaginary=True)  # noqa: DTZ001
    | st.dates()
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(TEXTS | st.integers(), inner)
        | st.builds(One, only=inner)
        | st.builds(Several, zebra=inner, apple=inner, mango=inner)
        | st.just(Empty())
    ),
    max_leaves=20,
)


@given(VALUES)
def test_the_text_is_what_the_standard_encoder_writes(value: object) -> None:
    """A byte more or less, and no outcome that was ever sealed could be verified."""
    assert canonical_text(value) == as_json(value)


@given(VALUES, st.sets(TEXTS | st.sampled_from(["zebra", "apple", "only"])).map(frozenset))
def test_fields_are_left_out_of_the_outermost_record_only(value: object, without: frozenset[str]) -> None:
    """A repeated request differs in the caller's clock, and only there."""
    assert canonical_text(value, without=without) == as_json(value, without)


def test_the_hash_of_an_outcome_never_changes() -> None:
    """Sealed outcomes in Kafka and in the billing store carry this hash."""
    assert fingerprint(outcome(1)) == "c8a6d48ba2567fa1118513628390bc3370654226ebf94b2d8662ce3cca9bf849"


def test_both_instants_of_a_repeated_hour_have_their_own_text() -> None:
    """They compare as equal in their zone: a cache by value would take one for the other."""
    first = datetime(2018, 11, 4, 0, 30, tzinfo=zone("America/Havana"))

    texts = [canonical_text(first), canonical_text(first.replace(fold=1))]

    assert texts == ['"2018-11-04T04:30:00.000Z"', '"2018-11-04T05:30:00.000Z"']


def test_the_wire_changes_nothing() -> None:
    """Avro pads decimals and cuts to milliseconds; the seal has to hold afterwards."""
    came = outcome(1)
    assert str(came.fees[0].amount) == "12.500000"
    fee = replace(came.fees[0], amount=Decimal("12.5"))
    sealed_at = (came.sealed_at + timedelta(microseconds=999)).astimezone(zone("Asia/Tokyo"))

    sent = replace(came, fees=(fee,), sealed_at=sealed_at)

    assert fingerprint(sent) == fingerprint(came)


@pytest.mark.parametrize("value", [1.5, b"bytes", {1, 2}, object(), One(only=0.1), [Decimal(1), 1.0], Empty])
def test_a_value_without_one_spelling_is_refused(value: object) -> None:
    """A float has many spellings: hashing it would sometimes say that nothing is what it was."""
    with pytest.raises(TypeError, match="no canonical text"):
        canonical_text(value)


def test_an_instant_without_a_zone_is_refused() -> None:
    """It names no instant."""
    with pytest.raises(ValueError, match="no time zone"):
        canonical_text(datetime(2018, 11, 4))  # noqa: DTZ001
