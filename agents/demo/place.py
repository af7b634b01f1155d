"""Everything that the demo starts and sets up."""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil

from agents.configuration.records import write_records
from agents.configuration.routes import read_routes
from agents.configuration.subscriptions import read_subscriptions
from agents.demo.fleet import FOUNDED, Fleet
from agents.plan_changes.plan_import import import_plans
from agents.site import Site
from agents.supervisor import die_with_parent, signals_held_back
from agents.worker import WORKERS
from streams.core.errors import CurfewError
from streams.core.subscription_rules import Known
from streams.filters import CelLanguage
from streams.kafka.manifest import Manifest
from streams.topics import ROUTES, SUBSCRIPTIONS

#: A queue beside the default ones, to which a subscription forwards.
EXTRA_QUEUE = "partner"
SECRET = "CURFEW_SECRET_DEMO"
HERE = Path(__file__).parent
#: Set by the first SIGINT or SIGTERM; whoever looks after the place then ends it.
INTERRUPTED = threading.Event()
#: What a run leaves in its directory besides what every site does.
LEFT_BEHIND = ("received.jsonl", "receiver.port", "subscriptions.toml")
#: The receiver is one import and one socket; on a loaded machine that takes some seconds.
RECEIVER_TIMEOUT_S = 120.0
#: After the producer has committed the last tick it only has to leave.
PRODUCER_GRACE_S = 120.0


class Place(Site):
    """The demo's site, with a receiver of webhooks, and a producer beside the workers.

    Steps are methods, to be called in the order in which they are written.
    """

    def __init__(
        self,
        directory: Path,
        kafka_version: str,
        report: Callable[[str], None],
        database_url: str | None = None,
    ) -> None:
        manifest = Manifest.load().with_queues(EXTRA_QUEUE)
        super().__init__(directory, "demo", manifest, report, kafka_version=kafka_version, left_behind=LEFT_BEHIND)
        self._database_url = database_url
        self.logs = self.directory / "logs"
        self.received = self.directory / "received.jsonl"
        self.producer: subprocess.Popen[bytes] | None = None

    def start(self, **env: str) -> None:
        """Kafka and the registry, with fresh data; ``env``: more of what the workers are told. Raises StackError, for
        example when another demo runs here."""
        secret = {SECRET: f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"}
        self.start_stack(hooks=("agents.demo.hooks:HOOKS",), database_url=self._database_url, **secret, **env)

    def start_receiver(self) -> str:
        """A subscriber's system; returns its address. Raises CurfewError when it does not come up."""
        port_file = self.directory / "receiver.port"
        self.add(
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
        write_records(self.settings, self.codec, ROUTES, routes)
        file = self.directory / "subscriptions.toml"
        file.write_text((HERE / "subscriptions.toml").read_text("utf-8").replace("{url}", url), "utf-8")
        now = datetime.now(UTC)
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)  # what an Avro timestamp keeps
        known = Known(queues=queues, development=True, language=CelLanguage())
        wanted = read_subscriptions(file, known, {}, now, lambda reference: None)
        write_records(self.settings, self.codec, SUBSCRIPTIONS, wanted)

    def start_workers(self) -> None:
        """One process for each kind of worker."""
        for name in WORKERS:
            self.add(name, "worker", name)

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
                self.note(child)
        if self.producer is not None and self.producer.poll():
            raise CurfewError(f"the demo's producer ended with {self.producer.returncode}: {self._tail('producer')}")

    def restarts(self) -> list[str]:
        """Names of workers that died and were started again."""
        return [child.name for child in self.supervisor.children if child.failures]

    def wait_for_producer(self) -> None:
        assert self.producer is not None
        self.producer.wait(PRODUCER_GRACE_S)

    def close(self) -> list[str]:
        """End the producer, then as every site."""
        with suppress(ProcessLookupError):
            if self.producer is not None and self.producer.poll() is None:
                self.producer.kill()
                self.producer.wait()
        return super().close()

    def _tail(self, name: str) -> str:
        lines = (self.logs / f"{name}.log").read_text(errors="replace").splitlines()
        return lines[-1] if lines else "no output"
