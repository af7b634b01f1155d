"""Who is woken by watchdog and canary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.delivery.receiving import RunningReceiver, receiver


@pytest.fixture
def people(tmp_path: Path) -> Iterator[RunningReceiver]:
    """They read what comes to their webhook."""
    directory = tmp_path / "people"
    directory.mkdir()
    with receiver(directory) as running:
        yield running


@pytest.fixture
def webhook(people: RunningReceiver) -> dict[str, str]:
    """The settings with which they are told."""
    return {"CURFEW_WATCHDOG_WEBHOOK_URL": people.url, "CURFEW_WATCHDOG_WEBHOOK_SECRET": "env:CURFEW_SECRET_TEST"}
