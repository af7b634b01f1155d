"""Dry runs: what the real run would do, told beforehand, with nothing left behind."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from agents.plan_changes.dry_run import DryRun, DryRuns, steps_ahead, waiting
from agents.plan_changes.dry_run_summary import Summary
from agents.plan_changes.hooks_examples import HOOKS
from agents.plan_changes.steps import CONCURRENT_HOOKS, HookEnd
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
from streams.core.money import Fee
from streams.core.plan_change.machine import Change, State
from streams.core.plan_change.messages import CommandStep, ExecuteCommand, ExecutionResult, ExecutionVerdict
from tests.plan_changes.makers import NOON, START, a_request, pending
from tests.plan_changes.plant import Plant, a_plan, a_service, an_account

CHANGE = pending()


def dry(*hooks: Hook, change: Change = CHANGE, order: bool = False) -> DryRun:
    return asyncio.run(DryRuns(HookRegistry.of(hooks)).run(change, NOON, order=order))


def calling(name: str, key: str, verdict: Verdict, **fields: Any) -> Hook:
    return Hook(name=name, key=key, call=lambda context: verdict, **fields)


def test_the_outcome_is_the_one_that_the_real_run_seals() -> None:
    """Same hooks, same core logic: all but the command's id is the same."""
    fee = Adjust(patch=Patch(fees=(Fee(code="hook", amount=Decimal("1.5"), currency="EUR"),)))
    hooks = (*HOOKS, calling("fee", Hookpoint.PRIOR, fee), calling("start", Hookpoint.START, Proceed()))
    plant = Plant(hooks=hooks)
    plant.knows(an_account(), a_service(), a_plan())
    plant.tick(NOON)
    plant.request(a_request())
    outputs = plant.execute(plant.tick(START))  # the START hook
    outputs += plant.execute(plant.tick(START + timedelta(hours=3)))
    [real] = [
        one.sealed for one in plant.read(plant.execution.sent, "plan-change.outcomes", ExecutionResult) if one.sealed
    ]

    run = dry(*hooks)

    assert run.reasons == ()
    assert run.outcome is not None
    assert replace(run.outcome, command_id="", sealed_at=NOON) == replace(real.outcome, command_id="", sealed_at=NOON)
    assert [fee.code for fee in run.outcome.fees] == ["change", "hook"]


def test_hooks_know_that_it_is_a_dry_run_and_get_another_command_id() -> None:
    """A hook that remembers what it did under the command's id must not find its real work done."""
    seen: list[tuple[bool, str]] = []

    def note(context: WorkflowContext) -> Verdict:
        seen.append((context.dry_run, context.command.command_id))
        return Proceed()

    hook = Hook(name="note", key=Hookpoint.PRIOR, call=note)
    plant = Plant(hooks=(hook,))
    plant.knows(an_account(), a_service(), a_plan())
    plant.tick(NOON)
    plant.request(a_request())
    dry(hook)
    plant.execute(plant.tick(START + timedelta(hours=3)))

    [(dry_first, dry_id), (dry_then, real_id)] = seen
    commands = plant.read(plant.changes.sent, "plan-change.commands", ExecuteCommand)
    assert (dry_first, dry_then) == (True, False)
    assert real_id == commands[0].command_id
    assert dry_id != real_id


def test_verdicts_are_told_by_name_with_their_durations() -> None:
    """In the order of the calls, over all hookpoints that are still ahead."""
    run = dry(
        calling("start", Hookpoint.START, Proceed()),
        calling("prior", Hookpoint.PRIOR, Adjust(patch=Patch(options_added=("tv",)))),
        calling("after", Hookpoint.AFTER, Proceed()),
        calling("post", Hookpoint.POST, Proceed()),
        calling("order", Hookpoint.ORDER, Proceed()),
    )

    assert [(call.hook.name, call.end) for call in run.calls] == [
        ("start", HookEnd.PROCEED), ("prior", HookEnd.ADJUST), ("after", HookEnd.PROCEED), ("post", HookEnd.PROCEED),
    ]  # fmt: skip
    assert all(0 < call.seconds < 5 for call in run.calls)
    assert [end.step for end in run.steps] == [CommandStep.START, CommandStep.EXECUTE, CommandStep.POST]


def test_an_abort_ends_the_dry_run_where_it_would_end_the_change() -> None:
    """With the hook's own reason; later hookpoints are not called."""
    run = dry(calling("no", Hookpoint.START, Abort(reason="unpaid")), calling("late", Hookpoint.PRIOR, Proceed()))

    assert run.reasons == ("unpaid",)
    assert [call.hook.name for call in run.calls] == ["no"]
    assert run.outcome is None


@pytest.mark.parametrize(
    ("policy", "reasons"),
    [
        (FailurePolicy.ABORT, ("hook_failed:down",)),
        (FailurePolicy.RETRY, ("hook_failed:down",)),
        (FailurePolicy.SKIP, ()),
    ],
)
def test_a_broken_hook_fails_the_change_by_its_policy(policy: FailurePolicy, reasons: tuple[str, ...]) -> None:
    """The error is told either way."""

    def down(context: WorkflowContext) -> Verdict:
        raise ConnectionError("the CRM is down")

    run = dry(Hook(name="down", key=Hookpoint.PRIOR, call=down, on_failure=policy))

    assert run.reasons == reasons
    assert (run.calls[0].end, run.calls[0].detail) == (HookEnd.FAILED, "ConnectionError: the CRM is down")
    assert run.steps[1].retryable is (policy is FailurePolicy.RETRY)


def test_a_hook_over_its_budget_would_time_out() -> None:
    """After its budget, not after what it waits for."""
    released = threading.Event()

    def hang(context: WorkflowContext) -> Verdict:
        released.wait(30)
        return Proceed()

    run = dry(Hook(name="slow", key=Hookpoint.PRIOR, call=hang, budget_seconds=0.05))
    released.set()

    assert (run.reasons, run.calls[0].end) == (("hook_timeout:slow",), HookEnd.TIMEOUT)
    assert 0.05 <= run.calls[0].seconds < 10


def test_violations_are_told_with_the_outcome_that_has_them() -> None:
    """Otherwise nobody could see what is wrong with it."""
    run = dry(calling("bad", Hookpoint.AFTER, Adjust(patch=Patch(memberships=()))))

    assert run.violations == ("membership_gap",)
    assert run.reasons == ("invariant:membership_gap",)
    assert run.outcome is not None
    assert run.outcome.memberships == ()


def test_an_outcome_too_large_to_be_recorded_would_fail() -> None:
    """As in the executor, whose record has to fit into Kafka."""
    fees = tuple(Fee(code=f"fee-{number}" + "x" * 100, amount=Decimal(1), currency="EUR") for number in range(4_000))

    run = dry(calling("many", Hookpoint.PRIOR, Adjust(patch=Patch(fees=fees))))

    assert run.reasons == ("outcome_too_large",)


@pytest.mark.parametrize(
    ("state", "failed_in", "steps"),
    [
        (State.PENDING, None, ["start", "execute", "post"]),
        (State.STARTED, None, ["execute", "post"]),
        (State.PERSISTED, None, ["post"]),
        (State.FAILED, CommandStep.EXECUTE, ["execute", "post"]),
        (State.FAILED, CommandStep.POST, ["post"]),
        (State.HELD, None, ["start", "execute", "post"]),
        (State.COMPLETED, None, []),
        (State.CANCELLED, None, []),
    ],
)
def test_only_what_is_still_ahead_is_run(state: State, failed_in: CommandStep | None, steps: list[str]) -> None:
    """A failed change is run as a retry would run it."""
    change = replace(CHANGE, state=state, failed_in=failed_in)

    assert list(steps_ahead(change)) == steps


def test_a_change_not_ordered_yet_is_asked_of_its_order_hooks_too() -> None:
    """They decide before there is a change."""
    run = dry(calling("order", Hookpoint.ORDER, Abort(reason="blocklisted")), order=True)

    assert [(end.step, end.verdict) for end in run.steps] == [(CommandStep.ORDER, ExecutionVerdict.ABORTED)]


def test_many_changes_run_side_by_side_but_hooks_keep_to_their_limit() -> None:
    """More at one time would open more connections than the worker ever does."""
    running, most, lock = 0, 0, threading.Lock()
    full = threading.Event()

    def count(context: WorkflowContext) -> Verdict:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == CONCURRENT_HOOKS:
                full.set()
        full.wait(30)
        with lock:
            running -= 1
        return Proceed()

    hook = Hook(name="count", key=Hookpoint.PRIOR, call=count, budget_seconds=30)
    changes = [replace(CHANGE, service_id=f"S{number}") for number in range(200)]

    async def all_of_them() -> list[DryRun]:
        return [run async for run in DryRuns(HookRegistry.of([hook])).run_all(changes, NOON)]

    runs = asyncio.run(all_of_them())

    assert sorted(run.change.service_id for run in runs) == sorted(one.service_id for one in changes)
    assert most == CONCURRENT_HOOKS


def test_a_summary_counts_reasons_and_keeps_only_what_would_fail() -> None:
    """Half a million good outcomes would not fit in memory."""
    good, bad = dry(), dry(calling("no", Hookpoint.PRIOR, Abort(reason="unpaid")))
    summary = Summary()

    for run in (good, good, bad):
        summary.add(run)

    assert (summary.count, summary.failing, summary.reasons["unpaid"]) == (3, 1, 1)
    assert summary.runs == [bad]
    [times] = summary.hooks.values()
    assert (times.hook, times.calls, times.ends["abort"]) == ("no", 1, 1)


def test_the_time_of_a_change_is_never_less_than_the_rest_of_the_chain_takes() -> None:
    """Hooks of different changes share their time, so a second in a hook is a part of a second for the stream."""
    run = dry()
    call = replace(dry(calling("x", Hookpoint.PRIOR, Proceed())).calls[0], seconds=3.2)
    summary = Summary()
    summary.add(replace(run, calls=(call,), seconds=3.2))

    by_hooks = summary.time_each(elapsed=3.2, workers=1, rate=1000.0)

    assert by_hooks == timedelta(seconds=3.2 / CONCURRENT_HOOKS)
    assert summary.time_each(elapsed=3.2, workers=2, rate=1000.0) == by_hooks / 2
    assert summary.time_each(elapsed=3.2, workers=1, rate=5.0) == timedelta(seconds=0.2)


@pytest.mark.parametrize(
    ("fields", "release"),
    [
        ({}, CHANGE.release_at),
        ({"state": State.STARTED, "awaiting": CommandStep.EXECUTE}, START),
        ({"state": State.STARTED, "retry_at": START + timedelta(hours=1)}, START + timedelta(hours=1)),
        ({"state": State.EXECUTED}, None),
        ({"state": State.FAILED}, None),
        ({"state": State.STARTED, "closed": True}, None),
    ],
)
def test_what_still_has_to_be_executed_waits_for_its_release(fields: dict[str, Any], release: datetime | None) -> None:
    """What is under way is work of now; what waits for a person is none."""
    found = waiting(replace(CHANGE, **fields), START)

    assert (None if found is None else found.release_at) == release
