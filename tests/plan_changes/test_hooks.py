"""Hooks: their order, their budget, their declaration."""

from __future__ import annotations

import asyncio
import threading

import pytest

from agents.plan_changes import hooks
from agents.plan_changes.hooks_examples import HOOKS
from streams.core.errors import Misconfigured
from streams.core.hooks import Abort, Hook, Hookpoint, HookRegistry, Proceed, Verdict, WorkflowContext
from tests.plan_changes.makers import a_command


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
        with pytest.raises(TimeoutError):
            await hooks.call(hanging, CONTEXT)
        released.set()
        return await hooks.call(a_hook("quick"), CONTEXT)

    assert asyncio.run(both()) == Proceed()


def test_a_hook_that_returns_no_verdict_has_failed() -> None:
    """Forgetting the return must not mean yes."""
    forgetful = Hook(name="forgetful", key=Hookpoint.PRIOR, call=lambda context: None)  # type: ignore[arg-type, return-value]

    with pytest.raises(TypeError, match="a hook returns Proceed, Adjust or Abort"):
        asyncio.run(hooks.call(forgetful, CONTEXT))
