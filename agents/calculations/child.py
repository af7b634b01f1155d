"""One process that calculates, started by :mod:`agents.calculations.pool`; it ends with its parent.

Requests come on standard input and answers go out where standard output was, each a pickle behind its length; what the
functions print goes to standard error, as it must not be taken for an answer.
"""

from __future__ import annotations

import os
import pickle
import resource
import sys
from pathlib import Path
from typing import Any, BinaryIO

from agents.calculations.declarations import resolve
from streams.core.calculations import Calculation, WrongType, checked
from streams.core.errors import CurfewError

MIB = 2**20
LENGTH = 4
#: The first message: whether this process has come up.
HELLO = "hello"


def main(declarations: list[str]) -> int:
    """Until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    try:
        known = {one.name: one for declaration in declarations for one in resolve(declaration)}
    except CurfewError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    base = _data_bytes()
    while (request := read(sys.stdin.buffer)) is not None:
        if request == HELLO:
            write(answers, ("ok", None))
            continue
        name, event = request
        write(answers, _answer(known[name], event, base))
    return 0


def _answer(calculation: Calculation, event: Any, base: int) -> tuple[str, Any]:
    """("ok", events) or (reason, words for people)."""
    bound = base + calculation.memory_mib * MIB
    resource.setrlimit(resource.RLIMIT_DATA, (bound, resource.RLIM_INFINITY))
    try:
        return "ok", checked(calculation, calculation.function(event, event.parameters))
    except WrongType as error:
        return "calculation_wrong_type", str(error)
    except MemoryError:
        return "calculation_memory", f"it needs more than {calculation.memory_mib} MiB"
    except Exception as error:
        return "calculation_failed", f"{type(error).__name__}: {error}"
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _data_bytes() -> int:
    """What this process has of the memory that RLIMIT_DATA bounds; 0 where the kernel does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[5])
    except (OSError, IndexError, ValueError):
        return 256 * MIB
    return pages * os.sysconf("SC_PAGE_SIZE")


def read(stream: BinaryIO) -> Any:
    """The next message, or None at the end."""
    head = stream.read(LENGTH)
    return None if len(head) < LENGTH else pickle.loads(stream.read(int.from_bytes(head)))


def write(stream: Any, message: Any) -> None:
    """A message with its length in front."""
    body = pickle.dumps(message)
    stream.write(len(body).to_bytes(LENGTH) + body)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
