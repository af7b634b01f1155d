"""Processes that calculate: one that takes too long, or too much, is killed, and the worker goes on.

A thread cannot be ended, and memory that it takes is the worker's; so every calculation runs in a process.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog

from agents.calculations.child import HELLO, LENGTH
from agents.supervisor import die_with_parent
from streams.core.calculations import Calculation, Emit
from streams.core.events import Event

#: Processes at once; more would take the processor from the worker itself.
DEFAULT_SIZE: Final = 2
#: To start Python and import the user's module, on a busy machine.
START_S: Final = 30.0

log = structlog.get_logger(__name__)


class Failed(Exception):
    """``reason`` is a stable word; ``again`` says that the fault is not the event's and it can be tried again."""

    def __init__(self, reason: str, detail: str, *, again: bool = False) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.again = reason, detail, again


class Busy(Exception):
    """All processes are at work for longer than the caller wants to wait."""


class CalculationPool:
    """Belongs to one event loop; processes are started when they are needed, and kept."""

    def __init__(
        self, declared: Sequence[str], calculations: Mapping[str, Calculation], *, size: int = DEFAULT_SIZE
    ) -> None:
        self.calculations = calculations
        self._declared = tuple(declared)
        self._idle: list[asyncio.subprocess.Process] = []
        self._slots = asyncio.Semaphore(size)

    async def run(self, name: str, event: Event, *, within_s: float) -> list[Emit]:
        """What the calculation makes of ``event``. Raises :class:`Failed`, or :class:`Busy` after ``within_s``."""
        calculation = self.calculations[name]
        try:
            await asyncio.wait_for(self._slots.acquire(), max(0.0, within_s))
        except TimeoutError:
            raise Busy from None
        try:
            return await self._run(calculation, event)
        finally:
            self._slots.release()

    async def _run(self, calculation: Calculation, event: Event) -> list[Emit]:
        process = self._idle.pop() if self._idle else await self._start()
        budget_s = calculation.budget_s
        try:
            status, answer = await asyncio.wait_for(_exchange(process, (calculation.name, event)), budget_s)
        except TimeoutError:
            await _kill(process)
            raise Failed("calculation_timeout", f"no result within {budget_s:g} s") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            await _kill(process)
            code = process.returncode
            raise Failed("calculation_failed", f"its process ended ({code}); see what it printed") from None
        except BaseException:
            await _kill(process)
            raise
        self._idle.append(process)
        if status != "ok":
            raise Failed(status, answer)
        found: list[Emit] = answer
        return found

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agents.calculations.child", *self._declared,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, preexec_fn=die_with_parent,
        )  # fmt: skip
        log.info("calculations.process", pid=process.pid)
        # A first exchange without a budget: the imports must not count against that of the first event.
        try:
            await asyncio.wait_for(_exchange(process, HELLO), START_S)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            await _kill(process)
            detail = "the process of the calculations does not start; see the worker's log"
            raise Failed("no_calculation", detail, again=True) from None
        return process

    async def close(self) -> None:
        """End all processes that are idle; those at work end with this one."""
        idle, self._idle = self._idle, []
        for process in idle:
            await _kill(process)


async def _exchange(process: asyncio.subprocess.Process, message: Any) -> tuple[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    body = pickle.dumps(message)
    process.stdin.write(len(body).to_bytes(LENGTH) + body)
    await process.stdin.drain()
    length = int.from_bytes(await process.stdout.readexactly(LENGTH))
    answer: tuple[str, Any] = pickle.loads(await process.stdout.readexactly(length))
    return answer


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
