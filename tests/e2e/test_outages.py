"""Disk, database and broker go away in flight: the application waits, says for what, and loses nothing."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from streams.core.plan_change.messages import Request
from tests.delivery.receiving import RunningReceiver
from tests.e2e.application import Application, basic_plan, created, now, reactivated, service_created, suspended
from tests.plan_changes.makers import a_request
from tests.support.brokers import Cluster
from tests.support.kafka_io import TIMEOUT_SECONDS, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ACCOUNTS = "billing.account"
BROKER_DOWN_SECONDS = 10.0
#: The persister tries again after 5 s at most, and SQLite itself waits 5 s for a lock.
WAITS_WITHIN_SECONDS = 180.0


def load(application: Application, account_id: str, services: int) -> list[str]:
    """An account in UTC with services on the plan basic; returns the ids of the services."""
    ids = [f"S-{account_id}-{number}" for number in range(services)]
    application.send(ACCOUNTS, (account_id, created(account_id, zone="UTC")))
    application.send("billing.service", *((account_id, service_created(account_id, id)) for id in ids))
    application.load_plans([basic_plan(account_id, id) for id in ids])
    application.settle()
    return ids


def order(application: Application, account_id: str, services: list[str]) -> None:
    """Order a change for the day after tomorrow that starts at once: its element leads by a week."""
    day = (now() + timedelta(days=2)).date()

    def request(service_id: str) -> Request:
        return a_request(
            f"R-{service_id}", account_id=account_id, service_id=service_id, element_key="at-once", effective_date=day,
            requested_at=now(),
        )  # fmt: skip

    application.send("plan-change.requests", *((account_id, request(service_id)) for service_id in services))


def persisted(application: Application, account_id: str) -> set[str]:
    """Services of the account whose change is in the billing store, in time."""
    found = [one for one in application.store.changes() if one.account_id == account_id]
    return {one.service_id for one in found if one.persisted and not one.missed}


@contextmanager
def full(directory: Path) -> Iterator[None]:
    """Fill the file system of the billing store to its last byte."""
    with closing(sqlite3.connect(directory / "billing.sqlite")) as database:
        # what the write-ahead log holds already could be written again without more space; while somebody reads or
        # writes it is not cut off
        cut = "PRAGMA wal_checkpoint(TRUNCATE)"
        wait_until(lambda: database.execute(cut).fetchone()[0] == 0, "the write-ahead log is empty")
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            os.fsync(file.fileno())
    try:
        yield
    finally:
        filler.unlink()


def test_a_full_disk_is_waited_for(application: Application) -> None:
    """The persister names the directory and tries again; events flow meanwhile; then all changes are persisted."""
    directory = application.billing_directory
    if not os.path.ismount(directory):
        pytest.skip("filling a disk needs a small file system of its own, which only root may mount")
    services = load(application, "disk", 40)
    heard = application.listen("persistence")
    with full(directory):
        order(application, "disk", services)
        wait_until(lambda: "lane.waits" in heard(), "the persister says that it waits", WAITS_WITHIN_SECONDS)
        application.send(ACCOUNTS, ("disk-other", created("disk-other")), ("disk-other", suspended("disk-other")))
        wait_until(lambda: application.events("disk-other"), "events flow meanwhile")
        meanwhile = persisted(application, "disk")
    application.settle(WAITS_WITHIN_SECONDS)

    assert (
        f"no space is left on the disk of {directory}: free some there; nothing is lost, it is tried again" in heard()
    )
    assert len(meanwhile) < len(services)
    assert persisted(application, "disk") == set(services)


def test_a_locked_database_is_waited_for(application: Application) -> None:
    """The persister says what keeps it and goes on when the lock is gone."""
    services = load(application, "locked", 4)
    heard = application.listen("persistence")
    other = sqlite3.connect(
        application.billing_directory / "billing.sqlite", isolation_level=None, timeout=TIMEOUT_SECONDS
    )
    with closing(other):
        other.execute("BEGIN IMMEDIATE")
        order(application, "locked", services)
        wait_until(lambda: "lane.waits" in heard(), "the persister says that it waits", WAITS_WITHIN_SECONDS)
        other.execute("ROLLBACK")
    application.settle(WAITS_WITHIN_SECONDS)

    assert "another process keeps the database locked: end it, or let it finish its transaction" in heard()
    assert persisted(application, "locked") == set(services)


def test_a_broker_that_is_away_for_ten_seconds_costs_nothing(
    application: Application, stack: Cluster, crm: RunningReceiver
) -> None:
    """Killed in the flow and started again: every event is there, in order, and is delivered, and all workers run."""
    accounts = [f"broker-{number}" for number in range(40)]
    application.send(ACCOUNTS, *((one, created(one)) for one in accounts))
    application.settle()
    before, letters = application.pids(), len(application.dead_letters("events"))
    application.send(ACCOUNTS, *((one, suspended(one)) for one in accounts))
    stack.kill_broker()
    away = time.monotonic()
    wait_until(lambda: time.monotonic() > away + BROKER_DOWN_SECONDS, "the outage is over", 2 * BROKER_DOWN_SECONDS)
    stack.restart_broker()
    application.send(ACCOUNTS, *((one, reactivated(one)) for one in accounts))
    application.settle_with_restarts(before, 240.0)
    wanted = {(one, sequence) for one in accounts for sequence in (2, 3)}

    def accepted() -> set[tuple[str, int]]:
        return {(one["key"], one["sequence"]) for one in crm.received() if one["status"] == 200}

    wait_until(lambda: wanted <= accepted(), "all events are delivered")
    events: dict[str, list[int]] = {one: [] for one in accounts}
    seen: set[str] = set()
    for event in (event for one in accounts for event in application.events(one)):
        if event.event_id not in seen:  # at least once: a repetition has the same id
            events[event.key].append(event.sequence)
        seen.add(event.event_id)
    assert all(sequences == [2, 3] for sequences in events.values())
    assert len(application.dead_letters("events")) == letters
