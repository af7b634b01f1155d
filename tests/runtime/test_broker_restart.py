"""The broker goes away and comes back while records flow."""

from __future__ import annotations

import threading

import pytest

from tests.faults.flow import Flow
from tests.support.brokers import Cluster
from tests.support.kafka_io import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

#: A worker whose session is over joins anew, and Kafka may take it for a second one of its name, which ends it. Whether
#: a broker is back in time must not depend on how busy the machine is.
SESSION_MS = 120_000


def test_a_broker_restart_in_the_flow_loses_nothing_and_ends_no_worker(private_flow: tuple[Flow, Cluster]) -> None:
    """Killed like by a power cut; workers wait, and go on where they were, if it is back within their session."""
    flow, stack = private_flow
    app = flow.start(shape="async", chunk_seconds=0.02, session_timeout_ms=SESSION_MS)
    app.wait_for("worker.assigned")
    feeding = threading.Thread(target=flow.feed, args=(10_000,), kwargs={"per_second": 1_500.0})
    feeding.start()
    wait_until(lambda: sum(flow.committed().values()) > 1_000, "records flow")

    stack.kill_broker()
    stack.restart_broker()
    feeding.join()
    flow.wait_finished()

    assert app.code is None
    assert app.stop() == 0
    flow.verify([(n, flow.store_directory() / str(n)) for n in range(4)])


def test_a_worker_that_starts_before_its_broker_waits_for_it(private_flow: tuple[Flow, Cluster]) -> None:
    """It says what it waits for, and needs no restart."""
    flow, stack = private_flow
    flow.feed(100)
    stack.kill_broker()

    app = flow.start()
    waiting = app.wait_for("worker.waits_for_kafka")
    stack.restart_broker()
    flow.wait_finished()

    assert "CURFEW_BOOTSTRAP_SERVERS" in waiting["remedy"]
    assert app.code is None
    flow.verify()


def test_sigterm_while_the_broker_is_away_ends_the_worker(private_flow: tuple[Flow, Cluster]) -> None:
    """It cannot commit, so the next start repeats; it must not hang."""
    flow, stack = private_flow
    flow.feed(500)
    app = flow.start()
    flow.wait_finished()
    stack.kill_broker()

    code = app.stop()

    assert code == 0
