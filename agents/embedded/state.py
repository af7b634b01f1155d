"""The state file of a detached stack: who runs it, where it is, and whether that process still exists."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil  # type: ignore[import-untyped,unused-ignore]

STATE_NAME = "state.json"

# psutil derives the start time from the boot time, which moves a little when the system clock is corrected.
START_TIME_TOLERANCE_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One supervisor process. `process_started` (seconds since the epoch) and `command` tell it from a later process
    that got the same pid."""

    status: Literal["starting", "ready", "failed"]
    pid: int
    process_started: float
    command: tuple[str, ...]
    data_dir: str
    kafka_version: str
    bootstrap_servers: str = ""
    schema_registry_url: str = ""
    started_at: str = ""
    child_pids: tuple[int, ...] = ()
    error: tuple[str, ...] = ()  # what, where, remedy of the StackError that ended it

    def alive(self) -> bool:
        """Whether the very process that wrote this state exists."""
        try:
            process = psutil.Process(self.pid)
            return (
                process.status() != psutil.STATUS_ZOMBIE
                and abs(process.create_time() - self.process_started) <= START_TIME_TOLERANCE_SECONDS
                and tuple(process.cmdline()) == self.command
            )
        except psutil.NoSuchProcess:
            return False


def of_this_process(*, data_dir: Path, kafka_version: str) -> State:
    me = psutil.Process()
    return State(
        status="starting",
        pid=me.pid,
        process_started=me.create_time(),
        command=tuple(me.cmdline()),
        data_dir=str(data_dir),
        kafka_version=kafka_version,
    )


def write(directory: Path, state: State) -> None:
    """Replace the state at once, so that a reader never sees half of it."""
    scratch = directory / f".{STATE_NAME}.tmp"
    scratch.write_text(json.dumps(asdict(state), indent=2) + "\n", "utf-8")
    os.replace(scratch, directory / STATE_NAME)


def read(directory: Path) -> State | None:
    """The last state written in this directory; None when there is none or another version of Curfew wrote it."""
    try:
        data = json.loads(directory.joinpath(STATE_NAME).read_text("utf-8"))
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        return State(**fields)
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, AttributeError):
        return None


def remove(directory: Path) -> None:
    directory.joinpath(STATE_NAME).unlink(missing_ok=True)
