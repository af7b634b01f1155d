"""Loads the hooks that a worker declares, and runs one within its time budget, off the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.metadata import entry_points

from streams.core.errors import Misconfigured
from streams.core.hooks import Abort, Adjust, Hook, HookRegistry, Proceed, Verdict, WorkflowContext

# Packages may declare hooks under this entry point group instead of in the settings.
ENTRY_POINTS = "curfew.hooks"


class OverBudgetError(Exception):
    """The hook has not answered within its budget. Not a TimeoutError, which a hook may raise itself."""


def load(declared: Sequence[str]) -> HookRegistry:
    """Hooks from ``package.module:NAME`` strings and from the entry points; NAME is a Hook or an iterable of Hooks.

    Raises Misconfigured, naming the declaration, when one cannot be loaded.
    """
    installed = [entry.value for entry in entry_points(group=ENTRY_POINTS)]
    hooks: list[Hook] = []
    for declaration in dict.fromkeys([*declared, *installed]):
        hooks.extend(_resolve(declaration))
    return HookRegistry.of(hooks)


def _resolve(declaration: str) -> Iterable[Hook]:
    module_name, _, name = declaration.partition(":")
    try:
        found = getattr(import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise Misconfigured(f"hooks {declaration!r} cannot be loaded: {error}; write package.module:NAME") from error
    hooks = [found] if isinstance(found, Hook) else list(found) if isinstance(found, Iterable) else [found]
    if not all(isinstance(hook, Hook) for hook in hooks):
        raise Misconfigured(f"hooks {declaration!r} must be a Hook or several of them, it is {type(found).__name__}")
    return hooks


async def call(hook: Hook, context: WorkflowContext) -> Verdict:
    """Run ``hook`` in a thread of its own and wait for its verdict at most its budget.

    Raises OverBudgetError when the budget is used up, and whatever the hook raises. The thread of a hook that hangs
    cannot be ended: it is a daemon, so that it does not keep the worker from stopping; its late verdict is ignored.
    """
    loop = asyncio.get_running_loop()
    verdict: asyncio.Future[Verdict] = loop.create_future()

    def run() -> None:
        try:
            returned = hook.call(context)
            if not isinstance(returned, Proceed | Adjust | Abort):
                raise TypeError(f"returned {returned!r}; a hook returns Proceed, Adjust or Abort")
        except Exception as error:
            _tell(loop, verdict, None, error)
        else:
            _tell(loop, verdict, returned, None)

    threading.Thread(target=run, name=f"hook-{hook.name}", daemon=True).start()
    try:
        await asyncio.wait({verdict}, timeout=hook.budget_seconds)
        if not verdict.done():
            raise OverBudgetError(f"used up its {hook.budget_seconds:g} s")
        return verdict.result()
    finally:
        verdict.cancel()


def _tell(
    loop: asyncio.AbstractEventLoop, verdict: asyncio.Future[Verdict], returned: Verdict | None, error: Exception | None
) -> None:
    def settle() -> None:
        if verdict.done():
            return
        if returned is not None:
            verdict.set_result(returned)
        elif isinstance(error, StopIteration):  # what no future takes
            verdict.set_exception(RuntimeError(f"StopIteration: {error}"))
        else:
            verdict.set_exception(error or RuntimeError("a hook ended without a verdict"))

    if not loop.is_closed():
        loop.call_soon_threadsafe(settle)
