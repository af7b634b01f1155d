"""Example hooks of rate plan changes, to copy.

Declare them with ``CURFEW_HOOKS='["agents.plan_changes.hooks_examples:HOOKS"]'``.

A hook gets a :class:`WorkflowContext` and returns Proceed, Adjust or Abort. It runs in a thread, within its budget, and
may run again after a crash: what it does outside must be harmless when done twice (use ``command.command_id``), and
must not be done at all with ``context.dry_run``. All about hooks is in docs/hooks.md.
"""

from __future__ import annotations

from decimal import Decimal

from streams.core.hooks import Abort, Adjust, FailurePolicy, Hook, Hookpoint, Patch, Proceed, Verdict, WorkflowContext
from streams.core.money import Fee
from streams.core.outcome import Release, Task, TaskKind

# Orders through a person cost more than those a customer makes alone.
_ASSISTED_CHANNELS = frozenset({"call-centre", "shop"})


def assisted_order_fee(context: WorkflowContext) -> Verdict:
    """PRIOR: add a fee for orders that a person took."""
    if context.command.channel not in _ASSISTED_CHANNELS:
        return Proceed()
    fee = Fee(code="assisted-order", amount=Decimal("2.50"), currency="EUR")
    return Adjust(patch=Patch(fees=(fee,)))


def provision_the_network(context: WorkflowContext) -> Verdict:
    """PRIOR: ask for network provisioning at the moment when the new plan becomes true."""
    task = Task(
        kind=TaskKind.PROVISIONING,
        name="set-profile",
        release=Release.EFFECTIVE,
        details={"service_id": context.command.service_id, "profile": context.command.to_rate_plan_id},
    )
    return Adjust(patch=Patch(tasks=(task,)))


def no_roaming_with_data_only(context: WorkflowContext) -> Verdict:
    """AFTER: a data-only plan cannot have the roaming option, whatever the matrix element adds."""
    if context.outcome is None:
        return Abort(reason="no_outcome")
    if context.outcome.to_rate_plan_id != "data-only":
        return Proceed()
    return Adjust(patch=Patch(options_removed=("roaming",)))


HOOKS = (
    Hook(
        name="assisted-order-fee",
        key=Hookpoint.PRIOR,
        call=assisted_order_fee,
        on_failure=FailurePolicy.ABORT,  # without it the customer would be charged less than agreed
    ),
    Hook(
        name="provision-the-network",
        key=Hookpoint.PRIOR,
        call=provision_the_network,
        priority=200,
        on_failure=FailurePolicy.RETRY,
    ),
    Hook(
        name="no-roaming-with-data-only",
        key=Hookpoint.AFTER,
        call=no_roaming_with_data_only,
        on_failure=FailurePolicy.ABORT,
    ),
)
