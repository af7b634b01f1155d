"""What `curfew doctor` finds, and how its checks run: all at once, each for so long only, whatever hangs.

A check is a function that yields :class:`Finding`; what it raises is a finding too. It may need a part (Kafka, the
registry) that a check before it has found to be down: then it is not run, and says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from streams.core.errors import CurfewError, Misconfigured
from streams.settings import Settings

#: A look at everything takes a second or two; a broker that accepts connections and never answers would take minutes.
TIMEOUT_S: Final = 20.0


class Status(StrEnum):
    """``note``: worth knowing, nothing to repair. ``down``: nobody can say, because the part did not answer."""

    OK = "ok"
    NOTE = "note"
    FAULT = "fault"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report; ``remedy`` is what to do, empty where there is nothing to do."""

    check: str
    status: Status
    finding: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """``look`` yields findings; ``needs`` names the check that has to be well before."""

    name: str
    look: Callable[[Settings], Iterable[Finding]]
    needs: str | None = None


def examine(checks: Sequence[Check], settings: Settings, *, timeout_s: float = TIMEOUT_S) -> list[Finding]:
    """The findings of all checks in their order, after ``timeout_s`` at the latest for each of the two rounds."""
    first = _round([one for one in checks if one.needs is None], settings, timeout_s)
    down = {name for name, found in first.items() if any(one.status is Status.DOWN for one in found)}
    second = _round([one for one in checks if one.needs is not None and one.needs not in down], settings, timeout_s)
    done = first | second
    return [finding for check in checks for finding in done.get(check.name, [_not_looked_at(check)])]


def _not_looked_at(check: Check) -> Finding:
    return Finding(check=check.name, status=Status.DOWN, finding=f"not looked at, because of {check.needs} above")


def _round(checks: Sequence[Check], settings: Settings, timeout_s: float) -> dict[str, list[Finding]]:
    """Threads and not a pool: Python waits for a pool's threads at its end, also for one that hangs."""
    found: dict[str, list[Finding]] = {}

    def look(check: Check) -> None:
        found[check.name] = _look(check, settings)

    threads = [threading.Thread(target=look, args=(check,), daemon=True) for check in checks]
    for thread in threads:
        thread.start()
    end = time.monotonic() + timeout_s
    for check, thread in zip(checks, threads, strict=True):
        thread.join(max(0.0, end - time.monotonic()))
        if check.name not in found:
            found[check.name] = [
                Finding(
                    check=check.name,
                    status=Status.DOWN,
                    finding=f"no answer within {timeout_s:g} s",
                    remedy="look at its machine, its load and the network; or give it longer: --timeout",
                )
            ]
    return dict(found)


def _look(check: Check, settings: Settings) -> list[Finding]:
    try:
        found = list(check.look(settings))
    except Misconfigured as error:
        return [Finding(check=check.name, status=Status.FAULT, finding=str(error))]
    except CurfewError as error:  # says itself what to do
        return [Finding(check=check.name, status=Status.DOWN, finding=str(error))]
    except Exception as error:
        from agents.problems import explain

        return [Finding(check=check.name, status=Status.DOWN, finding=explain(error).removeprefix("error: "))]
    return found
