"""A hook that takes its time and writes down whose it was: for the worker of one test."""

from __future__ import annotations

import os
import time
from pathlib import Path

from streams.core.hooks import Hook, Hookpoint, Proceed, Verdict, WorkflowContext

CALLS_FILE = "CURFEW_TEST_HOOK_CALLS"
HOOK_S = 1.0


def slow(context: WorkflowContext) -> Verdict:
    """One line for each call."""
    with Path(os.environ[CALLS_FILE]).open("a") as calls:
        calls.write(f"{context.command.command_id}\n")
    time.sleep(HOOK_S)
    return Proceed()


HOOKS = (Hook(name="slow", key=Hookpoint.PRIOR, call=slow),)
