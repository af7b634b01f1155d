"""The executor: has the step of each command run (:mod:`agents.plan_changes.steps`), and answers every command once.

It holds no state but its last result per service and step: a command that comes again gets the recorded result, so that
hooks are not called twice for one attempt. Hooks may be slow and a chunk has hundreds of commands, so results are
recorded while others are under way, and a worker that lets go of a partition finishes only what it has begun of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import nullcontext
from typing import Protocol

from agents.plan_changes.steps import CONCURRENT_HOOKS, Steps, recordable
from streams.codec import Codec
from streams.codec.rows import row_decoder
from streams.core.errors import Poison
from streams.core.hooks import HookRegistry
from streams.core.plan_change.messages import ExecuteCommand, ExecutionResult
from streams.kafka.chunks import Batch, Record
from streams.kafka.lanes import Abandoned
from streams.kafka.runtime import Runtime
from streams.topics import COMMANDS, OUTCOMES
from streams.tracing import traced

#: What has ended is recorded so often while others of its chunk are under way; each time costs two round trips.
RECORD_EVERY_S = 0.5


class Ports(Protocol):
    """What this agent needs of the outside."""

    @property
    def codec(self) -> Codec: ...

    @property
    def hooks(self) -> HookRegistry: ...


def attach(runtime: Runtime, ports: Ports) -> None:
    """Register the executor with the execution app's ``runtime``."""
    runtime.agent("commands", topics=[COMMANDS], handler=Execution(ports).commands)


class Execution:
    """The handler."""

    def __init__(self, ports: Ports) -> None:
        self._steps = Steps(ports.hooks)
        #: For commands with hooks, of all partitions of the worker: those without one would wait here for nothing.
        self._slots = asyncio.Semaphore(CONCURRENT_HOOKS)
        self._decode = ports.codec.decoder(ExecuteCommand)
        self._encode = ports.codec.encoder(OUTCOMES, ExecutionResult)
        self._recorded = row_decoder(ExecutionResult)

    async def commands(self, batch: Batch) -> AsyncGenerator[None, None]:
        """Execute the commands of a chunk side by side. Raises Abandoned when the lane closes before all have begun."""
        work: dict[str, tuple[ExecuteCommand, str | None]] = {}
        refused: list[tuple[Record, Poison]] = []
        for record in batch.records:
            try:
                command = self._decode(record.value)
                if record.key != command.service_id.encode():
                    raise Poison("wrong_key", f"the key is {record.key!r}, it must be {command.service_id!r}")
                work.setdefault(command.command_id, (command, batch.trace_of(record)))
            except Poison as error:
                refused.append((record, error))
        given_up, abandoned = asyncio.Event(), False

        def leaves() -> bool:
            return given_up.is_set() or batch.closing()

        running = [asyncio.ensure_future(self._once(batch, command, trace, leaves)) for command, trace in work.values()]
        try:
            while running:
                await asyncio.wait(running, timeout=RECORD_EVERY_S)
                # Here alone something is put into the batch: while it is made durable it must stay as it is.
                ended, running = [one for one in running if one.done()], [one for one in running if not one.done()]
                for one in ended:
                    done = one.result()
                    if done is None:
                        abandoned = True
                        continue
                    result, row, trace = done
                    if row is not None:
                        batch.rows.put(_key(result), row)
                    value = self._encode(result)
                    batch.emit(OUTCOMES, key=result.service_id, value=value, headers=traced(None, trace))
                if ended and (running or abandoned):
                    yield
        finally:  # hooks that are under way end before the chunk is decided again, which would call them beside that
            given_up.set()
            await asyncio.gather(*running, return_exceptions=True)
        if abandoned:
            raise Abandoned
        for record, reason in refused:  # last: what is put aside before, the next owner would put aside once more
            batch.dead_letter(record, reason)

    async def _once(
        self, batch: Batch, command: ExecuteCommand, trace: str | None, leaves: Callable[[], bool]
    ) -> tuple[ExecutionResult, bytes | None, str | None] | None:
        """The recorded result of this command, or a new one and its row; and the trace that it belongs to. None when
        the worker leaves before the command has begun."""
        known = batch.rows.get(_key(command))
        if known is not None:
            recorded = self._recorded(known)
            if recorded.command_id == command.command_id:
                return recorded, None, trace
        async with self._slots if self._steps.has_hooks(command) else nullcontext():
            if leaves():
                return None
            about = {"curfew.change_id": command.change_id, "curfew.service_id": command.service_id}
            with batch.tracer.span(f"run {command.step}", parent=trace, attributes=about) as own:
                run = await self._steps.run(command, batch.now or command.sent_at)
        result, row = recordable(run.result)
        return result, row, own


def _key(of: ExecuteCommand | ExecutionResult) -> bytes:
    return f"result/{of.service_id}/{of.step}".encode()
