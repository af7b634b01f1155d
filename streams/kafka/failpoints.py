"""Places where a test may kill this process, to prove that a crash there loses nothing.

``CURFEW_FAILPOINT="changelog.middle:3"`` sends SIGKILL to the process the third time it passes ``changelog.middle``.
Unset, :func:`passing` is a no-op function, so that the hot path pays one call and no look-up.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

#: Places of the dispatch worker around a request: its row is durable, it was answered.
ATTEMPT_POINTS = ("attempt.row", "attempt.answered")
#: Every place that the runtime passes, in the order of a chunk's life; the fault suite walks through all of them.
FAIL_POINTS = (
    "recovery.start",
    "recovery.middle",
    "recovery.end",
    "decide.start",
    "decide.end",
    "outputs.middle",
    "outputs.produced",
    "outputs.durable",
    "changelog.middle",
    "changelog.produced",
    "changelog.durable",
    "apply.middle",
    "apply.end",
    "done.marked",
    "commit.before",
    "commit.after",
    "rebalance.revoke",
    "rebalance.revoked",
    "rebalance.assign",
    "seek",
)


def _compile(setting: str | None) -> Callable[[str], None]:
    if not setting:
        return lambda name: None
    target, _, nth = setting.partition(":")
    known = (*FAIL_POINTS, *ATTEMPT_POINTS)
    if target not in known:
        raise ValueError(f"CURFEW_FAILPOINT={setting!r}: no such fail point; one of {', '.join(known)}")
    remaining = int(nth or "1")

    def passing(name: str) -> None:
        nonlocal remaining
        if name == target:
            remaining -= 1
            if remaining == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return passing


passing = _compile(os.environ.get("CURFEW_FAILPOINT"))
ENABLED = bool(os.environ.get("CURFEW_FAILPOINT"))
