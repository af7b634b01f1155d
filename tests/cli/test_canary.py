"""A canary whose order nobody answers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agents.canary import process
from agents.canary.process import Canary
from streams.codec import Codec, Registry
from streams.core.plan_change.messages import Request
from streams.kafka.scan import Scanner, Span
from streams.settings import Settings
from streams.topics import REQUESTS
from tests.cli.curfew import Curfew


@pytest.mark.kafka
def test_an_order_without_an_answer_is_sent_again_after_a_while_and_people_hear_why(
    curfew: Curfew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at each look: it would fill the topic while the worker is away."""
    assert curfew("topics", "apply").code == 0
    assert curfew("schemas", "apply").code == 0
    monkeypatch.setenv("CURFEW_DATA_DIR", str(tmp_path))
    settings = Settings()
    with Scanner(settings.kafka()) as scanner:
        before = scanner.spans(REQUESTS)
    canary = Canary(settings)

    for _ in range(3):
        canary.look()
    once = requests(settings, before)
    with capture_logs() as logs:
        monkeypatch.setattr(process, "ASK_AGAIN_S", 0.0)
        canary.look()
    twice = requests(settings, before)

    assert set(once.values()) == {1}
    assert twice.total() == once.total() + 1
    assert "plan-changes" in next(line["remedy"] for line in logs if line["event"] == "canary.not_answered")


def requests(settings: Settings, before: dict[int, Span]) -> Counter[str]:
    """How often each order of a canary was sent since."""
    codec = Codec(Registry(settings.schema_registry_url))
    with Scanner(settings.kafka()) as scanner:
        spans = {number: Span(before[number].end, span.end) for number, span in scanner.spans(REQUESTS).items()}
        found = [codec.decode(message.value(), Request) for message in scanner.read(REQUESTS, spans)]
    return Counter(one.request_id for one in found if one.channel == "canary")
