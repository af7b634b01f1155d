"""What the documentation of usage shows is what Curfew takes."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agents.configuration.event_rules import read_rules
from agents.configuration.routes import read_routes
from agents.record_json import Outgoing, parse_line
from streams.codec import Codec, LocalIds, LocalSchemas
from streams.core.catalogue import matching
from streams.core.usage.dormancy import Rules
from streams.core.usage.objects import BucketChange, ContractChange, SimChange, Usage
from streams.kafka.manifest import Manifest
from tests.usage.works import Works

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs/examples"
PAGE = (ROOT / "docs/usage.md").read_text(encoding="utf-8")
FILES = {
    "billing.sim": ("sims.jsonl", SimChange),
    "billing.bucket": ("buckets.jsonl", BucketChange),
    "billing.contract": ("contracts.jsonl", ContractChange),
    "billing.usage": ("usage.jsonl", Usage),
}


def read(topic: str, codec: Codec) -> list[Outgoing]:
    file, _ = FILES[topic]
    lines = (EXAMPLES / file).read_text(encoding="utf-8").splitlines()
    return [parse_line(line, Manifest.load().topic(topic), codec) for line in lines]


@pytest.mark.parametrize("topic", FILES)
def test_the_examples_are_records_of_their_topics(topic: str) -> None:
    """As `curfew produce` reads them; what may be left out is left out."""
    schemas = LocalSchemas()
    codec = Codec(LocalIds(schemas), schemas)

    for record in read(topic, codec):
        assert isinstance(codec.decode(record.value, FILES[topic][1]), FILES[topic][1])


def test_the_examples_say_what_they_show() -> None:
    """The first record uses up a tier; keys are right; nothing is put aside."""
    works = Works()
    for topic in ("billing.sim", "billing.bucket", "billing.usage"):
        records = [((record.key or b"").decode(), record.value) for record in read(topic, works.codec)]
        works.replay(works.lane.chunk(topic, records))

    assert [(one.type, one.facts["tier"], one.facts["usage_id"]) for one in works.told] == [
        ("usage.threshold_exceeded", 1, "cdr-1")
    ]
    assert works.dead == []


def test_the_usage_that_the_page_produces_is_counted_today() -> None:
    """Its line of `sed` is run as it is written: a tier is used up, and nothing is too late."""
    [line] = re.findall(r"^(sed .*) \| curfew produce billing.usage$", PAGE, re.MULTILINE)
    made = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    works = Works()
    works.tick(datetime.now(UTC))
    for topic in ("billing.sim", "billing.bucket"):
        records = [((one.key or b"").decode(), one.value) for one in read(topic, works.codec)]
        works.replay(works.lane.chunk(topic, records))
    usage = [parse_line(one, Manifest.load().topic("billing.usage"), works.codec) for one in made.splitlines()]

    works.replay(works.lane.chunk("billing.usage", [((one.key or b"").decode(), one.value) for one in usage]))

    assert [(one.type, one.facts["tier"]) for one in works.told] == [("usage.threshold_exceeded", 1)]
    assert works.dead == []


def test_the_example_routes_take_every_event_of_usage() -> None:
    """Without a filter, so that all of them reach the queue that the page names."""
    [route] = read_routes(EXAMPLES / "usage-routes.toml", Manifest.load().queues)
    types = {one for pattern in route.event_types for one in matching(pattern)}

    assert types == {*re.findall(r"^\| `(\w+\.\w+)` \| (?!service)", PAGE.split("\n## ")[0], re.MULTILINE)}
    assert f"curfew consume queue.{route.queues[0]} " in PAGE


def test_the_example_rules_count_for_their_products() -> None:
    """Seven days for meters, thirty for the others."""
    rules = Rules(read_rules(EXAMPLES / "event-rules.toml"))

    assert (rules.days("iot-meter"), rules.days("fibre"), rules.days(None)) == (7, 30, 30)
