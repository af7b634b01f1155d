"""Two events workers on one cluster: they share the partitions, and coming and going changes no event."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.core.events import Event
from streams.core.ids import event_id
from tests.e2e.application import Application, as_bytes, created, reactivated, suspended
from tests.support.kafka_io import wait_until, whole_lines

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.faults]

ACCOUNTS = [f"scale-{number}" for number in range(200)]
HALF = len(ACCOUNTS) // 2
#: A killed worker is missed after 15 s; the machine may be busy.
REBALANCE_S = 120.0


def partitions(heard: Callable[[], str]) -> list[int] | None:
    """The partition numbers that a worker was given last."""
    lines = [json.loads(line) for line in heard().splitlines() if '"worker.assigned"' in line]
    return lines[-1]["partitions"] if lines else None


def test_a_second_worker_that_comes_dies_and_comes_back_changes_no_event(
    application: Application, tmp_path: Path
) -> None:
    """Every change gives its event, with the same id, whoever has the partition; rows are where their partition is."""
    log = tmp_path / "second.log"
    first = application.listen("events")

    def start() -> subprocess.Popen[bytes]:
        log.write_bytes(b"")
        return application.popen(log, "worker", "events", "--instance", "second")

    def shared() -> bool:
        one, other = partitions(first), partitions(lambda: whole_lines(log))
        return one is not None and other is not None and len(one) == len(other) == 2 and not set(one) & set(other)

    application.send("billing.account", *((one, created(one)) for one in ACCOUNTS))
    second = start()
    try:
        wait_until(shared, "both have two partitions", REBALANCE_S)
        application.send("billing.account", *((one, suspended(one)) for one in ACCOUNTS[:HALF]))
        second.send_signal(signal.SIGKILL)
        second.wait()
        application.send("billing.account", *((one, suspended(one)) for one in ACCOUNTS[HALF:]))
        wait_until(lambda: len(partitions(first) or ()) == 4, "the first one has taken over", REBALANCE_S)
        second = start()
        application.send("billing.account", *((one, reactivated(one)) for one in ACCOUNTS))
        wait_until(shared, "both have two partitions again", REBALANCE_S)
        application.settle(REBALANCE_S)
    finally:
        second.terminate()
        second.wait(60)

    wait_until(lambda: len(partitions(first) or ()) == 4, "the first one is alone again", REBALANCE_S)
    application.settle(REBALANCE_S)
    messages = application.records("queue.customer-events")
    events = [application.codec.decode(as_bytes(one.value()), Event) for one in messages]
    found = {event.event_id: event for event in events if event.subject_id in ACCOUNTS}
    assert found.keys() == {
        event_id("account.status_changed", "account", one, revision) for one in ACCOUNTS for revision in (2, 3)
    }
    assert [event.event_id for event in found.values() if event.missing] == []
    keys = {one.key() for one in application.dead_letters("events")}
    assert keys & {one.encode() for one in ACCOUNTS} == set()
