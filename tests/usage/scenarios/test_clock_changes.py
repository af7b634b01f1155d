"""Both workers on a real Kafka, from two weeks before each change of the clocks to two weeks after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from streams.kafka.scan import Scanner
from tests.events.clock_changes import ROUTE, SETUP, TYPES, ZONES, Key, ends, key_of, weeks
from tests.support.brokers import private
from tests.usage.scenarios.stage import UsageStage

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(1800)]

#: Lord Howe, Berlin and the Americas go apart in these weeks of autumn, and come together in those of spring.
WEEKS = ((date(2018, 9, 23), date(2018, 11, 19)), (date(2019, 2, 24), date(2019, 4, 22)))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[UsageStage]:
    with private(tmp_path / "stack") as address:
        made = UsageStage(address, tmp_path)
        try:
            yield made
        finally:
            killed = made.close()
    assert killed == []


def over(key: Key) -> bool:
    """Accounts live on, and what they raise after their weeks is not asked for."""
    return any(
        key[3] >= ends(last) and key[1].startswith(f"{zone.replace('/', '-')}-{number}")
        for number, (_, last) in enumerate(WEEKS)
        for zone in ZONES
    )


def test_two_weeks_around_each_change_of_the_clocks_raise_everything_once_at_its_very_instant(
    stage: UsageStage,
) -> None:
    """Overdue invoices, rules, commitments and thresholds by local months, dormant SIMs, in five zones. The instants
    are those at which the clock stood, because the workers have told it."""
    stage.start((ROUTE,), SETUP)
    expected: Counter[tuple[object, ...]] = Counter()
    for number, (first, last) in enumerate(WEEKS):
        steps, wanted = weeks(first, last, f"-{number}")
        stage.play_in_parts(steps, ends(last))
        expected += wanted

    found = Counter(key for event in stage.events("operations") if not over(key := key_of(event)))
    assert {key[0] for key in expected} == set(TYPES)
    assert found == expected
    assert {key[3] for key in expected} <= set(stage.ticks)
    with Scanner(stage.kafka()) as scanner:
        for topic in ("dead-letters.events", "dead-letters.usage"):
            assert list(scanner.read(topic, scanner.spans(topic))) == []
