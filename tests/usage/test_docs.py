"""What the documentation of usage shows is what Curfew takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.configuration.event_rules import read_rules
from agents.record_json import Outgoing, parse_line
from streams.codec import Codec, LocalIds, LocalSchemas
from streams.core.usage.dormancy import Rules
from streams.core.usage.objects import BucketChange, ContractChange, SimChange, Usage
from streams.kafka.manifest import Manifest
from tests.usage.works import Works

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
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


def test_the_example_rules_count_for_their_products() -> None:
    """Seven days for meters, thirty for the others."""
    rules = Rules(read_rules(EXAMPLES / "event-rules.toml"))

    assert (rules.days("iot-meter"), rules.days("fibre"), rules.days(None)) == (7, 30, 30)
