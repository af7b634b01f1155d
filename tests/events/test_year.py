"""A year through the pure core and its agents, with both changes of the clocks."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime

from tests.events.clock_changes import ROUTE, SETUP, TYPES, ZONES, ends, key_of, weeks
from tests.events.engine import Chance, Engine, Input
from tests.events.works import Shelf

FIRST, LAST = date(2018, 3, 1), date(2019, 4, 12)


def test_a_year_with_both_changes_of_the_clocks_raises_everything_once_at_its_very_instant() -> None:
    """Five zones, one whose midnight is missing, one in which it comes twice, one that moves by half an hour: overdue
    invoices, rules, commitments and thresholds by local months, dormant SIMs. The clock goes where the workers ask."""
    steps, expected = weeks(FIRST, LAST)
    encode = Engine.codec.encode
    coming = sorted(
        (Input(at=one.at, topic=one.topic, key=one.key, value=encode(one.topic, one.value)) for one in steps),
        key=lambda one: one.at,
    )
    catalogue = Shelf()
    for rule in SETUP:
        catalogue.put("event_rule", rule.name, rule)
    engine = Engine((ROUTE,), catalogue, Chance(1))
    ticks: set[datetime] = set()
    now = coming[0].at
    while now < ends(LAST):
        size = next((n for n, step in enumerate(coming) if step.at > now), len(coming))
        engine.send(coming[:size])
        del coming[:size]
        engine.drain()
        engine.tick(now)
        ticks.add(now)
        now = min([ends(LAST), *engine.due, *(step.at for step in coming[:1])])

    found = Counter(key_of(event) for event in engine.events)
    assert found == expected
    assert {key[3] for key in expected} <= ticks
    assert {key[0] for key in expected} == set(TYPES)
    assert len({key[1].partition("-K")[0] for key in expected if key[0] == "contract.under_commit"}) == len(ZONES)
    assert engine.dead == []
