"""A real Kafka and a real schema registry, owned by this process.

```python
with Stack(StackConfig(data_dir=Path(".curfew/demo"))) as address:
    print(address.bootstrap_servers, address.schema_registry_url)
```
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from agents.embedded import registry as registry_module
from agents.embedded.download import Report, say
from agents.embedded.errors import StackError
from agents.embedded.jars import kafka_jars, registry_home
from agents.embedded.java import ended_early
from agents.embedded.kafka import Broker
from agents.embedded.ports import free_port, is_free, require_free
from agents.embedded.registry import Registry

DEFAULT_KAFKA_VERSION = "4.3.0"

POLL_SECONDS = 0.05
PROBE_TIMEOUT_SECONDS = 5.0  # a probe that hangs longer is asked again instead of eating the whole start
USUAL_KAFKA_PORT = 9092
USUAL_REGISTRY_PORT = 8081

# What --fresh deletes. A list of names, so that a data directory given by mistake loses nothing else.
DATA_NAMES = ("kafka", "kafka.json", "registry", "registry.password")
LOG_NAMES = ("kafka.log", "registry.log")


@dataclass(frozen=True, slots=True, kw_only=True)
class StackConfig:
    """What to start and where. Heaps in MiB, times in seconds.

    A port given here must be free. `None` means any free one or, with `prefer_usual_ports`, 9092 and 8081 if they are
    free. `fresh` deletes the data first. `kafka_properties` override those of `kafka.PROPERTIES`.
    """

    data_dir: Path
    kafka_version: str = DEFAULT_KAFKA_VERSION
    kafka_port: int | None = None
    registry_port: int | None = None
    with_registry: bool = True
    prefer_usual_ports: bool = False
    fresh: bool = False
    kafka_heap_mib: int = 512
    registry_heap_mib: int = 384
    start_timeout_seconds: float = 240.0
    stop_grace_seconds: float = 20.0
    lock_wait_seconds: float = 10.0  # kill -9 of an owner takes its Java along, but not within the same instant
    kafka_properties: Mapping[str, str] = field(default_factory=dict)
    kafka_listeners: Mapping[str, tuple[int, str]] = field(default_factory=dict)  # more: name → port, protocol
    train_into: Path | None = None  # see faststart.py: the processes write their caches there when they stop


@dataclass(frozen=True, slots=True, kw_only=True)
class StackAddress:
    """Where a running stack is. `schema_registry_url` is empty when it runs without a registry."""

    bootstrap_servers: str
    schema_registry_url: str
    pid: int
    data_dir: Path
    kafka_version: str
    started_at: datetime


class Stack:
    """Starts and stops Kafka and the registry as children of this process.

    Start it from the main thread. One data directory belongs to one stack at a time: a lock on it is held by this
    process and by its children, so it is free again only when the last of them is gone.
    """

    def __init__(self, config: StackConfig, report: Report = say) -> None:
        self.config = config
        self._report = report
        self._directory = config.data_dir.expanduser().absolute()
        self._lock: int | None = None
        self._broker: Broker | None = None
        self._kafka_port = 0
        self._kafka: subprocess.Popen[bytes] | None = None
        self._registry: subprocess.Popen[bytes] | None = None
        self.address: StackAddress | None = None

    def __enter__(self) -> StackAddress:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def child_pids(self) -> tuple[int, ...]:
        """Process ids of the running children: Kafka, then the registry."""
        return tuple(child.pid for child in (self._kafka, self._registry) if child is not None)

    def lock(self) -> None:
        """Take the data directory; `start` does it if it was not done. StackError when another stack has it."""
        if self._lock is None:
            self._lock = _lock_directory(self._directory, self.config.lock_wait_seconds)

    def start(self) -> StackAddress:
        """Start and wait until both answer. StackError when that is not possible; nothing is left running then."""
        if self.address is not None:
            raise RuntimeError("the stack is running")
        config = self.config
        try:
            jars = kafka_jars(config.kafka_version, self._report)
            home = registry_home(self._report) if config.with_registry else None
            self.lock()
            assert self._lock is not None
            if config.fresh:
                _delete(self._directory, DATA_NAMES)
            _keep_one_old_log(self._directory)
            usual = config.prefer_usual_ports
            self._kafka_port = _port(config.kafka_port, usual and USUAL_KAFKA_PORT, "Kafka", "--kafka-port")
            registry = None
            registry_port = 0
            if home is not None:
                registry = Registry(self._directory, home)
                registry_port = _port(
                    config.registry_port, usual and USUAL_REGISTRY_PORT, "the registry", "--registry-port"
                )
                # The registry needs nothing from Kafka, so it starts while Kafka formats its storage.
                self._registry = registry.start(
                    registry_port, config.registry_heap_mib, [self._lock], config.train_into
                )
            self._broker = Broker(self._directory, config.kafka_version, jars)
            self._start_broker()
            if registry is not None:
                self._wait("The registry", self._registry, registry_port, registry.answers, registry.log)
        except BaseException:
            self.stop()
            raise
        self.address = StackAddress(
            bootstrap_servers=f"127.0.0.1:{self._kafka_port}",
            schema_registry_url=registry_module.url(registry_port) if registry is not None else "",
            pid=os.getpid(),
            data_dir=self._directory,
            kafka_version=config.kafka_version,
            started_at=datetime.now(UTC),
        )
        return self.address

    def stop(self) -> None:
        """Stop both in order (SIGTERM, after the grace SIGKILL) and free the directory. Harmless when not running."""
        children = [child for child in (self._kafka, self._registry) if child is not None]
        for child in children:
            child.terminate()
        deadline = time.monotonic() + self.config.stop_grace_seconds
        for child in children:
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._kafka = self._registry = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self.address = None

    def kill_broker(self) -> None:
        """SIGKILL the broker, as a power cut would; returns when it is gone. The registry goes on."""
        if self._kafka is None:
            raise RuntimeError("the broker is not running")
        self._kafka.send_signal(signal.SIGKILL)
        self._kafka.wait()
        self._kafka = None

    def restart_broker(self) -> None:
        """Start the broker again on its old port, after `kill_broker` or in place of the running one; waits for it."""
        if self._broker is None or self._lock is None:
            raise RuntimeError("the stack was not started")
        if self._kafka is not None:
            self._kafka.terminate()
            try:
                self._kafka.wait(self.config.stop_grace_seconds)
            except subprocess.TimeoutExpired:
                self.kill_broker()
            self._kafka = None
        self._start_broker()

    def check(self) -> None:
        """StackError when a child has ended although nobody stopped it."""
        for what, child, log in (("Kafka", self._kafka, "kafka.log"), ("The registry", self._registry, "registry.log")):
            if child is not None and child.poll() is not None:
                raise ended_early(what, child.returncode, self._directory / log)

    def _start_broker(self) -> None:
        assert self._broker is not None
        assert self._lock is not None
        config = self.config
        self._broker.prepare(
            port=self._kafka_port,
            controller_port=free_port(),
            overrides=config.kafka_properties,
            more=config.kafka_listeners,
        )
        self._kafka = self._broker.start(config.kafka_heap_mib, [self._lock], config.train_into)
        self._wait("Kafka", self._kafka, self._kafka_port, self._broker.answers, self._broker.log)

    def _wait(
        self,
        what: str,
        child: subprocess.Popen[bytes] | None,
        port: int,
        answers: Callable[[int, float], bool],
        log: Path,
    ) -> None:
        assert child is not None
        deadline = time.monotonic() + self.config.start_timeout_seconds
        # The open port first: it costs nothing to ask, so the client is created once and not twenty times a second.
        while not (_listens(port) and answers(port, PROBE_TIMEOUT_SECONDS)):
            if child.poll() is not None:
                raise ended_early(what, child.returncode, log)
            if time.monotonic() > deadline:
                raise StackError(
                    f"{what} did not answer within {self.config.start_timeout_seconds:.0f} s.",
                    where=f"127.0.0.1:{port}, log {log}",
                    remedy="read the log; on a slow or loaded machine just start again",
                )
            time.sleep(POLL_SECONDS)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


def _port(wanted: int | None, usual: int, what: str, option: str) -> int:
    """The wanted port, which must be free; else the usual one (0: there is none) if free; else any."""
    if wanted is not None:
        return require_free(wanted, what, option)
    return usual if usual and is_free(usual) else free_port()


def _lock_directory(directory: Path, wait_seconds: float) -> int:
    """A file descriptor that holds the lock of the directory; StackError when another stack keeps it.

    The file is never deleted: a second file of the same name would be a second lock.
    """
    forbidden = set(",;\\\n") & set(str(directory))
    if forbidden:  # Kafka reads a comma in log.dirs as a list, H2 a semicolon in its URL as options
        raise StackError(
            f"The path of the data directory contains {sorted(forbidden)}.",
            where=str(directory),
            remedy="choose a --data-dir without commas, semicolons and backslashes",
        )
    directory.mkdir(parents=True, exist_ok=True)
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
                continue
            owner = os.read(lock, 20).decode() or "unknown"
            os.close(lock)
            raise StackError(
                f"The data directory belongs to a stack that is running (process {owner}).",
                where=str(directory),
                remedy=f"`curfew dev stop --data-dir {directory}`, or choose another --data-dir",
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        return lock


def _keep_one_old_log(directory: Path) -> None:
    """Rotate by start, so that a log never grows for ever and an error shows lines of this start only."""
    for name in LOG_NAMES:
        with suppress(FileNotFoundError):
            os.replace(directory / name, directory / f"{name}.1")


def _delete(directory: Path, names: tuple[str, ...]) -> None:
    for name in names:
        path = directory / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
