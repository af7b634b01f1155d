"""Where benches of whole workers run: an own Kafka and registry, the billing store, and workers as real processes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import psutil

from agents.bench.orders import ELEMENT
from agents.configuration.records import write_records
from agents.site import Site
from agents.supervisor import Child
from streams.core.errors import CurfewError
from streams.kafka.manifest import Manifest
from streams.topics import MATRIX_ELEMENTS

#: What takes part in a plan change between its order and its midnight.
WORKERS = ("plan-changes", "execution", "persistence")


class Ground(Site):
    """The bench's site: only the workers that take part, and what they cost."""

    def __init__(
        self,
        directory: Path,
        report: Callable[[str], None],
        workers: Sequence[str] = WORKERS,
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(directory, "bench", Manifest.load(), report, left_behind=["persist-*.sqlite*"])
        self.workers = workers
        self._env = dict(env or {})
        #: Name of a process → the most memory (MiB, resident) that it ever had, over its restarts.
        self.peak_mib: dict[str, float] = {}

    def start(self) -> None:
        """Kafka and registry with fresh data, topics, schemas, the matrix element, an empty billing store."""
        self.start_stack(CURFEW_LOG_LEVEL="info")
        self.supervisor.env = {**self.supervisor.env, **self._env}
        self.apply_topics()
        self.apply_schemas()
        write_records(self.settings, self.codec, MATRIX_ELEMENTS, {ELEMENT.key: ELEMENT})
        self.store.migrate()

    def start_workers(self) -> None:
        """One process of each."""
        for name in self.workers:
            self.add(name, "worker", name)

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
        self.note(self._child(name))

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

    def _child(self, name: str) -> Child:
        return next(child for child in self.supervisor.children if child.name == name)


def _peak_mib(pid: int) -> float:
    """The most resident memory that the process ever had where the kernel remembers it (Linux), else what it has."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return float(psutil.Process(pid).memory_info().rss) / 2**20
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 2**10
