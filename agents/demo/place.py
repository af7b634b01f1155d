"""Everything that the demo starts and sets up, and the certainty that all of it ends."""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from pydantic import SecretStr

from agents.config_records import write_records
from agents.demo.fleet import FOUNDED, Fleet
from agents.embedded import Stack, StackConfig
from agents.embedded.scratch import claim, release
from agents.plan_import import import_plans
from agents.routes_file import read_routes
from agents.subscriptions_file import read_subscriptions
from agents.supervisor import Supervisor, die_with_parent, signals_held_back
from agents.worker import WORKERS
from streams.codec import Codec, Registry
from streams.codec.registration import register_all
from streams.core.errors import CurfewError
from streams.core.subscription_rules import Known
from streams.filters import CelLanguage
from streams.kafka import admin as kafka_admin
from streams.kafka.manifest import Manifest
from streams.settings import ClockMode, Settings
from streams.sinks.billing import SqlBillingStore

#: A queue beside the default ones, to which a subscription forwards.
EXTRA_QUEUE = "partner"
SECRET = "CURFEW_SECRET_DEMO"
HERE = Path(__file__).parent
#: Set by the first SIGINT or SIGTERM; whoever looks after the place then ends it.
INTERRUPTED = threading.Event()
#: What a run leaves in its directory and the next one deletes.
LEFT_BEHIND = ("workers", "logs", "received.jsonl", "receiver.port", "subscriptions.toml", "billing.sqlite*")
#: The receiver is one import and one socket; on a loaded machine that takes some seconds.
RECEIVER_TIMEOUT_S = 60.0
#: After the producer has committed the last tick it only has to leave.
PRODUCER_GRACE_S = 20.0


class Place:
    """A directory, a Kafka with registry in it, and processes around it.

    Steps are methods, to be called in the order in which they are written; :meth:`close` ends whatever has been started
    and says which processes would not end. ``database_url``: an empty database instead of a SQLite file.
    """

    def __init__(
        self,
        directory: Path,
        kafka_version: str,
        report: Callable[[str], None],
        database_url: str | None = None,
    ) -> None:
        self._database_url = database_url
        self.directory = directory.absolute()
        self.logs = self.directory / "logs"
        self.received = self.directory / "received.jsonl"
        self.manifest = Manifest.load().with_queues(EXTRA_QUEUE)
        self.supervisor = Supervisor(log_dir=self.logs)
        self.producer: subprocess.Popen[bytes] | None = None
        self._started: list[psutil.Process] = []
        config = StackConfig(data_dir=self.directory / "stack", kafka_version=kafka_version, fresh=True)
        self._stack = Stack(config, report=report)

    def start_stack(self) -> None:
        """Kafka and the registry, with fresh data. Raises StackError, for example when another demo runs here."""
        claim(self.directory, "demo")
        self._stack.lock()  # before anything is deleted
        self._delete(LEFT_BEHIND)
        address = self._stack.start()
        self._started += [psutil.Process(pid) for pid in self._stack.child_pids]
        self.settings = Settings(
            bootstrap_servers=address.bootstrap_servers,
            schema_registry_url=address.schema_registry_url,
            data_dir=self.directory,
            clock=ClockMode.VIRTUAL,
            environment="development",
            hooks=("agents.demo.hooks:HOOKS",),
            database_url=SecretStr(self._database_url or f"sqlite:///{self.directory / 'billing.sqlite'}"),
        )
        self.codec = Codec(Registry(self.settings.schema_registry_url))
        self.store = SqlBillingStore(self.settings.billing_store_url)
        # Every setting that the environment or a curfew.toml here could have made different is said explicitly.
        self.supervisor.env = {
            "CURFEW_BOOTSTRAP_SERVERS": self.settings.bootstrap_servers,
            "CURFEW_SCHEMA_REGISTRY_URL": self.settings.schema_registry_url,
            "CURFEW_DATA_DIR": str(self.directory),
            "CURFEW_DATABASE_URL": self.settings.billing_store_url,
            "CURFEW_CLOCK": self.settings.clock.value,
            "CURFEW_ENVIRONMENT": self.settings.environment,
            "CURFEW_HOOKS": '["agents.demo.hooks:HOOKS"]',
            SECRET: f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}",
        }

    def kafka(self) -> dict[str, Any]:
        """Configuration of the demo's own clients: errors are told by what fails, not by lines across the screen."""
        return self.settings.kafka(log_level=0, error_cb=lambda error: None)

    def apply_topics(self) -> int:
        """Create all topics and queues; returns how many."""
        admin = kafka_admin.admin_client(self.kafka())
        kafka_admin.apply(self.manifest, admin, kafka_admin.diff(self.manifest, admin))
        return len(self.manifest.topics)

    def apply_schemas(self) -> int:
        """Register all schemas; returns the number of subjects."""
        return len(register_all(Registry(self.settings.schema_registry_url), self.manifest.subjects()))

    def start_receiver(self) -> str:
        """A subscriber's system; returns its address. Raises CurfewError when it does not come up."""
        port_file = self.directory / "receiver.port"
        self._child(
            "receiver", "receive", "--secret-ref", f"env:{SECRET}", "--port-file", str(port_file),
            "--log-file", str(self.received), "--quiet",
        )  # fmt: skip
        deadline = time.monotonic() + RECEIVER_TIMEOUT_S
        while not port_file.exists():
            if time.monotonic() > deadline:
                raise CurfewError(f"the receiver of webhooks did not start; see {self.logs / 'receiver.log'}")
            time.sleep(0.05)
        return f"http://127.0.0.1:{port_file.read_text()}/webhooks/curfew"

    def apply_configuration(self, url: str) -> None:
        """Routes and subscriptions, with the checks of ``curfew routes apply`` and ``curfew subscriptions apply``."""
        queues = self.manifest.queues
        routes = {route.name: route for route in read_routes(HERE / "routes.toml", queues)}
        write_records(self.settings, self.codec, "config.routes", routes)
        file = self.directory / "subscriptions.toml"
        file.write_text((HERE / "subscriptions.toml").read_text("utf-8").replace("{url}", url), "utf-8")
        now = datetime.now(UTC)
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)  # what an Avro timestamp keeps
        known = Known(queues=queues, development=True, language=CelLanguage())
        wanted = read_subscriptions(file, known, {}, now, lambda reference: None)
        write_records(self.settings, self.codec, "config.subscriptions", wanted)

    def start_workers(self) -> None:
        """One process for each kind of worker."""
        for name in WORKERS:
            self._child(name, "worker", name)

    def start_producer(self, accounts: int, changes: int, seed: int) -> None:
        """The billing engine and the CRM: not under the supervisor, since it ends by itself."""
        numbers = {"--accounts": accounts, "--changes": changes, "--seed": seed}
        with (self.logs / "producer.log").open("ab") as output, signals_held_back():
            self.producer = subprocess.Popen(
                [sys.executable, "-m", "agents.demo.producer", *(str(x) for pair in numbers.items() for x in pair)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.supervisor.env},
                preexec_fn=die_with_parent,
            )
        self._started.append(psutil.Process(self.producer.pid))

    def load_plans(self, fleet: Fleet) -> None:
        """Import the plans of all services into the billing store, and publish them as their first revisions."""
        import_plans(self.store, self.codec, self.settings.kafka(log_level=0), fleet.plans, occurred_at=FOUNDED)

    def check(self) -> None:
        """Raise CurfewError or StackError when something has ended that should be running; restart workers."""
        if INTERRUPTED.is_set():
            raise KeyboardInterrupt
        self._stack.check()
        before = {child.name: child.process for child in self.supervisor.children}
        self.supervisor.check()
        for child in self.supervisor.children:
            if child.process is not None and child.process is not before[child.name]:
                self._started.append(psutil.Process(child.process.pid))
        if self.producer is not None and self.producer.poll():
            raise CurfewError(f"the demo's producer ended with {self.producer.returncode}: {self._tail('producer')}")

    def restarts(self) -> list[str]:
        """Names of workers that died and were started again."""
        return [child.name for child in self.supervisor.children if child.failures]

    def wait_for_producer(self) -> None:
        assert self.producer is not None
        self.producer.wait(PRODUCER_GRACE_S)

    def close(self) -> list[str]:
        """End all processes, workers first; returns a line for each one that still runs, so none when all is well."""
        with suppress(ProcessLookupError):
            if self.producer is not None and self.producer.poll() is None:
                self.producer.kill()
                self.producer.wait()
        self.supervisor.stop()
        if hasattr(self, "store"):
            self.store.dispose()
        self._stack.stop()
        # psutil compares the time of creation too: another process may have got the number since.
        return [f"{process.pid} {process.name()}" for process in self._started if process.is_running()]

    def delete(self) -> None:
        """Delete everything that this run has made."""
        self._delete((*LEFT_BEHIND, "stack"))
        release(self.directory, "demo")

    def _child(self, name: str, *command: str) -> None:
        self.supervisor.add(name, *command)
        process = self.supervisor.children[-1].process
        assert process is not None
        self._started.append(psutil.Process(process.pid))

    def _tail(self, name: str) -> str:
        lines = (self.logs / f"{name}.log").read_text(errors="replace").splitlines()
        return lines[-1] if lines else "no output"

    def _delete(self, patterns: tuple[str, ...]) -> None:
        for pattern in patterns:
            for path in self.directory.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
