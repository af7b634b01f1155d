"""Hooks that do what hooks may do, one each, for the elements of that name: for the worker of one test."""

from __future__ import annotations

import time
from decimal import Decimal

from streams.core.hooks import Abort, Adjust, FailurePolicy, Hook, Hookpoint, Patch, Proceed, Verdict, WorkflowContext
from streams.core.money import Fee

PRIOR, AFTER = Hookpoint.PRIOR, Hookpoint.AFTER


def sleeps(context: WorkflowContext) -> Verdict:
    """Far beyond its budget."""
    time.sleep(3.0)
    return Abort(reason="too_late_to_matter")


def raises(context: WorkflowContext) -> Verdict:
    """At the first attempt only."""
    if context.command.attempt == 1:
        raise ConnectionError("the CRM does not answer")
    return Proceed()


HOOKS = (
    Hook(name="sleeps", key=f"{PRIOR}.sleeps", call=sleeps, budget_seconds=0.2, on_failure=FailurePolicy.SKIP),
    Hook(name="raises", key=f"{PRIOR}.raises", call=raises, on_failure=FailurePolicy.RETRY),
    Hook(name="aborts", key=f"{PRIOR}.aborts", call=lambda context: Abort(reason="no_credit")),
    Hook(name="alters", key=f"{PRIOR}.alters", call=lambda context: Adjust(patch=Patch(to_rate_plan_id="max"))),
    Hook(
        name="charges",
        key=f"{PRIOR}.charges",
        call=lambda context: Adjust(patch=Patch(fees=(Fee(code="extra", amount=Decimal("2.50"), currency="EUR"),))),
    ),
    Hook(
        name="drops-an-option",
        key=f"{AFTER}.drops-an-option",
        call=lambda context: Adjust(patch=Patch(options_removed=("roaming",))),
    ),
)
