"""What a demo or a bench makes for itself: Kafka, registry, billing store, processes; and that all of them end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil
from pydantic import SecretStr

from agents.embedded import DEFAULT_KAFKA_VERSION, Stack, StackConfig
from agents.embedded.scratch import claim, release
from agents.supervisor import Child, Supervisor
from streams.codec import Codec, Registry
from streams.codec.registration import register_all
from streams.kafka import admin as kafka_admin
from streams.kafka.manifest import Manifest
from streams.settings import ClockMode, Settings
from streams.sinks.billing import SqlBillingStore

#: What every run leaves in its directory and the next one deletes.
LEFT_BEHIND = ("workers", "logs", "billing.sqlite*")


class Site:
    """A directory, a Kafka with registry in it, and processes around it, on a virtual clock.

    ``owner`` names who may empty the directory, ``left_behind`` what (glob patterns) besides :data:`LEFT_BEHIND`.
    :meth:`close` ends whatever has been started and says which processes would not end.
    """

    def __init__(
        self,
        directory: Path,
        owner: str,
        manifest: Manifest,
        report: Callable[[str], None],
        *,
        kafka_version: str = DEFAULT_KAFKA_VERSION,
        left_behind: Iterable[str] = (),
    ) -> None:
        self.directory = directory.absolute()
        self.manifest = manifest
        self.supervisor = Supervisor(log_dir=self.directory / "logs")
        self._owner = owner
        self._left_behind = (*LEFT_BEHIND, *left_behind)
        config = StackConfig(data_dir=self.directory / "stack", kafka_version=kafka_version, fresh=True)
        self._stack = Stack(config, report=report)
        self._started: list[psutil.Process] = []

    def start_stack(self, *, hooks: tuple[str, ...] = (), database_url: str | None = None, **env: str) -> None:
        """Kafka and the registry, with fresh data, and what workers are told: ``env`` besides the settings.

        ``database_url``: an empty database instead of a SQLite file. Raises StackError, for example when another run
        has this directory.
        """
        claim(self.directory, self._owner)
        self._stack.lock()  # before anything is deleted
        self._delete(self._left_behind)
        address = self._stack.start()
        self._started += [psutil.Process(pid) for pid in self._stack.child_pids]
        self.settings = Settings(
            bootstrap_servers=address.bootstrap_servers,
            schema_registry_url=address.schema_registry_url,
            data_dir=self.directory,
            clock=ClockMode.VIRTUAL,
            environment="development",
            hooks=hooks,
            database_url=SecretStr(database_url or f"sqlite:///{self.directory / 'billing.sqlite'}"),
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
            "CURFEW_HOOKS": json.dumps(hooks),
            **env,
        }

    def kafka(self) -> dict[str, Any]:
        """Configuration of our own clients: errors are told by what fails, not by lines across the screen."""
        return self.settings.kafka(log_level=0, error_cb=lambda error: None)

    def apply_topics(self) -> None:
        """Create all topics and queues."""
        admin = kafka_admin.admin_client(self.kafka())
        kafka_admin.apply(self.manifest, admin, kafka_admin.diff(self.manifest, admin))

    def apply_schemas(self) -> None:
        """Register all schemas."""
        register_all(Registry(self.settings.schema_registry_url), self.manifest.subjects())

    def add(self, name: str, *command: str) -> None:
        """Start ``curfew <command>`` under ``name``, to be looked after by the supervisor."""
        self.supervisor.add(name, *command)
        self.note(self.supervisor.children[-1])

    def note(self, child: Child) -> None:
        """This child's process is ours, and has to have ended after :meth:`close`."""
        assert child.process is not None
        self._started.append(psutil.Process(child.process.pid))

    def close(self) -> list[str]:
        """End all processes, workers first; returns a line for each one that still runs, so none when all is well."""
        self.supervisor.stop()
        if hasattr(self, "store"):
            self.store.dispose()
        self._stack.stop()
        # psutil compares the time of creation too: another process may have got the number since.
        return [f"{process.pid} {process.name()}" for process in self._started if process.is_running()]

    def delete(self) -> None:
        """Delete everything that this run has made."""
        self._delete((*self._left_behind, "stack"))
        release(self.directory, self._owner)

    def _delete(self, patterns: Iterable[str]) -> None:
        for pattern in patterns:
            for path in self.directory.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
