"""Hooks of the demo's company, as a user would write them: declared to the execution worker by ``CURFEW_HOOKS``."""

from __future__ import annotations

from streams.core.hooks import Abort, Adjust, Hook, Hookpoint, Patch, Proceed, Verdict, WorkflowContext
from streams.core.outcome import Release, Task, TaskKind


def provision_sim(context: WorkflowContext) -> Verdict:
    """The network needs the new data volume of a SIM at the moment at which the plan is true."""
    command = context.command
    details = {"service": command.service_id, "profile": command.to_rate_plan_id}
    task = Task(kind=TaskKind.PROVISIONING, name="set-data-profile", release=Release.EFFECTIVE, details=details)
    return Adjust(patch=Patch(tasks=(task,)))


def keep_open_ended(context: WorkflowContext) -> Verdict:
    """A company rule, checked on the outcome: no change may leave a service without an open-ended membership."""
    outcome = context.outcome
    if outcome is None or outcome.memberships[-1].valid_to is not None:
        return Abort(reason="membership_ends")
    return Proceed()


HOOKS = (
    Hook(name="provision-sim", key=f"{Hookpoint.PRIOR}.iot-upgrade", call=provision_sim),
    Hook(name="keep-open-ended", key=f"{Hookpoint.AFTER}.mobile-to-family", call=keep_open_ended),
)
