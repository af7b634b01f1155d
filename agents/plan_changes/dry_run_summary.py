"""Adds up many dry runs without keeping them: how many would fail, how long each hook takes, how fast it all is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

from agents.plan_changes.dry_run import DryRun
from agents.plan_changes.steps import CONCURRENT_HOOKS, HookCall


@dataclass(slots=True)
class HookTimes:
    """All calls of one hook at one hookpoint; seconds of the machine's clock."""

    hook: str
    point: str
    budget_seconds: float
    ends: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    longest: float = 0.0

    @property
    def calls(self) -> int:
        """How often it was called."""
        return self.ends.total()

    def add(self, call: HookCall) -> None:
        """One call more."""
        self.ends[call.end] += 1
        self.seconds += call.seconds
        self.longest = max(self.longest, call.seconds)


@dataclass(slots=True)
class Summary:
    """``runs`` are those that would fail or wait for a person, or all with ``keep_all``: half a million would be too
    much for the memory."""

    keep_all: bool = False
    count: int = 0
    failing: int = 0
    waiting: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    hooks: dict[tuple[str, str], HookTimes] = field(default_factory=dict)
    runs: list[DryRun] = field(default_factory=list)
    _cost: float = 0.0

    def add(self, run: DryRun) -> None:
        """Count ``run`` in."""
        self.count += 1
        if run.reasons:
            self.failing += 1
            self.reasons.update(run.reasons)
        if run.waits_for is not None:
            self.waiting += 1
        if run.reasons or run.waits_for is not None or self.keep_all:
            self.runs.append(run)
        for call in run.calls:
            known = self.hooks.setdefault(
                (call.point, call.hook.name), HookTimes(call.hook.name, call.point, call.hook.budget_seconds)
            )
            known.add(call)
        self._cost += run.hook_seconds / CONCURRENT_HOOKS + max(0.0, run.seconds - run.hook_seconds)

    def time_each(self, elapsed: float, workers: int, rate: float) -> timedelta:
        """Between two changes in the stream of ``workers`` execution workers, at least 1 / ``rate`` (per second).

        Hooks of different changes run side by side in a worker. ``elapsed`` seconds for all runs is the other bound:
        what each one took contains its waiting for the others.
        """
        each = 0.0 if self.count == 0 else min(self._cost, elapsed) / self.count
        return timedelta(seconds=max(each / workers, 1 / rate))
