"""Hooks: their order, their budget, their declaration."""

from __future__ import annotations

import asyncio
import threading

import pytest

from agents.plan_changes import hooks
from agents.plan_changes.hooks_examples import HOOKS
from agents.plan_changes.steps import HookCall, HookEnd, Steps
from streams.core.errors import Misconfigured
from streams.core.hooks import Abort, FailurePolicy, Hook, Hookpoint, HookRegistry, Proceed, Verdict, WorkflowContext
from tests.plan_changes.makers import START, a_command


def a_hook(name: str, key: str = Hookpoint.PRIOR, priority: int = 100) -> Hook:
    return Hook(name=name, key=key, priority=priority, call=lambda context: Proceed())


CONTEXT = WorkflowContext(hookpoint=Hookpoint.PRIOR, command=a_command(), outcome=None, notes={})


def test_general_hooks_first_then_those_of_the_element_each_by_priority() -> None:
    """The order is stated, not the order of declaration."""
    registry = HookRegistry.of(
        [
            a_hook("element", "RATEPLAN.CHANGE.PRIOR.basic-to-plus", priority=1),
            a_hook("b", priority=200),
            a_hook("c", priority=100),
            a_hook("a", priority=100),
            a_hook("other element", "RATEPLAN.CHANGE.PRIOR.gold", priority=1),
            a_hook("other point", Hookpoint.AFTER),
        ]
    )

    assert [hook.name for hook in registry.at(Hookpoint.PRIOR, "basic-to-plus")] == ["a", "c", "b", "element"]


@pytest.mark.parametrize("key", ["RATEPLAN.CHANGE.PRIORITY", "PRIOR", ""])
def test_a_hook_at_no_hookpoint_is_refused(key: str) -> None:
    """It would never be called, and nobody would know."""
    with pytest.raises(Misconfigured, match=r"use one of RATEPLAN\.CHANGE\.ORDER"):
        a_hook("x", key)


def test_two_hooks_of_one_name_are_refused() -> None:
    """Reasons name the hook."""
    with pytest.raises(Misconfigured, match="two hooks are called 'x'"):
        HookRegistry.of([a_hook("x"), a_hook("x")])


def test_declared_hooks_are_loaded() -> None:
    """By module and name, as in the settings."""
    registry = hooks.load(["agents.plan_changes.hooks_examples:HOOKS"])

    found = {hook.name for each in registry.by_key.values() for hook in each}
    assert found == {hook.name for hook in HOOKS}


@pytest.mark.parametrize(
    "declaration",
    [
        "agents.plan_changes.hooks_examples",
        "agents.plan_changes.hooks_examples:NO",
        "no.such.module:HOOKS",
        "agents.plan_changes.hooks:call",
    ],
)
def test_a_declaration_that_names_no_hooks_is_refused(declaration: str) -> None:
    """At the start of the worker, naming the declaration."""
    with pytest.raises(Misconfigured, match=declaration.replace(".", r"\.")):
        hooks.load([declaration])


def test_a_hook_that_hangs_costs_its_budget_and_no_more() -> None:
    """The loop goes on, and the late verdict is ignored."""
    released = threading.Event()

    def hang(context: WorkflowContext) -> Verdict:
        released.wait(30)
        return Abort(reason="too late")

    hanging = Hook(name="hang", key=Hookpoint.PRIOR, call=hang, budget_seconds=0.05)

    async def both() -> Verdict:
        with pytest.raises(hooks.OverBudgetError, match=r"used up its 0\.05 s"):
            await hooks.call(hanging, CONTEXT)
        released.set()
        return await hooks.call(a_hook("quick"), CONTEXT)

    assert asyncio.run(both()) == Proceed()


def test_a_hook_that_returns_no_verdict_has_failed() -> None:
    """Forgetting the return must not mean yes."""
    forgetful = Hook(name="forgetful", key=Hookpoint.PRIOR, call=lambda context: None)  # type: ignore[arg-type, return-value]

    with pytest.raises(TypeError, match="a hook returns Proceed, Adjust or Abort"):
        asyncio.run(hooks.call(forgetful, CONTEXT))


@pytest.mark.parametrize("raised", [TimeoutError("the CRM does not answer"), StopIteration("empty")])
def test_what_a_hook_raises_itself_is_not_taken_for_its_budget(raised: Exception) -> None:
    """A time-out of a socket is a TimeoutError; and a StopIteration, which no future takes, is told too."""

    def answer(context: WorkflowContext) -> Verdict:
        raise raised

    hook = Hook(name="h", key=Hookpoint.PRIOR, call=answer, on_failure=FailurePolicy.RETRY)
    told: list[HookCall] = []

    run = asyncio.run(Steps(HookRegistry.of([hook])).run(CONTEXT.command, START, told.append))

    assert (run.result.reason, run.result.retryable) == ("hook_failed:h", True)
    assert [call.end for call in told] == [HookEnd.FAILED]
    assert str(raised) in (told[0].detail or "")
