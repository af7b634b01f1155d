"""What would become of plan changes: the real hooks and the real core logic, and nothing is recorded or sent.

Hooks are called with ``dry_run=True`` in their context. The ids of their commands are not those of the real commands:
a hook that remembers what it has done by ``command_id`` must not find its real work done already.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from time import perf_counter

from agents.plan_changes.steps import CONCURRENT_HOOKS, HookCall, Steps, recordable
from streams.core import ids
from streams.core.hooks import HookRegistry
from streams.core.outcome import Outcome
from streams.core.plan_change.machine import Change, State
from streams.core.plan_change.messages import CommandStep, ExecuteCommand, ExecutionResult, ExecutionVerdict
from streams.core.plan_change.projection import Waiting
from streams.core.plan_change.told import command

# Changes under way at one time: enough that no slot for hooks stays empty, few enough to hold in memory.
_AT_ONE_TIME = 2 * CONCURRENT_HOOKS

_ALL = (CommandStep.START, CommandStep.EXECUTE, CommandStep.POST)
_FROM = {step: _ALL[number:] for number, step in enumerate(_ALL)}
_AHEAD = {
    State.PENDING: _ALL,
    State.HELD: _ALL,  # a person may let it finish late or roll it: it starts over
    State.STARTED: _FROM[CommandStep.EXECUTE],
    State.EXECUTED: _FROM[CommandStep.POST],
    State.PERSISTED: _FROM[CommandStep.POST],
}
#: Commands without which a change in this state stays where it is, whatever its hooks would say.
WAITS_FOR = {State.HELD: "resolve", State.FAILED: "retry or resolve"}
_GOOD = (ExecutionVerdict.SEALED, ExecutionVerdict.PROCEEDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEnd:
    """How one step would end."""

    step: CommandStep
    verdict: ExecutionVerdict
    reason: str | None
    retryable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What would become of ``change``.

    ``reasons``: why it would fail, none if it would not. ``outcome`` is there unless a hook stopped the change before
    it; with ``violations`` it would not be sealed. ``seconds`` of the machine's clock went by, with what ran beside it.
    """

    change: Change
    steps: tuple[StepEnd, ...]
    calls: tuple[HookCall, ...]
    outcome: Outcome | None
    violations: tuple[str, ...]
    seconds: float

    @property
    def waits_for(self) -> str | None:
        """What a person has to say before anything of this happens; None where it goes on by itself."""
        return WAITS_FOR.get(self.change.state)

    @property
    def hook_seconds(self) -> float:
        """The time of all hooks together."""
        return sum(call.seconds for call in self.calls)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Codes; see ``agents.plan_changes.reasons``."""
        return tuple(end.reason or end.verdict.value for end in self.steps if end.verdict not in _GOOD)


def steps_ahead(change: Change, *, order: bool = False) -> tuple[CommandStep, ...]:
    """The steps that the change still has to take, from the failed one on if one failed; none once it is completed."""
    if order:
        return (CommandStep.ORDER, *_ALL)
    if change.state is State.FAILED:
        return _ALL if change.failed_in is None else _FROM.get(change.failed_in, _ALL)
    return _AHEAD.get(change.state, ())


def needs_store(change: Change) -> bool:
    """Whether the billing store has still to take an outcome of it."""
    return change.state is State.EXECUTED or CommandStep.EXECUTE in steps_ahead(change)


class DryRuns:
    """Runs changes through the hooks of ``registry``."""

    def __init__(self, registry: HookRegistry) -> None:
        self._steps = Steps(registry, dry_run=True)

    async def run(self, change: Change, now: datetime, *, order: bool = False) -> DryRun:
        """One change from where it is to its end, or to the step that would stop it; ``order``: from its order on."""
        ends: list[StepEnd] = []
        calls: list[HookCall] = []
        outcome: Outcome | None = None
        violations: tuple[str, ...] = ()
        seconds = 0.0
        for step in steps_ahead(change, order=order):
            began = perf_counter()
            run = await self._steps.run(_of_a_dry_run(command(change, step, now).command), now, calls.append)
            result, _ = recordable(run.result)
            seconds += perf_counter() - began
            ends.append(_end(result))
            if step is CommandStep.EXECUTE:
                outcome, violations = run.outcome, run.violations
            if result.verdict not in _GOOD:
                break
            if outcome is not None:
                change = replace(change, to_rate_plan_id=outcome.to_rate_plan_id, to_product_id=outcome.to_product_id)
        return DryRun(
            change=change,
            steps=tuple(ends),
            calls=tuple(calls),
            outcome=outcome,
            violations=violations,
            seconds=seconds,
        )

    async def run_all(self, changes: Iterable[Change], now: datetime, *, order: bool = False) -> AsyncIterator[DryRun]:
        """Many changes side by side, each given as it is done; only a few are held at one time."""
        left = iter(changes)
        under_way = self._begin(left, _AT_ONE_TIME, now, order)
        try:
            while under_way:
                done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for finished in done:
                    yield finished.result()
                under_way |= self._begin(left, len(done), now, order)
        finally:
            for task in under_way:
                task.cancel()

    def _begin(self, left: Iterator[Change], count: int, now: datetime, order: bool) -> set[asyncio.Task[DryRun]]:
        return {asyncio.create_task(self.run(change, now, order=order)) for change in islice(left, count)}


def waiting(change: Change, now: datetime) -> Waiting | None:
    """The work that the change still is for the executors before its deadline; None without one (``closed``)."""
    if change.closed or change.state not in (State.PENDING, State.STARTED):
        return None
    at = change.retry_at or change.release_at
    return Waiting(release_at=now if change.awaiting is CommandStep.EXECUTE else at, deadline_at=change.deadline_at)


def _of_a_dry_run(real: ExecuteCommand) -> ExecuteCommand:
    return replace(real, command_id=ids.derive("dry-run", real.command_id))


def _end(result: ExecutionResult) -> StepEnd:
    return StepEnd(step=result.step, verdict=result.verdict, reason=result.reason, retryable=result.retryable)
