"""Twenty kills and two broker restarts while two hundred thousand changes flow through two workers."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.flow import Flow
from tests.support.apps import AppProcess
from tests.support.brokers import Cluster
from tests.support.kafka_io import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(1200)]

RECORDS = 200_000
KEYS = 2_000
KILLS = 20
#: After these kills the broker dies too.
BROKER_RESTARTS_AFTER = (7, 14)
#: Random, but the same every time: a storm that fails has to fail again.
SEED = 20181104
#: The flow lasts longer than the kills: each gap plus the start of a worker, and the restarts of the broker.
GAP_SECONDS = (0.2, 2.5)
PER_SECOND = 2_000.0
FINISH_SECONDS = 180.0


class Storm:
    """Kills workers of a flow at random moments and starts them again."""

    def __init__(self, flow: Flow, restart_broker: Callable[[], None]) -> None:
        self._flow = flow
        self._restart_broker = restart_broker
        self._random = random.Random(SEED)
        self.kills = 0
        self.workers = {instance: self._start(instance) for instance in ("1", "2")}

    def _start(self, instance: str) -> AppProcess:
        return self._flow.start(instance, shape=self._random.choice(("plain", "generator", "async")))

    def rage(self) -> None:
        """All kills, one after another; a killed worker is started again at once, half of the times after a while."""
        while self.kills < KILLS:
            time.sleep(self._random.uniform(*GAP_SECONDS))  # the moment of a kill is what is random here
            instance = self._random.choice(("1", "2"))
            assert self.workers[instance].code is None, self.workers[instance].tail()
            self.workers[instance].send(signal.SIGKILL)
            self.workers[instance].wait_ended()
            self.kills += 1
            if self.kills in BROKER_RESTARTS_AFTER:
                self._restart_broker()
            if self._random.random() < 0.5:
                time.sleep(self._random.uniform(*GAP_SECONDS))
            self.workers[instance] = self._start(instance)


def test_a_storm_of_kills_loses_nothing(private_flow: tuple[Flow, Cluster]) -> None:
    """Every change has its effect once after de-duplication; changelog and stores are the fold of the input."""
    flow, stack = private_flow

    def restart_broker() -> None:
        stack.kill_broker()
        stack.restart_broker()

    enough = threading.Event()
    storm = Storm(flow, restart_broker)
    feeding = threading.Thread(
        target=flow.feed, args=(RECORDS,), kwargs={"keys": KEYS, "per_second": PER_SECOND, "stop": enough}
    )
    feeding.start()
    wait_until(lambda: sum(max(0, offset) for offset in flow.committed().values()) > 1_000, "records flow", 60.0)
    try:
        storm.rage()
        still_flowing = feeding.is_alive()
    finally:
        feeding.join()
    flow.wait_finished(FINISH_SECONDS)

    owned = {app: app.partitions() for app in storm.workers.values()}
    codes = [app.stop() for app in storm.workers.values()]
    assert storm.kills == KILLS
    assert still_flowing, "the input ended before the storm: slow it down"
    assert codes == [0, 0]
    repeated = flow.verify([(n, _store(flow, app) / str(n)) for app, numbers in owned.items() for n in numbers])
    assert repeated < RECORDS, "more repetitions than records"


def _store(flow: Flow, app: AppProcess) -> Path:
    return flow.store_directory(app.spec.instance)
