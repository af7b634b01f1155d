"""Time is an event: what a tick is, and how a partition's clock moves.

Only ticks move business time, and only forwards. Several clock processes may write at the same time, so ticks arrive
late, twice and out of order; :func:`advance` makes one time of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from streams.core.errors import Fatal


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """One tick of one partition of ``clock.ticks``; ``now`` is an aware UTC instant with millisecond precision."""

    epoch: str
    seq: int
    now: datetime

    def __post_init__(self) -> None:
        if self.now.utcoffset() != timedelta(0):
            raise ValueError(f"a tick's now must be an aware UTC instant, not {self.now!r}: use datetime.now(UTC)")


@dataclass(frozen=True, slots=True, kw_only=True)
class NextDue:
    """The earliest instant at which a worker's partition has something to do; ``due`` is None when nothing waits."""

    group: str
    partition: int
    due: datetime | None


def advance(now: datetime | None, tick: Tick, epoch: str | None) -> tuple[datetime, str]:
    """Return (now, epoch) of a partition after ``tick``: the highest instant seen, of the first epoch seen.

    ``now`` and ``epoch`` are None before the first tick. A tick of another epoch raises :class:`Fatal`: it belongs to
    another run of a virtual clock, and mixing two runs would move deadlines that have already been decided.
    """
    if epoch is not None and tick.epoch != epoch:
        raise Fatal(
            f"a tick of epoch {tick.epoch!r} arrived where epoch {epoch!r} runs: two clocks of different runs write to "
            "clock.ticks; stop one of them, or start this run with a fresh data directory"
        )
    return (tick.now if now is None else max(now, tick.now)), tick.epoch
