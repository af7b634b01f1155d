"""The whole application on one stack: every worker a real process, configured as an operator would do it.

Logs are ``<directory>/logs/<process>.log``, one JSON object per line.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from confluent_kafka import Message, Producer

from agents.clock import barrier_reads
from agents.configuration.records import write_records
from agents.configuration.routes import read_routes
from agents.configuration.subscriptions import read_subscriptions
from agents.supervisor import Supervisor
from agents.worker import WORKERS
from streams.codec import Codec, Registry
from streams.codec.registration import register_all
from streams.core.events import Event
from streams.core.objects import (
    Account,
    AccountChange,
    Membership,
    Op,
    Product,
    RatePlan,
    Service,
    ServiceChange,
    ServicePlan,
)
from streams.core.plan_change.matrix import DateRule
from streams.core.subscription_rules import Known
from streams.filters import CelLanguage
from streams.kafka import admin as kafka_admin
from streams.kafka.dead_letters import topic as dead_letter_topic
from streams.kafka.manifest import Manifest
from streams.kafka.partitioner import PARTITIONER
from streams.kafka.quiescence import Quiescence
from streams.kafka.scan import Scanner
from streams.settings import ClockMode, Settings
from streams.sinks.billing import SqlBillingStore
from tests.delivery.receiving import SECRET, SECRET_REF
from tests.plan_changes.makers import LONG_AGO, an_element
from tests.support.brokers import Address
from tests.support.kafka_io import TIMEOUT_SECONDS, wait_until

QUEUE = "customer-events"
#: What a worker says that ends because another one of its name has joined.
FENCED = "another worker has joined as"
#: Seven workers import, join and recover on two shared cores.
START_TIMEOUT_SECONDS = 240.0
#: All of them finish, commit and close at once.
STOP_TIMEOUT_SECONDS = 120.0

ROUTES = """
[[route]]
name = "everything"
event_types = ["account.status_changed", "service.state_transitioned", "invoice.posted", "rate_plan_change.*"]
queues = ["customer-events"]
audience = "all"

[[route]]
name = "invoices-with-all-types"
event_types = ["invoice.posted"]
queues = ["billing-events"]
parameters = [
  "invoice.amount", "invoice.due_date", "invoice.bill_run_id", "account.email", "account.billing_day",
]
"""
SUBSCRIPTIONS = """
[[subscription]]
name = "crm"
queue = "customer-events"
event_types = ["account.status_changed"]
[subscription.webhook]
url = "{url}"
secret_ref = "{secret}"

[[subscription]]
name = "partner-copy"
queue = "customer-events"
event_types = ["account.status_changed"]
ordering = "unordered"
[subscription.forward]
queue = "partner"
"""
PRODUCTS = (Product(id="P1", name="Mobile"),)
RATE_PLANS = (
    RatePlan(id="basic", product_id="P1", name="Basic"),
    RatePlan(id="plus", product_id="P1", name="Plus"),
)
#: ``at-once``: for every date of the next days its start is long past, so a change is executed when it is ordered.
ELEMENTS = (
    an_element("basic-to-plus"),
    an_element("at-once", date_rule=DateRule.DATE_GIVEN, lead_hours=24 * 7),
)


class Application:
    """Processes, topics and configuration; call :meth:`configure`, :meth:`start` and at the end :meth:`close`.

    ``registry_url`` is what the workers get, when it is not the stack's own (a proxy); the test's own codec always asks
    the stack's. ``billing_directory`` is where the SQLite billing store lies, ``smtp_url`` the mail server.
    """

    def __init__(
        self,
        address: Address,
        directory: Path,
        *,
        clock: ClockMode = ClockMode.WALL,
        registry_url: str | None = None,
        billing_directory: Path | None = None,
        smtp_url: str | None = None,
    ) -> None:
        self.directory = directory
        self.billing_directory = billing_directory or directory
        self.settings = Settings(
            bootstrap_servers=address.bootstrap_servers,
            schema_registry_url=address.schema_registry_url,
            data_dir=directory,
            clock=clock,
            database_url=f"sqlite:///{self.billing_directory / 'billing.sqlite'}",  # type: ignore[arg-type]
        )
        self.env = {
            "CURFEW_BOOTSTRAP_SERVERS": address.bootstrap_servers,
            "CURFEW_SCHEMA_REGISTRY_URL": registry_url or address.schema_registry_url,
            "CURFEW_DATA_DIR": str(directory),
            "CURFEW_DATABASE_URL": self.settings.billing_store_url,
            "CURFEW_CLOCK": clock.value,
            "CURFEW_ENVIRONMENT": "development",
            "CURFEW_LOG_FORMAT": "json",
            "CURFEW_HOOKS": "[]",
            "CURFEW_SECRET_TEST": SECRET,
            **({} if smtp_url is None else {"CURFEW_SMTP_URL": smtp_url}),
        }
        self.manifest = Manifest.load().with_queues("partner")
        self.registry = Registry(address.schema_registry_url)
        self.codec = Codec(self.registry)
        self.store = SqlBillingStore(self.settings.billing_store_url)
        self.supervisor = Supervisor(log_dir=directory / "logs", env=self.env, grace_s=STOP_TIMEOUT_SECONDS)
        self._quiescence: Quiescence | None = None

    # -- building ---------------------------------------------------------------------------------------------------

    def configure(self, receiver_url: str = "http://127.0.0.1:1/") -> None:
        """Topics, schemas, catalogue, routes and subscriptions."""
        admin = kafka_admin.admin_client(self.kafka())
        kafka_admin.apply(self.manifest, admin, kafka_admin.diff(self.manifest, admin))
        register_all(self.registry, self.manifest.subjects())
        self.send("catalog.product", *((one.id, one) for one in PRODUCTS))
        self.send("catalog.rate-plan", *((one.id, one) for one in RATE_PLANS))
        self.send("catalog.matrix-element", *((one.key, one) for one in ELEMENTS))
        routes = read_routes(self._written("routes.toml", ROUTES), self.manifest.queues)
        write_records(self.settings, self.codec, "config.routes", {route.name: route for route in routes})
        file = self._written("subscriptions.toml", SUBSCRIPTIONS.format(url=receiver_url, secret=SECRET_REF))
        known = Known(queues=self.manifest.queues, development=True, language=CelLanguage())
        wanted = read_subscriptions(file, known, {}, now(), lambda reference: None)
        write_records(self.settings, self.codec, "config.subscriptions", wanted)

    def start(self) -> None:
        """All workers and, on the wall clock, the clock; returns when nothing is in flight for the first time."""
        for name in WORKERS:
            self.supervisor.add(name, "worker", name)
        if self.settings.clock is ClockMode.WALL:
            self.supervisor.add("clock", "clock")
        reads = barrier_reads(self.manifest.groups, self.manifest.topics)
        self._quiescence = Quiescence(self.kafka(), reads)
        self.settle(START_TIMEOUT_SECONDS)

    def close(self) -> list[str]:
        """End all processes; returns the names of those that had to be killed."""
        killed = self.supervisor.stop()
        self.store.dispose()
        return killed

    def _written(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        return path

    # -- processes --------------------------------------------------------------------------------------------------

    def kafka(self) -> dict[str, Any]:
        return self.settings.kafka(log_level=0, error_cb=lambda error: None)

    def popen(self, log: Path, *command: str, **env: str) -> subprocess.Popen[bytes]:
        """``curfew <command>`` as a process of the test's own, its output in ``log``; the test ends it."""
        with log.open("ab") as output:
            return subprocess.Popen(
                curfew_command(*command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.directory,
                env={**os.environ, **self.env, **env},
            )  # fmt: skip

    def run(self, *command: str, stdin: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        """``curfew <command>`` to its end; asserts the exit code."""
        done = subprocess.run(
            curfew_command(*command), input=stdin, env={**os.environ, **self.env}, cwd=self.directory,
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def pids(self) -> dict[str, int]:
        """Name → process id, to see whether one has been restarted."""
        return {child.name: child.process.pid for child in self.supervisor.children if child.process is not None}

    def listen(self, name: str) -> Callable[[], str]:
        """What a process logs from now on, line by line."""
        log = self.directory / "logs" / f"{name}.log"
        start = log.stat().st_size

        def heard() -> str:
            with log.open("rb") as file:
                file.seek(start)
                return file.read().rpartition(b"\n")[0].decode(errors="replace")

        return heard

    # -- in and out -------------------------------------------------------------------------------------------------

    def send(self, topic: str, *records: tuple[str, object], **config: object) -> None:
        """Produce (key, value) with an ordinary producer; a value is a wire dataclass, bytes, or None for a tombstone.

        Returns when all are acknowledged.
        """
        producer = Producer(
            {**self.kafka(), "partitioner": PARTITIONER, "acks": "all", "delivery.timeout.ms": 60_000, **config}
        )
        failures: list[str] = []

        def delivered(error: object, _message: object) -> None:
            if error is not None:
                failures.append(str(error))

        for key, value in records:
            encoded = value if isinstance(value, bytes | None) else self.codec.encode(topic, value)
            producer.produce(topic, encoded, key, on_delivery=delivered)
        assert producer.flush(2 * TIMEOUT_SECONDS) == 0
        assert failures == []

    def settle_with_restarts(self, before: dict[str, int], timeout_seconds: float) -> None:
        """Wait until nothing is in flight and all workers run; ``before`` are the :meth:`pids` from before the outage.

        After a broker's death Kafka may take a worker for a second one of its name: it ends, and is started again by
        the supervisor, as in production. A worker that ended for any other reason fails the test.
        """

        def settled() -> bool:
            self.supervisor.check()
            return self.pids().keys() == before.keys() and self._is_quiet()

        wait_until(settled, "nothing is in flight and all workers run", timeout_seconds)
        ended = [name for name, pid in self.pids().items() if pid != before[name]]
        logs = {name: (self.directory / "logs" / f"{name}.log").read_text(errors="replace") for name in ended}
        assert [name for name in ended if FENCED not in logs[name]] == []
        self.assert_all_run()

    def settle(self, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """Wait until nothing is in flight in any worker; a worker that has died fails the test."""
        before = self.pids()
        wait_until(self._settled, "nothing is in flight", timeout_seconds)
        assert self.pids() == before
        self.assert_all_run()

    def _settled(self) -> bool:
        self.assert_all_run()
        return self._is_quiet()

    def _is_quiet(self) -> bool:
        assert self._quiescence is not None
        return not self._quiescence.waiting()

    def assert_all_run(self) -> None:
        for child in self.supervisor.children:
            assert child.process is not None
            code = child.process.poll()
            if code is not None:
                tail = (self.directory / "logs" / f"{child.name}.log").read_text(errors="replace")[-2_000:]
                raise AssertionError(f"{child.name} ended with {code}: {tail}")

    def records(self, topic: str) -> list[Message]:
        """All records of a topic, from the beginning."""
        with Scanner(self.kafka()) as scanner:
            return list(scanner.read(topic, scanner.spans(topic)))

    def events(self, account_id: str, queue: str = QUEUE) -> list[Event]:
        """The events of one account in a queue, in order."""
        messages = [message for message in self.records(f"queue.{queue}") if message.key() == account_id.encode()]
        return [self.codec.decode(as_bytes(message.value()), Event) for message in messages]

    def dead_letters(self, group: str) -> list[Message]:
        return self.records(dead_letter_topic(group))

    # -- a fleet ----------------------------------------------------------------------------------------------------

    def know(self, services: Mapping[str, str]) -> None:
        """Accounts in São Paulo with these services (service → account), all on plan basic."""
        self.send("billing.account", *((account, created(account)) for account in dict.fromkeys(services.values())))
        self.send("billing.service", *((account, service_created(account, one)) for one, account in services.items()))
        self.load_plans([basic_plan(account, one) for one, account in services.items()])

    def load_plans(self, plans: Iterable[ServicePlan]) -> None:
        """Import plans into the billing store and publish them, as a migration of a real fleet does."""
        self.store.migrate()
        changes = self.store.load_plans(plans, occurred_at=LONG_AGO)
        self.send("billing.service-plan", *((change.subject.account_id, change) for change in changes))


def curfew_command(*command: str) -> list[str]:
    return [sys.executable, "-m", "agents.cli.main", *command]


def headers(message: Message) -> dict[str, str]:
    """The headers of a record as text; binary ones are only roughly so."""
    pairs = message.headers() or []
    assert isinstance(pairs, list)
    return {name: as_bytes(value).decode(errors="replace") for name, value in pairs}


def as_bytes(data: str | bytes | None) -> bytes:
    assert isinstance(data, bytes)
    return data


def now() -> datetime:
    """The machine's time with the milliseconds of an Avro timestamp."""
    found = datetime.now(UTC)
    return found.replace(microsecond=found.microsecond // 1000 * 1000)


def account(account_id: str, **fields: object) -> Account:
    given = {
        "status": "Active", "zone": "America/Sao_Paulo", "currency": "BRL", "locale": "pt-BR",
        "name": "Padaria Aurora", "email": "contato@aurora.example", "billing_day": 31,
    }  # fmt: skip
    return Account(id=account_id, **{**given, **fields})  # type: ignore[arg-type]


def created(account_id: str, **fields: object) -> AccountChange:
    return AccountChange(
        op=Op.CREATED, current=account(account_id, **fields), revision=1, occurred_at=now(), source="crm"
    )


def suspended(account_id: str) -> AccountChange:
    """The second revision, which raises account.status_changed."""
    return _switched(account_id, "Active", "Suspended", 2)


def reactivated(account_id: str) -> AccountChange:
    """The third revision, which raises it again."""
    return _switched(account_id, "Suspended", "Active", 3)


def _switched(account_id: str, before: str, after: str, revision: int) -> AccountChange:
    return AccountChange(
        op=Op.UPDATED,
        previous=account(account_id, status=before),
        current=account(account_id, status=after),
        revision=revision,
        occurred_at=now(),
        source="crm",
    )


def service_created(account_id: str, service_id: str) -> ServiceChange:
    service = Service(id=service_id, account_id=account_id, name=f"Line {service_id}", state="Active")
    return ServiceChange(op=Op.CREATED, current=service, revision=1, occurred_at=LONG_AGO, source="crm")


def basic_plan(account_id: str, service_id: str) -> ServicePlan:
    return ServicePlan(
        service_id=service_id,
        account_id=account_id,
        rate_plan_id="basic",
        product_id="P1",
        memberships=(Membership(rate_plan_id="basic", valid_from=LONG_AGO),),
    )
