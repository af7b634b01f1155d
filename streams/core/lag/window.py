"""The newest commits of one partition of a group, few and not too near to each other. Pure, bounded memory."""

from __future__ import annotations

from typing import Final

from streams.core.lag.rules import Commit

#: Burrow's number: enough to see whether lag falls, few enough to forget what was an hour ago.
INTERVALS: Final = 10
#: Commits nearer than this to the one before replace it. A worker that commits forty times a second would have a window
#: of a quarter of a second, and every hiccup of the network would be a STOP.
MIN_DISTANCE_MS: Final = 10_000


class Window:
    """Up to ``intervals`` commits, by their order; sequence-like."""

    __slots__ = ("_intervals", "_min_distance_ms", "commits")

    def __init__(self, intervals: int = INTERVALS, min_distance_ms: int = MIN_DISTANCE_MS) -> None:
        self._intervals = intervals
        self._min_distance_ms = min_distance_ms
        self.commits: list[Commit] = []

    def __len__(self) -> int:
        return len(self.commits)

    @property
    def complete(self) -> float:
        """The part of the window that is filled."""
        return len(self.commits) / self._intervals

    def add(self, offset: int, *, order: int, at_ms: int, end: int | None) -> None:
        """A commit, and where the partition ended when it was made (None where nobody knows).

        One that comes after a later one has no lag: the end of that moment is gone. One that is older than a full
        window is nothing new.
        """
        kept = self.commits
        at = len(kept)
        while at and kept[at - 1].order > order:
            at -= 1
        if at and kept[at - 1].order == order:
            return  # read a second time
        lag = max(0, end - offset) if end is not None and at == len(kept) else None
        if at and 0 <= at_ms - kept[at - 1].at_ms < self._min_distance_ms:
            # It keeps the time of the first one: else a busy group's only entry would move along for ever.
            kept[at - 1] = Commit(offset, order, kept[at - 1].at_ms, lag)
            return
        if len(kept) >= self._intervals:
            if at == 0:
                return
            del kept[0]
            at -= 1
        kept.insert(at, Commit(offset, order, at_ms, lag))
