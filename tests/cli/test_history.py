"""Entries of the audit trail as `history` shows them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from agents.configuration.changes import as_row
from streams.core.audit import AuditEntry

BEFORE = {
    "name": "crm",
    "paused": False,
    "webhook": {"url": "https://a.example", "secret_ref": "env:A"},
    "forward": None,
}
AFTER = {"name": "crm", "paused": True, "webhook": {"url": "https://b.example", "secret_ref": "env:A"}}


def test_a_change_shows_only_the_fields_that_differ_also_inside_of_tables() -> None:
    """A whole webhook beside another one has to be compared by eye."""
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    row = as_row(AuditEntry(at=at, by="ana", what="subscription", name="crm", before=json.dumps(BEFORE),
                            after=json.dumps(AFTER)))  # fmt: skip

    assert row["changes"] == ["paused: false → true", 'webhook.url: "https://a.example" → "https://b.example"']
    assert row["at"] == "2026-03-01T12:00:00.000Z"
