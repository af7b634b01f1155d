"""A stack that outlives the command that started it: a detached supervisor process that owns Kafka and the registry."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NoReturn

import psutil  # type: ignore[import-untyped,unused-ignore]

from agents.embedded import state as states
from agents.embedded.download import Report, say
from agents.embedded.errors import StackError
from agents.embedded.jars import kafka_jars, registry_home
from agents.embedded.kafka import Broker
from agents.embedded.registry import Registry
from agents.embedded.stack import Stack, StackAddress, StackConfig
from agents.embedded.state import State

SUPERVISOR_LOG = "supervisor.log"
POLL_SECONDS = 0.1
HEALTH_TIMEOUT_SECONDS = 3.0
# Longer than the stack's own grace for its children: who kills the supervisor earlier denies Kafka its clean stop.
STOP_GRACE_MARGIN_SECONDS = 10.0
KILL_TIMEOUT_SECONDS = 10.0

Health = Literal["running", "starting", "unhealthy", "failed", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What is known of the stack in a directory; `address` is there only while its process lives and is ready."""

    health: Health
    detail: str
    address: StackAddress | None = None


def supervise(config: StackConfig, report: Report) -> int:
    """Own a stack until SIGTERM, SIGINT or SIGHUP (returns 0) or until one of its processes ends (returns 1)."""

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)  # a second signal must not interrupt the clean stop
        report(f"stopping on {signal.Signals(number).name}")
        raise SystemExit(0)

    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, stop)
    directory = config.data_dir
    stack = Stack(config, report)
    current = states.of_this_process(data_dir=directory, kafka_version=config.kafka_version)
    owner = False
    try:
        stack.lock()
        owner = True  # only the holder of the lock may touch the state file
        states.write(directory, current)
        address = stack.start()
        states.write(directory, _ready(current, address, stack.child_pids))
        report(f"ready: Kafka {address.kafka_version} at {address.bootstrap_servers}")
        while True:
            stack.check()
            time.sleep(POLL_SECONDS)
    except SystemExit:
        stack.stop()
        if owner:
            states.remove(directory)
        report("stopped")
        return 0
    except StackError as error:
        stack.stop()
        report(str(error))
        if owner:
            failed = replace(current, status="failed", error=(error.what, error.where, error.remedy))
            states.write(directory, failed)
        return 1
    finally:
        stack.stop()


def start(config: StackConfig, report: Report = say) -> tuple[StackAddress, bool]:
    """Start a detached stack, or find the healthy one of this directory. Returns its address and whether it is new.

    Downloads happen here, in the foreground, where their progress is seen. StackError when it cannot start, or when the
    running one differs from what was asked.
    """
    running = states.read(config.data_dir)
    if running is not None and running.status != "failed" and running.alive():
        return _existing(config, running), False
    kafka_jars(config.kafka_version, report)
    if config.with_registry:
        registry_home(report)
    config.data_dir.mkdir(parents=True, exist_ok=True)
    log = config.data_dir / SUPERVISOR_LOG
    with log.open("ab") as output:
        before = output.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "agents.embedded", encode(config)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # closing the terminal must not end it
        )
    try:
        ready = _wait_ready(config, child, log, before)
        if ready.pid == child.pid:
            return _address(ready), True
        child.terminate()  # another start was faster; ours waits for the lock
        child.wait()
        return _existing(config, ready), False
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise


def stop(directory: Path, grace_seconds: float) -> bool:
    """Stop the detached stack of this directory: SIGTERM, after the grace SIGKILL. False when none is running.

    Before it signals it makes sure that the pid still belongs to the process that wrote the state.
    """
    current = states.read(directory)
    if current is None or not current.alive():
        return False
    process = psutil.Process(current.pid)  # it refuses to signal when the pid has gone to another process meanwhile
    with suppress(psutil.NoSuchProcess):
        process.terminate()
        if not _wait_gone(current, grace_seconds + STOP_GRACE_MARGIN_SECONDS):
            process.kill()  # the kernel takes its children along
            _wait_gone(current, KILL_TIMEOUT_SECONDS)
            states.remove(directory)
    return True


def status(directory: Path) -> Status:
    """Ask the processes themselves, not only the state file."""
    current = states.read(directory)
    if current is None:
        return Status(health="stopped", detail="nothing was started here, or it was stopped")
    if current.status == "failed":
        return Status(health="failed", detail=current.error[0])
    if not current.alive():
        return Status(health="stopped", detail=f"process {current.pid} is gone without a clean stop")
    if current.status == "starting":
        return Status(health="starting", detail=f"process {current.pid}")
    silent = _silent_parts(current)
    health: Health = "unhealthy" if silent else "running"
    return Status(health=health, detail=f"no answer from {silent}" if silent else "", address=_address(current))


def encode(config: StackConfig) -> str:
    """The configuration as one command line argument, readable in a process list."""
    fields = asdict(config)
    del fields["train_into"]  # a detached stack never trains
    return json.dumps({**fields, "data_dir": str(config.data_dir)})


def decode(text: str) -> StackConfig:
    data: dict[str, Any] = json.loads(text)
    return StackConfig(**{**data, "data_dir": Path(data["data_dir"])})


def _wait_gone(current: State, timeout_seconds: float) -> bool:
    """Not psutil's own wait: that waits for the entry in the process table, which an init that reaps nobody keeps."""
    deadline = time.monotonic() + timeout_seconds
    while current.alive():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _existing(config: StackConfig, running: State) -> StackAddress:
    remedy = f"`curfew dev stop --data-dir {config.data_dir}` first, or choose another --data-dir"
    where = f"{config.data_dir}, process {running.pid}"
    if config.fresh:
        raise StackError("The data cannot be deleted while the stack is running.", where=where, remedy=remedy)
    deadline = time.monotonic() + config.start_timeout_seconds
    current: State | None = running
    while current is not None and current.status == "starting" and current.alive():
        if time.monotonic() > deadline:
            raise StackError("The stack has been starting for too long.", where=where, remedy=remedy)
        time.sleep(POLL_SECONDS)
        current = states.read(config.data_dir)
    if current is None or current.status != "ready" or not current.alive():
        raise StackError("The stack has just ended.", where=where, remedy="run the same command again")
    silent = _silent_parts(current)
    if silent:
        raise StackError(f"The stack is running but there is no answer from {silent}.", where=where, remedy=remedy)
    address = _address(current)
    wanted = f"127.0.0.1:{config.kafka_port}" if config.kafka_port else address.bootstrap_servers
    if (config.kafka_version, wanted) != (address.kafka_version, address.bootstrap_servers):
        raise StackError(
            f"The stack is running with Kafka {address.kafka_version} at {address.bootstrap_servers},"
            f" not with Kafka {config.kafka_version} at {wanted}.",
            where=where,
            remedy=remedy,
        )
    return address


def _wait_ready(config: StackConfig, child: subprocess.Popen[bytes], log: Path, before: int) -> State:
    """The state of the stack that became ready here: the child's or, after a race, that of the faster one."""
    while True:
        current = states.read(config.data_dir)
        if current is not None and current.status == "ready" and current.alive():
            return current
        if child.poll() is not None:
            if current is not None and current.pid != child.pid and current.alive():
                return current
            if current is not None and current.pid == child.pid and current.error:
                what, where, remedy = current.error
                raise StackError(what, where=where, remedy=remedy)
            said = log.read_bytes()[before:].decode("utf-8", "replace").strip()
            raise StackError(
                f"The supervisor ended with code {child.returncode}: {said or 'it said nothing'}",
                where=str(log),
                remedy=f"read the logs in {config.data_dir}",
            )
        time.sleep(POLL_SECONDS)


def _silent_parts(current: State) -> str:
    """Names of the parts that do not answer, empty when all is well."""
    directory = Path(current.data_dir)
    silent = []
    kafka_port = int(current.bootstrap_servers.rpartition(":")[2])
    if not Broker(directory, current.kafka_version, ()).answers(kafka_port, HEALTH_TIMEOUT_SECONDS):
        silent.append("Kafka")
    if current.schema_registry_url:
        registry_port = int(current.schema_registry_url.split("/")[2].rpartition(":")[2])
        if not Registry(directory, directory).answers(registry_port, HEALTH_TIMEOUT_SECONDS):
            silent.append("the registry")
    return " and ".join(silent)


def _ready(starting: State, address: StackAddress, child_pids: tuple[int, ...]) -> State:
    return replace(
        starting,
        status="ready",
        bootstrap_servers=address.bootstrap_servers,
        schema_registry_url=address.schema_registry_url,
        started_at=address.started_at.astimezone(UTC).isoformat(timespec="seconds"),
        child_pids=child_pids,
    )


def _address(current: State) -> StackAddress:
    return StackAddress(
        bootstrap_servers=current.bootstrap_servers,
        schema_registry_url=current.schema_registry_url,
        pid=current.pid,
        data_dir=Path(current.data_dir),
        kafka_version=current.kafka_version,
        started_at=datetime.fromisoformat(current.started_at),
    )
