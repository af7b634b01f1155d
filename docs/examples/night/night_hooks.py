"""The hook of the example night: who has an unpaid bill keeps the old rate plan."""

import os
from pathlib import Path

from streams.core.hooks import Abort, Hook, Hookpoint, Proceed, Verdict, WorkflowContext

#: One account per line; a real hook asks the billing system.
UNPAID_BILLS = Path(os.environ["UNPAID_BILLS"])


def credit_check(context: WorkflowContext) -> Verdict:
    """PRIOR: it only reads, so a dry run asks as well."""
    if context.command.account_id in UNPAID_BILLS.read_text().split():
        return Abort(reason="unpaid_bill")
    return Proceed()


HOOKS = (Hook(name="credit-check", key=Hookpoint.PRIOR, call=credit_check),)
