"""The executor: has the step of each command run (:mod:`agents.plan_changes.steps`), and answers every command once.

It holds no state but its last result per service and step: a command that comes again gets the recorded result, so that
hooks are not called twice for one attempt.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from agents.plan_changes.steps import Steps, recordable
from streams.codec import Codec
from streams.codec.rows import row_decoder
from streams.core.errors import Poison
from streams.core.hooks import HookRegistry
from streams.core.plan_change.messages import ExecuteCommand, ExecutionResult
from streams.kafka.chunks import Batch
from streams.kafka.runtime import Runtime
from streams.topics import COMMANDS, OUTCOMES
from streams.tracing import traced


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
        self._decode = ports.codec.decoder(ExecuteCommand)
        self._encode = ports.codec.encoder(OUTCOMES, ExecutionResult)
        self._recorded = row_decoder(ExecutionResult)

    async def commands(self, batch: Batch) -> None:
        """Execute the commands of a chunk side by side; results leave in the order of the commands."""
        work: dict[str, tuple[ExecuteCommand, str | None]] = {}
        for record in batch.records:
            try:
                command = self._decode(record.value)
                if record.key != command.service_id.encode():
                    raise Poison("wrong_key", f"the key is {record.key!r}, it must be {command.service_id!r}")
                work.setdefault(command.command_id, (command, batch.trace_of(record)))
            except Poison as error:
                batch.dead_letter(record, error)
        results = await asyncio.gather(*(self._once(batch, command, trace) for command, trace in work.values()))
        for result, trace in results:
            batch.emit(OUTCOMES, key=result.service_id, value=self._encode(result), headers=traced(None, trace))

    async def _once(
        self, batch: Batch, command: ExecuteCommand, trace: str | None
    ) -> tuple[ExecutionResult, str | None]:
        """The recorded result of this command, or a new one, recorded; and the trace that it belongs to."""
        key = f"result/{command.service_id}/{command.step}".encode()
        known = batch.rows.get(key)
        if known is not None:
            recorded = self._recorded(known)
            if recorded.command_id == command.command_id:
                return recorded, trace
        about = {"curfew.change_id": command.change_id, "curfew.service_id": command.service_id}
        with batch.tracer.span(f"run {command.step}", parent=trace, attributes=about) as own:
            run = await self._steps.run(command, batch.now or command.sent_at)
        result, row = recordable(run.result)
        batch.rows.put(key, row)
        return result, own
