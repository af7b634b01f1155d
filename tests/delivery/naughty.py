"""Calculations of every temper, as a deployment would declare them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from streams.core.calculations import Calculation, Emit, Emitted
from streams.core.events import Audience, Event, Value

SEEN = "calculation.seen"


def counts(event: Event, parameters: Mapping[str, Value]) -> Iterator[Emit]:
    yield Emit(
        type=SEEN, facts={"sequence": event.sequence, "share": Decimal("0.50"), "name": parameters["service.name"]}
    )


def loops(event: Event, parameters: Mapping[str, Value]) -> list[Emit]:
    while True:
        time.sleep(0.01)


def allocates(event: Event, parameters: Mapping[str, Value]) -> list[Emit]:
    held = []
    while True:
        held.append(bytearray(1 << 20))


def raises(event: Event, parameters: Mapping[str, Value]) -> list[Emit]:
    raise ValueError("not today")


def floats(event: Event, parameters: Mapping[str, Value]) -> list[Emit]:
    wrong: Any = 0.5
    return [Emit(type=SEEN, facts={"share": wrong})]


def other_type(event: Event, parameters: Mapping[str, Value]) -> list[Emit]:
    return [Emit(type="calculation.never_declared")]


def nothing_sensible(event: Event, parameters: Mapping[str, Value]) -> Any:
    return {"type": SEEN}


def dies(event: Event, parameters: Mapping[str, Value]) -> list[Emit]:
    os._exit(3)


def complains_at_length(event: Event, parameters: Mapping[str, Value]) -> list[Emit]:
    raise ValueError("\udcff" + "x" * 2_000_000)


def not_utf8(event: Event, parameters: Mapping[str, Value]) -> list[Emit]:
    return [Emit(type=SEEN, facts={"said": "\udcff"})]


def astronomical(event: Event, parameters: Mapping[str, Value]) -> list[Emit]:
    return [Emit(type=SEEN, facts={"stars": 10**24})]


def no_number(event: Event, parameters: Mapping[str, Value]) -> list[Emit]:
    return [Emit(type=SEEN, facts={"amount": Decimal("NaN")})]


def a_novel(event: Event, parameters: Mapping[str, Value]) -> list[Emit]:
    return [Emit(type=SEEN, facts={"text": "x" * 2_000_000})]


def prints(event: Event, parameters: Mapping[str, Value]) -> list[Emit]:
    print("what a function prints is no answer", flush=True)
    return []


def _of(function: Any, name: str) -> Calculation:
    return Calculation(
        name=name,
        kind="service",
        function=function,
        emits={SEEN: Emitted(about="somebody has looked", audience=Audience.CUSTOMER)},
        budget_s=1.5 if function is loops else 60.0,  # the others end by themselves, on a busy machine some time later
        memory_mib=64,
    )


ALL = [
    _of(function, name)
    for name, function in {
        "counts": counts, "loops": loops, "allocates": allocates, "raises": raises, "floats": floats,
        "other-type": other_type, "nothing-sensible": nothing_sensible, "dies": dies, "prints": prints,
        "complains-at-length": complains_at_length, "not-utf8": not_utf8, "astronomical": astronomical,
        "no-number": no_number, "a-novel": a_novel,
    }.items()
]  # fmt: skip
