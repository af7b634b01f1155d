"""When the next attempt is due: the subscription's schedule, the receiver's wish, and jitter that is only added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

#: Units that failed in one outage would all come back in one second, and bring the receiver down again.
JITTER: Final = 0.1
#: A receiver may ask for patience, but a Retry-After of a year (or a date misread) must not bury a unit.
MAX_RETRY_AFTER_S: Final = 86_400


def next_delay_ms(schedule_s: Sequence[int], attempts: int, attempt_id: str, retry_after_s: int | None) -> int | None:
    """Milliseconds from the failure of attempt number ``attempts`` to the next one; None when there is none left.

    Jitter comes from ``attempt_id``, so that a replay computes the same; it is added to a Retry-After too.
    """
    if attempts >= len(schedule_s):
        return None
    delay_ms = schedule_s[attempts] * 1000
    if retry_after_s is not None:
        delay_ms = max(delay_ms, min(max(retry_after_s, 0), MAX_RETRY_AFTER_S) * 1000)
    fraction = UUID(attempt_id).int % 2**32 / 2**32
    return delay_ms + int(delay_ms * JITTER * fraction)
