"""Runs workers as child processes, restarts those that die, and leaves none behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from streams.kafka.worker_metrics import RESTARTS

#: A worker that dies at once would otherwise fill the log and the processor.
RESTART_AFTER_S = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
#: A worker that lived this long starts with the shortest pause again.
HEALTHY_AFTER_S = 60.0
#: After SIGTERM a worker finishes its chunks, commits and closes its stores; then it is killed.
GRACE_S = 20.0
PR_SET_PDEATHSIG = 1

log = structlog.get_logger(__name__)


def die_with_parent() -> None:
    """In the child, before exec: end when the supervisor ends, however it ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Handle SIGINT and SIGTERM after the block only: a process between its fork and its entry here is nobody's child.

    In the main thread; a handler that raises then raises behind the block, which has registered what it started.
    """
    came: list[int] = []
    held_back = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(each, lambda number, _: came.append(number)) for each in held_back]
    try:
        yield
    finally:
        for each, handler in zip(held_back, handlers, strict=True):
            signal.signal(each, handler)
        for number in came:
            signal.raise_signal(number)


@dataclass(slots=True, kw_only=True)
class Child:
    """One process that should be running; ``command`` are arguments of ``curfew``."""

    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    restarts: int = 0
    restart_at: float = 0.0


@dataclass(slots=True, kw_only=True)
class Supervisor:
    """Start children with :meth:`add`, call :meth:`check` now and then, end with :meth:`stop`.

    Call it in the main thread only: a child ends when the thread that started it ends.
    """

    log_dir: Path
    env: Mapping[str, str] = field(default_factory=dict)
    children: list[Child] = field(default_factory=list)
    grace_s: float = GRACE_S

    def add(self, name: str, *command: str) -> None:
        """Start ``curfew <command>`` under ``name``; its output goes to ``log_dir/<name>.log``."""
        child = Child(name=name, command=command)
        self.children.append(child)
        self._start(child)

    def _start(self, child: Child) -> None:
        self.log_dir.mkdir(parents=True, exist_ok=True)
        with (self.log_dir / f"{child.name}.log").open("ab") as output, signals_held_back():
            child.process = subprocess.Popen(
                [sys.executable, "-m", "agents.cli.main", *child.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.env, RESTARTS: str(child.restarts)},
                preexec_fn=die_with_parent,
            )
        child.started_at = time.monotonic()
        log.info("supervisor.started", name=child.name, pid=child.process.pid)

    def check(self) -> None:
        """Restart what died, with growing pauses."""
        now = time.monotonic()
        for child in self.children:
            if child.process is None:
                if now >= child.restart_at:
                    child.restarts += 1
                    self._start(child)
                continue
            code = child.process.poll()
            if code is None:
                continue
            child.failures = 1 if now - child.started_at > HEALTHY_AFTER_S else child.failures + 1
            pause = RESTART_AFTER_S[min(child.failures, len(RESTART_AFTER_S)) - 1]
            child.process, child.restart_at = None, now + pause
            log.warning(
                "supervisor.died", name=child.name, exit_code=code, restart_in_s=pause,
                log=str(self.log_dir / f"{child.name}.log"), last_line=self._last_line(child),
            )  # fmt: skip

    def _last_line(self, child: Child) -> str:
        lines = (self.log_dir / f"{child.name}.log").read_bytes()[-4096:].decode(errors="replace").splitlines()
        return lines[-1] if lines else ""

    def stop(self) -> list[str]:
        """SIGTERM to all, SIGKILL after ``grace_s``; returns the names of those that had to be killed."""
        running = [child for child in self.children if child.process is not None and child.process.poll() is None]
        for child in running:
            assert child.process is not None
            child.process.terminate()
        deadline = time.monotonic() + self.grace_s
        killed = []
        for child in running:
            assert child.process is not None
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
                killed.append(child.name)
        self.children.clear()
        return killed
