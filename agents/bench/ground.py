"""Where benches of whole workers run: an own Kafka and registry, the billing store, and workers as real processes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from agents.bench.orders import ELEMENT
from agents.config_records import write_records
from agents.embedded import Stack, StackConfig
from agents.embedded.scratch import claim, release
from agents.supervisor import Child, Supervisor
from streams.codec import Codec, Registry
from streams.codec.registration import register_all
from streams.core.errors import CurfewError
from streams.kafka import admin as kafka_admin
from streams.kafka.manifest import Manifest
from streams.settings import ClockMode, Settings
from streams.sinks.billing import SqlBillingStore

#: What takes part in a plan change between its order and its midnight.
WORKERS = ("plan-changes", "execution", "persistence")
#: What a run leaves in its directory and the next one deletes.
LEFT_BEHIND = ("workers", "logs", "billing.sqlite*", "persist-*.sqlite*")


class Ground:
    """A directory and the processes in it. :meth:`close` ends whatever was started."""

    def __init__(self, directory: Path, report: Callable[[str], None], workers: Sequence[str] = WORKERS) -> None:
        self.directory = directory.absolute()
        self.workers = workers
        self.manifest = Manifest.load()
        self.supervisor = Supervisor(log_dir=self.directory / "logs")
        #: Name of a process → the most memory (MiB, resident) that it ever had, over its restarts.
        self.peak_mib: dict[str, float] = {}
        self._stack = Stack(StackConfig(data_dir=self.directory / "stack", fresh=True), report=report)
        self._started: list[psutil.Process] = []
        self._died: list[str] = []

    def start(self) -> None:
        """Kafka and registry with fresh data, topics, schemas, the matrix element, an empty billing store."""
        claim(self.directory, "bench")
        self._stack.lock()  # before anything is deleted
        self._delete(LEFT_BEHIND)
        address = self._stack.start()
        self._started += [psutil.Process(pid) for pid in self._stack.child_pids]
        self.settings = Settings(
            bootstrap_servers=address.bootstrap_servers,
            schema_registry_url=address.schema_registry_url,
            data_dir=self.directory,
            clock=ClockMode.VIRTUAL,
            hooks=(),
            database_url=f"sqlite:///{self.directory / 'billing.sqlite'}",  # type: ignore[arg-type]  # pydantic converts
        )
        # Every setting that the environment or a curfew.toml here could have made different is said explicitly.
        self.supervisor.env = {
            "CURFEW_BOOTSTRAP_SERVERS": self.settings.bootstrap_servers,
            "CURFEW_SCHEMA_REGISTRY_URL": self.settings.schema_registry_url,
            "CURFEW_DATA_DIR": str(self.directory),
            "CURFEW_DATABASE_URL": self.settings.billing_store_url,
            "CURFEW_CLOCK": self.settings.clock.value,
            "CURFEW_HOOKS": "[]",
            "CURFEW_LOG_LEVEL": "info",
        }
        registry = Registry(self.settings.schema_registry_url)
        admin = kafka_admin.admin_client(self.kafka())
        kafka_admin.apply(self.manifest, admin, kafka_admin.diff(self.manifest, admin))
        register_all(registry, self.manifest.subjects())
        self.codec = Codec(registry)
        write_records(self.settings, self.codec, "catalog.matrix-element", {ELEMENT.key: ELEMENT})
        self.store = SqlBillingStore(self.settings.billing_store_url)
        self.store.migrate()

    def kafka(self) -> dict[str, Any]:
        """Configuration of the bench's own clients: errors are told by what fails, not by lines on the screen."""
        return self.settings.kafka(log_level=0, error_cb=lambda error: None)

    def start_workers(self) -> None:
        """One process of each."""
        for name in self.workers:
            self.supervisor.add(name, "worker", name)
            self._note(name)

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone; :meth:`revive` starts it again."""
        child = self._child(name)
        assert child.process is not None
        self.sample()
        child.process.kill()
        child.process.wait()
        child.process, child.restart_at, child.failures = None, float("inf"), 0

    def revive(self, name: str, *, wipe: bool) -> None:
        """Start a killed worker; with ``wipe`` without its local store."""
        if wipe:
            shutil.rmtree(self.directory / "workers" / f"{name}-1" / "store")
        self._child(name).restart_at = 0.0
        self.supervisor.check()
        self._note(name)

    def check(self) -> None:
        """Raise when a process has ended that should be running: what is measured then is something else."""
        self._stack.check()
        for child in self.supervisor.children:
            if child.process is not None and child.process.poll() is not None:
                raise CurfewError(
                    f"worker {child.name} ended with {child.process.returncode}; see "
                    f"{self.supervisor.log_dir / child.name}.log (keep it with --keep)"
                )

    def sample(self) -> None:
        """Look at the memory of all processes."""
        for name, pid in self._pids().items():
            with suppress(psutil.NoSuchProcess, OSError):
                self.peak_mib[name] = max(self.peak_mib.get(name, 0.0), _peak_mib(pid))

    def cpu_s(self) -> dict[str, float]:
        """Processor time that each running process has used so far, seconds."""
        times = {name: psutil.Process(pid).cpu_times() for name, pid in self._pids().items()}
        return {name: spent.user + spent.system for name, spent in times.items()}

    def _pids(self) -> dict[str, int]:
        pids = {child.name: child.process.pid for child in self.supervisor.children if child.process is not None}
        pids.update(zip(("kafka", "registry"), self._stack.child_pids, strict=True))
        return {**pids, "bench": psutil.Process().pid}

    def new_database(self) -> str:
        """URL of an empty database beside the billing store: the same software, on the same disk."""
        return f"sqlite:///{self.directory / f'persist-{uuid4().hex}.sqlite'}"

    def stop_workers(self) -> None:
        """End the workers; what is measured from here on shall have the processor for itself."""
        self.supervisor.stop()

    def close(self) -> list[str]:
        """End all processes, workers first; returns a line for each one that still runs, so none when all is well."""
        self.stop_workers()
        if hasattr(self, "store"):
            self.store.dispose()
        self._stack.stop()
        return [f"{process.pid} {process.name()}" for process in self._started if process.is_running()]

    def delete(self) -> None:
        """Delete everything that this run has made."""
        self._delete((*LEFT_BEHIND, "stack"))
        release(self.directory, "bench")

    def _child(self, name: str) -> Child:
        return next(child for child in self.supervisor.children if child.name == name)

    def _note(self, name: str) -> None:
        process = self._child(name).process
        assert process is not None
        self._started.append(psutil.Process(process.pid))

    def _delete(self, patterns: Iterable[str]) -> None:
        for pattern in patterns:
            for path in self.directory.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _peak_mib(pid: int) -> float:
    """The most resident memory that the process ever had where the kernel remembers it (Linux), else what it has."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return float(psutil.Process(pid).memory_info().rss) / 2**20
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 2**10
