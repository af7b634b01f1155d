"""Runs one step of a change: its hooks in order, and the core logic between them. Decides, and keeps nothing.

The executor records and sends what comes of it, a dry run shows it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeVar, assert_never

import msgspec
import structlog

from agents.plan_changes import hooks
from streams.codec.rows import encode_row
from streams.core.hooks import (
    Abort,
    Adjust,
    FailurePolicy,
    Hook,
    Hookpoint,
    HookRegistry,
    Patch,
    Proceed,
    Verdict,
    WorkflowContext,
)
from streams.core.outcome import Outcome, seal
from streams.core.plan_change.execute import adjust_draft, adjust_outcome, conclude, draft_of, violations
from streams.core.plan_change.messages import CommandStep, ExecuteCommand, ExecutionResult, ExecutionVerdict

# Hooks running at one time in a worker. Unbounded, a chunk of 500 slow hooks would open 500 connections to whatever
# they call.
CONCURRENT_HOOKS = 32

#: Row and record of a result have to fit into Kafka's 1 MiB; a hook that adds ten thousand tasks fails its own change.
MAX_RESULT_BYTES = 400_000

_SINGLE_STEPS = {
    CommandStep.ORDER: Hookpoint.ORDER,
    CommandStep.START: Hookpoint.START,
    CommandStep.POST: Hookpoint.POST,
}

log = structlog.get_logger(__name__)

T = TypeVar("T")


class HookEnd(StrEnum):
    """How the call of a hook ended."""

    PROCEED = "proceed"
    ADJUST = "adjust"
    ABORT = "abort"
    FAILED = "failed"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True, kw_only=True)
class HookCall:
    """One call: ``detail`` is the reason of an abort or the error, ``seconds`` are the machine's clock's."""

    hook: Hook
    point: Hookpoint
    end: HookEnd
    detail: str | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRun:
    """The result of a step; ``outcome`` is there even where it breaks invariants, those in ``violations``."""

    result: ExecutionResult
    outcome: Outcome | None = None
    violations: tuple[str, ...] = ()


class HookStoppedError(Exception):
    """A hook said no or broke, and its policy does not let the step go on."""

    def __init__(self, verdict: ExecutionVerdict, reason: str, *, retryable: bool = False) -> None:
        super().__init__(reason)
        self.verdict = verdict
        self.reason = reason
        self.retryable = retryable


class Steps:
    """Runs steps side by side, with at most :data:`CONCURRENT_HOOKS` hooks at one time."""

    def __init__(self, registry: HookRegistry, *, dry_run: bool = False) -> None:
        self._hooks = registry
        self._dry_run = dry_run
        self._slots = asyncio.Semaphore(CONCURRENT_HOOKS)

    def has_hooks(self, command: ExecuteCommand) -> bool:
        """Whether this step of the change calls any hook."""
        points = (
            (Hookpoint.PRIOR, Hookpoint.AFTER)
            if command.step is CommandStep.EXECUTE
            else (_SINGLE_STEPS[command.step],)
        )
        return any(self._hooks.at(point, command.element_key) for point in points)

    async def run(
        self, command: ExecuteCommand, now: datetime, on_call: Callable[[HookCall], None] = lambda call: None
    ) -> StepRun:
        """Run the step of ``command``; ``on_call`` hears of each hook that was called.

        Never raises because of a hook. In a dry run nothing is logged: the caller shows what happened.
        """
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
        outcome: Outcome | None = None
        try:
            if command.step is not CommandStep.EXECUTE:
                await self._through(_SINGLE_STEPS[command.step], command, None, _unchanged, on_call)
                return StepRun(result=result)
            outcome = await self._outcome(command, on_call)
            broken = violations(command, outcome)
            sealed = None if broken else seal(_typed(outcome))
        except HookStoppedError as stopped:
            ended = replace(result, verdict=stopped.verdict, reason=stopped.reason, retryable=stopped.retryable)
            return StepRun(result=ended)
        except Exception as error:  # a hook's patch with values of other types: its change must not stop all others
            broken, sealed, outcome = (f"{type(error).__name__}: {error}",), None, None
        if sealed is None:
            self._complain("execution.invariant_broken", command, broken=broken)
            ended = replace(result, verdict=ExecutionVerdict.FAILED, reason="invariant:" + ",".join(broken))
            return StepRun(result=ended, outcome=outcome, violations=broken)
        return StepRun(result=replace(result, verdict=ExecutionVerdict.SEALED, sealed=sealed), outcome=outcome)

    async def _outcome(self, command: ExecuteCommand, on_call: Callable[[HookCall], None]) -> Outcome:
        draft = await self._through(Hookpoint.PRIOR, command, draft_of(command), adjust_draft, on_call)
        outcome = conclude(command, draft)
        return await self._through(
            Hookpoint.AFTER, command, outcome, lambda found, patch: adjust_outcome(command, found, patch), on_call
        )

    async def _through(
        self,
        point: Hookpoint,
        command: ExecuteCommand,
        value: T,
        adjust: Callable[[T, Patch], T],
        on_call: Callable[[HookCall], None],
    ) -> T:
        """Pass ``value`` through the hooks of ``point``. Raises HookStoppedError."""
        notes: dict[str, str] = {}
        for hook in self._hooks.at(point, command.element_key):
            shared = dict(notes)  # a hook that was given up may still write: not into what the next ones see
            outcome = value if isinstance(value, Outcome) else None
            context = WorkflowContext(
                hookpoint=point, command=command, outcome=outcome, notes=shared, dry_run=self._dry_run
            )
            try:
                verdict = await self._called(hook, context, on_call)
            except Exception as error:
                late = isinstance(error, hooks.OverBudgetError)
                told = str(error) if late else f"{type(error).__name__}: {error}"
                self._complain(
                    "execution.hook_failed", command, hook=hook.name, policy=hook.on_failure.value, error=told
                )
                _by_policy(hook, f"hook_timeout:{hook.name}" if late else f"hook_failed:{hook.name}")
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

    async def _called(self, hook: Hook, context: WorkflowContext, on_call: Callable[[HookCall], None]) -> Verdict:
        """The hook's verdict. Raises hooks.OverBudgetError, and whatever the hook raises."""
        async with self._slots:
            began = time.perf_counter()

            def tell(end: HookEnd, detail: str | None) -> None:
                seconds = time.perf_counter() - began
                on_call(HookCall(hook=hook, point=context.hookpoint, end=end, detail=detail, seconds=seconds))

            try:
                verdict = await hooks.call(hook, context)
            except hooks.OverBudgetError as error:
                tell(HookEnd.TIMEOUT, str(error))
                raise
            except Exception as error:
                tell(HookEnd.FAILED, f"{type(error).__name__}: {error}")
                raise
            match verdict:
                case Proceed():
                    tell(HookEnd.PROCEED, None)
                case Adjust():
                    tell(HookEnd.ADJUST, None)
                case Abort(reason=reason):
                    tell(HookEnd.ABORT, reason)
            return verdict

    def _complain(self, event: str, command: ExecuteCommand, **facts: object) -> None:
        if not self._dry_run:
            log.warning(event, change=command.change_id, service=command.service_id, **facts)


def recordable(result: ExecutionResult) -> tuple[ExecutionResult, bytes]:
    """``result`` and its row; one that is too large has failed, with the row that says so."""
    row = encode_row(result)
    if len(row) <= MAX_RESULT_BYTES:
        return result, row
    failed = replace(result, verdict=ExecutionVerdict.FAILED, reason="outcome_too_large", sealed=None, retryable=False)
    return failed, encode_row(failed)


def _by_policy(hook: Hook, reason: str) -> None:
    """Return to go on without the hook. Raises HookStoppedError otherwise."""
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
