"""An execution worker that is stopped while hundreds of slow hooks wait, on a real Kafka."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from agents.supervisor import GRACE_S
from streams.topics import COMMANDS, OUTCOMES
from tests.e2e.application import START_TIMEOUT_SECONDS, Application
from tests.e2e.slow_hooks import CALLS_FILE
from tests.plan_changes.makers import a_command
from tests.support.brokers import private
from tests.support.kafka_io import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
#: A second each, 32 at a time: all of them take longer than a worker is given to stop.
CHANGES = 960


def test_a_worker_that_is_stopped_ends_in_time_and_the_next_one_calls_no_hook_again(tmp_path: Path) -> None:
    """What has begun is finished and recorded, what has not is left to it."""
    calls = tmp_path / "calls"
    calls.touch()
    env = {"CURFEW_HOOKS": '["tests.e2e.slow_hooks:HOOKS"]', "PYTHONPATH": str(ROOT), CALLS_FILE: str(calls)}
    stack = private(tmp_path / "stack")
    with stack as address:
        made = Application(address, tmp_path / "application")
        made.directory.mkdir()
        try:
            made.configure()
            commands = [a_command(service_id=f"S{number}", command_id=str(number)) for number in range(CHANGES)]
            made.send(COMMANDS, *((one.service_id, one) for one in commands))

            def recorded() -> set[bytes | None]:
                return {record.key() for record in made.records(OUTCOMES)}

            first = made.popen(tmp_path / "first.log", "worker", "execution", **env)
            try:
                wait_until(lambda: len(recorded()) > 0, "something is recorded", START_TIMEOUT_SECONDS)
                began = time.monotonic()
                first.send_signal(signal.SIGTERM)
                code, took = first.wait(60.0), time.monotonic() - began
            finally:
                first.kill()
            called, written = calls.read_text().split(), recorded()
            second = made.popen(tmp_path / "second.log", "worker", "execution", **env)
            try:
                wait_until(lambda: len(recorded()) == CHANGES, "all is recorded", START_TIMEOUT_SECONDS)
            finally:
                second.kill()
        finally:
            made.close()

    assert code == 0
    assert took < GRACE_S / 2
    assert len(called) == len(written) < CHANGES
    assert set(Counter(calls.read_text().split()).values()) == {1}
