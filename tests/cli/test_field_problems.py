"""A file with a wrong value says which entry, which field and what would be right."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from agents.configuration.subscriptions import read_subscriptions
from streams.core.errors import Misconfigured
from streams.core.subscription_rules import Known
from streams.filters import CelLanguage

NOW = datetime(2026, 3, 1, tzinfo=UTC)
GOOD = '[[subscription]]\nname = "crm"\nqueue = "operations"\n'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (GOOD + 'on_exhausted = "continue"\n', "on_exhausted is 'continue'; use 'park' or"),
        (GOOD + 'on_exhausted = "parc"\n', "on_exhausted is 'parc' (did you mean 'park'?)"),
        ('[[subscription]]\nname = "crm"\n', 'queue is missing: add text such as "…"'),
        (GOOD + '[subscription.webhook]\nurl = "https://a.example"\n', "webhook.secret_ref is missing: add text"),
        (GOOD + 'schedule_s = "5"\n', "schedule_s must be a list such as ["),
        (GOOD + 'schedule_s = ["5"]\n', "schedule_s[0] must be a whole number such as 10, not text"),
        (GOOD + "event_types = 1\n", 'event_types must be a list such as ["…", "…"], not a whole number'),
        (GOOD + "forward = 1\n", "forward must be a table with the fields queue, not a whole number"),
        (GOOD + 'paused = "yes"\n', "paused must be true or false, not text"),
    ],
)
def test_a_wrong_value_names_entry_field_and_what_fits(tmp_path: Path, content: str, words: str) -> None:
    """Not what the parser has found at which path."""
    path = tmp_path / "subscriptions.toml"
    path.write_text(content)
    known = Known(queues={"operations"}, development=True, language=CelLanguage())

    with pytest.raises(Misconfigured) as refused:
        read_subscriptions(path, known, {}, NOW, lambda reference: None)

    assert "subscription crm: " in str(refused.value)
    assert words in str(refused.value)
