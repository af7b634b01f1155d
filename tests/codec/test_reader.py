"""The compiled reader against fastavro: the same objects, and the same reasons for what is none."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.codec import Codec, LocalIds, LocalSchemas, codec
from streams.codec.golden import examples
from streams.codec.reader import compile_reader
from streams.codec.wire_types import wire_classes
from streams.core.errors import Poison
from streams.core.objects import Invoice, InvoiceChange, Membership, Op, ServicePlan, ServicePlanChange

SCHEMAS = LocalSchemas()
IDS = LocalIds(SCHEMAS)
CLASSES = wire_classes()
COMPILED = Codec(IDS, SCHEMAS)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def slow() -> Codec:
    """A codec that reads everything with fastavro and msgspec."""

    class Slow(Codec):
        def decoder(self, cls: type[Any]) -> Any:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(codec, "compile_reader", lambda cls, parsed: None)
                return super().decoder(cls)

    return Slow(IDS, SCHEMAS)


def outcome(of: Codec, value: bytes, cls: type[Any]) -> Any:
    try:
        return of.decode(value, cls)
    except Poison as poison:
        return poison.reason


CASES = [
    (example, b"\x00" + IDS.id_for("any", example.schema.raw).to_bytes(4, "big") + example.avro.read_bytes())
    for example in examples(SCHEMAS)
]


@pytest.mark.parametrize(("example", "wire"), CASES, ids=[f"{e.schema.name}-{e.json.stem}" for e, _ in CASES])
def test_examples_and_all_that_is_cut_or_changed_of_them(example: Any, wire: bytes, slow: Codec) -> None:
    """Every shorter record, and every byte changed to some others: what one reader says, the other says."""
    cls = CLASSES[example.schema.name.rpartition(".")[2]]

    assert outcome(COMPILED, wire, cls) == outcome(slow, wire, cls)
    for end in range(5, len(wire)):
        assert outcome(COMPILED, wire[:end], cls) == outcome(slow, wire[:end], cls)
    assert outcome(COMPILED, wire + b"\x00", cls) == outcome(slow, wire + b"\x00", cls)
    for place in range(5, len(wire), max(1, len(wire) // 60)):
        for byte in (0, 1, 2, 3, 127, 128, 255):
            changed = wire[:place] + bytes((byte,)) + wire[place + 1 :]
            assert outcome(COMPILED, changed, cls) == outcome(slow, changed, cls)


texts = st.text(max_size=90)
instants = st.integers(-60_000_000_000_000, 250_000_000_000_000).map(lambda ms: EPOCH + timedelta(milliseconds=ms))
money = st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**30), max_value=10**30)


@settings(deadline=None)
@given(texts, st.none() | texts, money, st.dates(), instants, st.none() | instants, st.integers(1, 2**63 - 1))
def test_every_value_of_an_invoice(
    text: str, other: str | None, amount: Decimal, day: date, at: datetime, delivered: datetime | None, revision: int
) -> None:
    """Texts of any length, money of any size, dates and instants of any time."""
    invoice = Invoice(
        id=text, account_id=text, bill_run_id=other, number=text, amount=amount, balance=-amount, currency="EUR",
        due_date=day, state="Posted", terms=other, grace_days=3, delivered_at=delivered,
    )  # fmt: skip
    change = InvoiceChange(op=Op.CREATED, current=invoice, revision=revision, occurred_at=at, source=text)

    decoded = COMPILED.decode(COMPILED.encode("billing.invoice", change), InvoiceChange)

    assert decoded == change
    assert type(decoded.op) is Op


@given(st.lists(st.tuples(texts, instants, st.none() | instants), max_size=200))
def test_lists_of_records(terms: list[tuple[str, datetime, datetime | None]]) -> None:
    """Of any length."""
    memberships = tuple(Membership(rate_plan_id=a, valid_from=b, valid_to=c) for a, b, c in terms)
    plan = ServicePlan(service_id="S", account_id="A", rate_plan_id="r", product_id="p", memberships=memberships)
    change = ServicePlanChange(op=Op.CREATED, current=plan, revision=1, occurred_at=EPOCH, source="s")

    assert COMPILED.decode(COMPILED.encode("billing.service-plan", change), ServicePlanChange) == change


values = st.none() | texts | st.booleans() | st.integers(-(2**63), 2**63 - 1) | money | st.dates() | instants
maps = st.dictionaries(texts, values, max_size=70)


@settings(deadline=None)
@given(maps, st.none() | maps, st.lists(texts, max_size=70))
def test_maps_of_values_of_every_type(facts: Any, current: Any, missing: list[str]) -> None:
    """Of any length, with an instant that is a record in the first map and a name in the others."""
    event = CLASSES["Event"](
        event_id="E", type="t", occurred_at=EPOCH, subject_kind="service", subject_id="S", sequence=1, previous=facts,
        current=current, facts=facts, parameters=facts, missing=tuple(missing),
    )  # fmt: skip

    decoded: Any = COMPILED.decode(COMPILED.encode("queue.any", event), CLASSES["Event"])

    assert decoded == event
    assert [type(value) for value in decoded.facts.values()] == [type(value) for value in facts.values()]


def test_what_is_read_that_way() -> None:
    """Changes of objects are, and events and what goes between the workers of deliveries."""
    names = ("billing.AccountChange", "events.Event", "events.Finding", "delivery.Attempt", "delivery.Result")

    for name in names:
        parsed = SCHEMAS.newest(f"curfew.{name}").parsed
        assert compile_reader(CLASSES[name.partition(".")[2]], parsed) is not None, name
