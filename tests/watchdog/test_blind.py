"""A watchdog that cannot read anything still knows what it knew, and says that it is blind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agents.embedded.ports import free_port
from agents.watchdog.book import Book
from agents.watchdog.process import Watchdog
from streams.core.ids import instant_text
from streams.core.watch import Standing, Tracked
from streams.core.watch_rules import Level
from streams.settings import Settings
from tests.delivery.receiving import SECRET, SECRET_REF, receiver
from tests.support.kafka_io import TIMEOUT_SECONDS

HOUR = timedelta(hours=1)


def test_without_kafka_it_tells_of_the_deadlines_that_it_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker is down, and so is every pipeline: the notice goes out by itself, to a real receiver."""
    monkeypatch.setenv("CURFEW_SECRET_TEST", SECRET)
    now = datetime.now(UTC)
    tonight, later = now + HOUR, now + 48 * HOUR
    book = Book.open(tmp_path / "watchdog")
    with book.page():
        book.note("began", instant_text(now))
        book.note("read_at", (now - timedelta(minutes=5)).isoformat())
        book.add([change("S1", tonight), change("S2", tonight), change("S3", later)], now)
    book.close()
    with receiver(tmp_path) as people:
        settings = Settings(
            bootstrap_servers=f"127.0.0.1:{free_port()}",
            data_dir=tmp_path,
            watchdog_webhook_url=people.url,
            watchdog_webhook_secret=SECRET_REF,
        )
        seen = asyncio.run(Watchdog(settings).once())

    assert [(one.alarm.level, one.verdict.reason) for one in seen] == [(Level.AT_RISK, "blind"), (Level.OK, "")]
    assert [(one["type"], one["verified"]) for one in people.received()] == [("watchdog.at_risk", True)]


def test_one_look_that_could_read_nothing_is_a_failure_whatever_was_known(
    tmp_path: Path,
) -> None:
    """For cron: all that it knows may be well, and old."""
    env = {"CURFEW_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}", "CURFEW_DATA_DIR": str(tmp_path)}
    now = datetime.now(UTC)
    book = Book.open(tmp_path / "watchdog")
    with book.page():
        book.note("began", instant_text(now))
        book.note("read_at", now.isoformat())
        book.add([change("S1", now + 48 * HOUR)], now)
    book.close()

    finished = subprocess.run(
        [sys.executable, "-m", "agents.cli.main", "watchdog", "--once"],
        env={**os.environ, **env}, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
    )  # fmt: skip

    assert finished.returncode == 1
    assert "now nothing can be read" in finished.stderr


def change(service_id: str, deadline: datetime) -> Tracked:
    return Tracked(
        service_id=service_id,
        account_id="A1",
        change_id=f"C-{service_id}",
        revision=1,
        sequence=0,
        standing=Standing.OPEN,
        start_at=deadline - HOUR / 2,
        deadline_at=deadline,
        due_at=deadline - HOUR / 4,
    )
