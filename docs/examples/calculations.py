"""A calculation: two thirds of a bucket used up long before the end of its period deserve a word with the customer.

    export CURFEW_CALCULATIONS='["docs.examples.calculations:FAIR_USE"]'     # workers and command line, same settings

It is a pure function of one event. It asks nobody and keeps nothing: the same event always gives the same answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal

from streams.core.calculations import Calculation, Emit, Emitted
from streams.core.events import Audience, Event, Value

TYPE = "calculation.fair_use.fast"


def fair_use(event: Event, parameters: Mapping[str, Value]) -> Iterator[Emit]:
    """Usage of a tier in less than a third of the period."""
    begins, ends = event.facts.get("period_starts_on"), event.facts.get("period_ends_on")
    if not isinstance(begins, date) or not isinstance(ends, date):
        return
    whole, gone = (ends - begins).days, (event.occurred_at.date() - begins).days
    if whole and gone * 3 < whole:
        share = (Decimal(gone) / Decimal(whole)).quantize(Decimal("0.01"))
        yield Emit(type=TYPE, facts={"tier": event.facts.get("tier"), "share_of_period": share})


FAIR_USE = Calculation(
    name="fair-use",
    kind="bucket",
    function=fair_use,
    emits={
        TYPE: Emitted(
            about="a tier was used up in less than a third of its period",
            facts={
                "tier": "number of the tier, from 1",
                "share_of_period": "how much of the period had passed, 0 to 1",
            },
            audience=Audience.INTERNAL,
        )
    },
    budget_s=1.0,
    memory_mib=64,
)
