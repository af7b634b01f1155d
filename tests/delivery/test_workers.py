"""The delivery and dispatch workers as processes, on a real Kafka, judged by the receiver's log and by the ledger."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from agents.embedded import Stack
from streams.codec import Codec, Registry
from streams.core.ids import derive
from tests.delivery.plant import Plant, event, subscription
from tests.delivery.receiving import SECRET, SECRET_REF, receiver
from tests.support.kafka_io import TIMEOUT_SECONDS, wait_until

ACCOUNTS = 20
SUBSCRIPTIONS = """
[[subscription]]
name = "crm"
queue = "customer-events"
schedule_s = [0, 1, 1, 2, 2, 5, 5, 5, 5, 5]
[subscription.webhook]
url = "{url}"
secret_ref = "{secret}"

[[subscription]]
name = "partner-copy"
queue = "customer-events"
ordering = "unordered"
[subscription.forward]
queue = "partner"
"""


class Deployment:
    """Commands and workers of Curfew against one stack."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        assert stack.address is not None, "the stack has started"
        self.address = stack.address
        self.env = {
            **os.environ,
            "CURFEW_BOOTSTRAP_SERVERS": stack.address.bootstrap_servers,
            "CURFEW_SCHEMA_REGISTRY_URL": stack.address.schema_registry_url,
            "CURFEW_DATA_DIR": str(directory),
            "CURFEW_SECRET_TEST": SECRET,
        }
        self.directory = directory
        self.codec = Codec(Registry(stack.address.schema_registry_url))

    def run(self, *command: str, code: int = 0) -> str:
        """What it printed as its result."""
        return self.completed(*command, code=code).stdout

    def completed(self, *command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self._curfew(*command), env=self.env, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    @contextmanager
    def worker(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """Ended by SIGTERM, by its pid; a test may kill it before."""
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(self._curfew("worker", name), env=self.env, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)

    def produce(self, numbers: range) -> None:
        producer = Producer({"bootstrap.servers": self.address.bootstrap_servers, "partitioner": "murmur2_random"})
        for number in numbers:
            one = event(number, f"A{number % ACCOUNTS}")
            producer.produce("queue.customer-events", self.codec.encode("queue.customer-events", one), one.key)
        assert producer.flush(TIMEOUT_SECONDS) == 0

    def report_success_of_nobody(self, subscription_id: str) -> None:
        """A result of a unit that never was, as a worker with a fault in it would write."""
        plant = Plant(subscription("crm"))
        [attempt] = plant.attempts(plant.feed(event(1)))
        result = plant.result(replace(attempt, unit_id=derive("nobody"), subscription_id=subscription_id))
        result = replace(result, queue_partition=0, queue_offset=0)
        producer = Producer({"bootstrap.servers": self.address.bootstrap_servers})
        producer.produce("delivery.results", self.codec.encode("delivery.results", result), partition=0)
        assert producer.flush(TIMEOUT_SECONDS) == 0

    def ledger(self, code: int = 0) -> dict[str, dict[str, Any]]:
        return {line["subscription"]: line for line in json.loads(self.run("ledger", "-f", "json", code=code))}

    def _curfew(self, *command: str) -> list[str]:
        return [sys.executable, "-m", "agents.cli.main", *command]


@pytest.fixture
def deployment(private_stack: Callable[..., Stack], tmp_path: Path) -> Deployment:
    deployed = Deployment(private_stack(), tmp_path)
    deployed.run("topics", "apply", "--queue", "partner")
    deployed.run("schemas", "apply")
    return deployed


@pytest.mark.kafka
@pytest.mark.slow
def test_two_workers_killed_in_the_flow_lose_nothing_and_keep_the_order(deployment: Deployment, tmp_path: Path) -> None:
    """1,200 events, one failing account, both workers killed with -9: each delivered, in order, and the ledger is 0."""
    with receiver(tmp_path, "--fail-status", "500", "--fail-key", "A1") as crm:
        file = tmp_path / "subscriptions.toml"
        file.write_text(SUBSCRIPTIONS.format(url=crm.url, secret=SECRET_REF))
        applied = deployment.completed("subscriptions", "apply", str(file))
        assert ("crm: new" in applied.stderr, applied.stdout) == (True, "")  # as `routes apply` and the others
        assert "crm: unchanged" in deployment.completed("subscriptions", "apply", str(file)).stderr
        assert "200" in deployment.run("subscriptions", "test", "crm")
        wrong_file = tmp_path / "wrong.toml"
        wrong_file.write_text(file.read_text().replace('queue = "partner"', 'queue = "nowhere"'))
        deployment.run("subscriptions", "apply", str(wrong_file), code=2)
        tried = len(crm.received())

        def accepted() -> set[str]:
            return {one["webhook_id"] for one in crm.received()[tried:] if one["status"] == 200}

        with deployment.worker("delivery") as delivery, deployment.worker("dispatch") as dispatch:
            deployment.produce(range(600))
            wait_until(lambda: len(accepted()) >= 570, "all accounts but the failing one are delivered", 90)
            wait_until(lambda: deployment.ledger()["crm"]["pending"] == 30, "only that account waits", 60)
            deployment.produce(range(600, 1_200))
            wait_until(lambda: len(accepted()) > 600, "the second half has begun")
            for process in (delivery, dispatch):
                process.send_signal(signal.SIGKILL)
                process.wait(10)
        between = deployment.ledger()
        crm.behave()
        with deployment.worker("delivery"), deployment.worker("dispatch"):
            wait_until(lambda: len(accepted()) == 1_200, "everything is delivered", 120)
            wait_until(lambda: deployment.ledger()["crm"]["pending"] == 0, "the last results are settled", 60)
            wait_until(lambda: deployment.ledger()["partner-copy"]["delivered"] == 1_200, "all are forwarded", 60)

        after = deployment.ledger()
        received = crm.received()[tried:]

    assert between["crm"]["difference"] == between["partner-copy"]["difference"] == 0
    assert (after["crm"]["published"], after["crm"]["delivered"], after["crm"]["difference"]) == (1_200, 1_200, 0)
    assert after["partner-copy"]["difference"] == 0
    assert all(one["verified"] for one in received)
    for account in range(ACCOUNTS):
        first: dict[int, None] = {}
        for one in received:
            if one["key"] == f"A{account}" and one["status"] == 200:
                first.setdefault(one["sequence"])
        assert list(first) == list(range(account, 1_200, ACCOUNTS))
    most = max(one["attempt"] for one in received)
    assert most <= 10

    deployment.report_success_of_nobody(after["crm"]["subscription_id"])
    wrong = deployment.ledger(code=3)
    assert (wrong["crm"]["difference"], wrong["partner-copy"]["difference"]) == (1, 0)
