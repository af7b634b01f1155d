"""The executor: runs hooks and core logic of one command, seals the outcome, and answers every command once.

It holds no state but its last result per service and step: a command that comes again gets the recorded result, so that
hooks are not called twice for one attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Protocol, TypeVar, assert_never

import msgspec
import structlog

from agents import hooks
from streams.codec import Codec
from streams.codec.rows import encode_row, row_decoder
from streams.core.errors import Poison
from streams.core.execute import adjust_draft, adjust_outcome, conclude, draft_of, violations
from streams.core.hooks import (
    Abort,
    Adjust,
    FailurePolicy,
    Hook,
    Hookpoint,
    HookRegistry,
    Patch,
    Proceed,
    WorkflowContext,
)
from streams.core.messages import CommandStep, ExecuteCommand, ExecutionResult, ExecutionVerdict
from streams.core.outcome import Outcome, seal
from streams.kafka.chunks import Batch
from streams.kafka.runtime import Runtime

COMMANDS = "plan-change.commands"
OUTCOMES = "plan-change.outcomes"

# Hooks running at one time in a worker. Unbounded, a chunk of 500 slow hooks would open 500 connections to whatever
# they call.
CONCURRENT_HOOKS = 32

_SINGLE_STEPS = {
    CommandStep.ORDER: Hookpoint.ORDER,
    CommandStep.START: Hookpoint.START,
    CommandStep.POST: Hookpoint.POST,
}

log = structlog.get_logger(__name__)
#: Row and record of a result have to fit into Kafka's 1 MiB; a hook that adds ten thousand tasks fails its own change.
MAX_RESULT_BYTES = 400_000

T = TypeVar("T")


class Ports(Protocol):
    """What this agent needs of the outside."""

    @property
    def codec(self) -> Codec: ...

    @property
    def hooks(self) -> HookRegistry: ...


class HookStoppedError(Exception):
    """A hook said no or broke, and its policy does not let the step go on."""

    def __init__(self, verdict: ExecutionVerdict, reason: str, *, retryable: bool = False) -> None:
        super().__init__(reason)
        self.verdict = verdict
        self.reason = reason
        self.retryable = retryable


def attach(runtime: Runtime, ports: Ports) -> None:
    """Register the executor with the execution app's ``runtime``."""
    runtime.agent("commands", topics=[COMMANDS], handler=Execution(ports).commands)


class Execution:
    """The handler."""

    def __init__(self, ports: Ports) -> None:
        self._hooks = ports.hooks
        self._decode = ports.codec.decoder(ExecuteCommand)
        self._encode = ports.codec.encoder(OUTCOMES, ExecutionResult)
        self._recorded = row_decoder(ExecutionResult)
        self._slots = asyncio.Semaphore(CONCURRENT_HOOKS)

    async def commands(self, batch: Batch) -> None:
        """Execute the commands of a chunk side by side; results leave in the order of the commands."""
        work: dict[str, ExecuteCommand] = {}
        for record in batch.records:
            try:
                command = self._decode(record.value)
                if record.key != command.service_id.encode():
                    raise Poison("wrong_key", f"the key is {record.key!r}, it must be {command.service_id!r}")
                work.setdefault(command.command_id, command)
            except Poison as error:
                batch.dead_letter(record, error)
        results = await asyncio.gather(*(self._once(batch, command) for command in work.values()))
        for result in results:
            batch.emit(OUTCOMES, key=result.service_id, value=self._encode(result))

    async def _once(self, batch: Batch, command: ExecuteCommand) -> ExecutionResult:
        """The recorded result of this command, or a new one, recorded."""
        key = f"result/{command.service_id}/{command.step}".encode()
        known = batch.rows.get(key)
        if known is not None:
            recorded = self._recorded(known)
            if recorded.command_id == command.command_id:
                return recorded
        result = await self._execute(command, batch.now or command.sent_at)
        row = encode_row(result)
        if len(row) > MAX_RESULT_BYTES:
            result = replace(
                result, verdict=ExecutionVerdict.FAILED, reason="outcome_too_large", sealed=None, retryable=False
            )
            row = encode_row(result)
        batch.rows.put(key, row)
        return result

    async def _execute(self, command: ExecuteCommand, now: datetime) -> ExecutionResult:
        result = ExecutionResult(
            command_id=command.command_id,
            step=command.step,
            attempt=command.attempt,
            change_id=command.change_id,
            revision=command.revision,
            account_id=command.account_id,
            service_id=command.service_id,
            verdict=ExecutionVerdict.PROCEEDED,
            reason=None,
            retryable=False,
            sealed=None,
            finished_at=now,
        )
        try:
            if command.step is not CommandStep.EXECUTE:
                await self._run(_SINGLE_STEPS[command.step], command, None, _unchanged)
                return result
            outcome = await self._outcome(command)
            broken = violations(command, outcome)
            sealed = None if broken else seal(_typed(outcome))
        except HookStoppedError as stopped:
            return replace(result, verdict=stopped.verdict, reason=stopped.reason, retryable=stopped.retryable)
        except Exception as error:  # a hook's patch with values of other types: its change must not stop all others
            broken, sealed = (f"{type(error).__name__}: {error}",), None
        if sealed is None:
            log.error("execution.invariant_broken", change=command.change_id, service=command.service_id, broken=broken)
            return replace(result, verdict=ExecutionVerdict.FAILED, reason="invariant:" + ",".join(broken))
        return replace(result, verdict=ExecutionVerdict.SEALED, sealed=sealed)

    async def _outcome(self, command: ExecuteCommand) -> Outcome:
        draft = await self._run(Hookpoint.PRIOR, command, draft_of(command), adjust_draft)
        outcome = conclude(command, draft)
        return await self._run(
            Hookpoint.AFTER, command, outcome, lambda found, patch: adjust_outcome(command, found, patch)
        )

    async def _run(self, point: Hookpoint, command: ExecuteCommand, value: T, adjust: Callable[[T, Patch], T]) -> T:
        """Pass ``value`` through the hooks of ``point``. Raises HookStoppedError."""
        notes: dict[str, str] = {}
        for hook in self._hooks.at(point, command.element_key):
            shared = dict(notes)  # a hook that was given up may still write: not into what the next ones see
            outcome = value if isinstance(value, Outcome) else None
            context = WorkflowContext(hookpoint=point, command=command, outcome=outcome, notes=shared)
            try:
                async with self._slots:
                    verdict = await hooks.call(hook, context)
            except Exception as error:
                _by_policy(hook, command, error)
                continue
            notes = shared
            match verdict:
                case Proceed():
                    pass
                case Adjust(patch=patch):
                    value = adjust(value, patch)
                case Abort(reason=reason):
                    raise HookStoppedError(ExecutionVerdict.ABORTED, reason)
                case _:
                    assert_never(verdict)
        return value


def _by_policy(hook: Hook, command: ExecuteCommand, error: Exception) -> None:
    """Return to go on without the hook. Raises HookStoppedError otherwise."""
    late = isinstance(error, TimeoutError)
    reason = f"hook_timeout:{hook.name}" if late else f"hook_failed:{hook.name}"
    log.warning(
        "execution.hook_failed", hook=hook.name, policy=hook.on_failure.value, change=command.change_id,
        error=f"used up its {hook.budget_seconds} s" if late else f"{type(error).__name__}: {error}",
    )  # fmt: skip
    match hook.on_failure:
        case FailurePolicy.SKIP:
            return
        case FailurePolicy.ABORT:
            raise HookStoppedError(ExecutionVerdict.FAILED, reason)
        case FailurePolicy.RETRY:
            raise HookStoppedError(ExecutionVerdict.FAILED, reason, retryable=True)
        case _:
            assert_never(hook.on_failure)


def _typed(outcome: Outcome) -> Outcome:
    """``outcome`` if every value in it is of its declared type. Raises msgspec.ValidationError or TypeError."""
    return msgspec.convert(msgspec.to_builtins(outcome), Outcome)


def _unchanged(value: None, patch: Patch) -> None:
    """ORDER, START and POST have nothing to alter: a patch there is ignored."""
