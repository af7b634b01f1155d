"""Commands and workers of Curfew as processes, against one stack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Producer

from streams.codec import Codec, Registry
from streams.codec.registration import register_all
from streams.core.ids import derive
from streams.kafka import admin as kafka_admin
from streams.kafka.manifest import Manifest
from tests.delivery.plant import Plant, event, subscription
from tests.delivery.receiving import SECRET
from tests.support.brokers import Brokers, Cluster
from tests.support.kafka_io import TIMEOUT_SECONDS, wait_until

ACCOUNTS: Final = 20


class Deployment:
    """Commands and workers of Curfew against one stack."""

    def __init__(self, stack: Cluster | Brokers, directory: Path) -> None:
        address = stack if isinstance(stack, Brokers) else stack.address
        assert address is not None, "the stack has started"
        self.address = address
        self.env = {
            **os.environ,
            "CURFEW_BOOTSTRAP_SERVERS": address.bootstrap_servers,
            "CURFEW_SCHEMA_REGISTRY_URL": address.schema_registry_url,
            "CURFEW_DATA_DIR": str(directory),
            "CURFEW_SECRET_TEST": SECRET,
        }
        self.directory = directory
        self.codec = Codec(Registry(address.schema_registry_url))

    def prepare(self) -> None:
        """Topics and schemas, as `curfew topics apply` and `curfew schemas apply` make them."""
        manifest = Manifest.load()
        admin = kafka_admin.admin_client({"bootstrap.servers": self.address.bootstrap_servers})
        kafka_admin.apply(manifest, admin, kafka_admin.diff(manifest, admin))
        register_all(Registry(self.address.schema_registry_url), manifest.subjects())

    def run(self, *command: str, code: int = 0) -> str:
        """What it printed as its result."""
        return self.completed(*command, code=code).stdout

    def completed(self, *command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self._curfew(*command), env=self.env, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    @contextmanager
    def worker(self, name: str, *, instance: str = "1", **env: str) -> Iterator[subprocess.Popen[bytes]]:
        """Ended by SIGTERM, by its pid; a test may kill it before. Its log is ``<name>-<instance>.log``."""
        command = self._curfew("worker", name, "--instance", instance)
        with (self.directory / f"{name}-{instance}.log").open("ab") as log:
            process = subprocess.Popen(command, env=self.env | env, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(TIMEOUT_SECONDS)

    def wait_for(self, words: str, worker: str) -> None:
        """Wait until a worker (``delivery-1``) has said this."""
        log = self.directory / f"{worker}.log"
        wait_until(lambda: log.exists() and words in log.read_text(errors="replace"), f"{words} of {worker}")

    def produce(self, numbers: range, queue: str = "customer-events") -> None:
        producer = Producer({"bootstrap.servers": self.address.bootstrap_servers, "partitioner": "murmur2_random"})
        for number in numbers:
            one = event(number, f"A{number % ACCOUNTS}")
            producer.produce(f"queue.{queue}", self.codec.encode(f"queue.{queue}", one), one.key)
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
