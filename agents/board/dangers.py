"""Of a night that is not well: where the work is stuck, and whom, which elements and which hooks it concerns. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from agents.board.open_changes import WAITING, Open
from streams.core.plan_change.board import Stage

#: Names that are shown of each kind; the others are counted.
TOP: Final = 5
_HOOK_REASONS: Final = ("hook_failed", "hook_timeout")
#: Who has to move a change that is in this stage.
WHERE: Final = {
    Stage.PENDING: "scheduler: released, not started",
    Stage.STARTED: "execution: hooks and core logic",
    Stage.EXECUTED: "persistence: the billing store",
    Stage.PERSISTED: "execution: post work",
    Stage.COMPLETED: "scheduler: completed, not closed",
    Stage.EFFECTIVE: "scheduler: effective, not closed",
    Stage.FAILED: "a person: failed changes",
    Stage.HELD: "a person: held changes",
}

Night = tuple[datetime, date, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Danger:
    """``changes`` are not persisted or wait for a person. ``bottleneck``: the stage in which most of those are that
    should be further by now, with their number. The others are (name, changes), the most first, at most
    :data:`TOP`."""

    changes: int
    bottleneck: tuple[Stage, int] | None
    accounts: list[tuple[str, int]]
    elements: list[tuple[str, int]]
    hooks: list[tuple[str, int]]
    reasons: list[tuple[str, int]]


class _Counts:
    def __init__(self) -> None:
        self.changes = 0
        self.stages: Counter[Stage] = Counter()
        self.accounts: Counter[str] = Counter()
        self.elements: Counter[str] = Counter()
        self.hooks: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def add(self, one: Open, now: datetime) -> None:
        self.changes += 1
        self.accounts[one.account_id] += 1
        self.elements[one.element_key] += 1
        if one.stage in WAITING or one.due_at <= now:
            self.stages[one.stage] += 1
        if one.reason is not None:
            self.reasons[one.reason] += 1
        if (hook := hook_of(one.reason)) is not None:
            self.hooks[hook] += 1

    def danger(self) -> Danger:
        return Danger(
            changes=self.changes,
            bottleneck=max(self.stages.items(), key=lambda item: item[1], default=None),
            accounts=_top(self.accounts),
            elements=_top(self.elements),
            hooks=_top(self.hooks),
            reasons=_top(self.reasons),
        )


def hook_of(reason: str | None) -> str | None:
    """The hook that a reason speaks of: ``hook_failed:crm`` is ``crm``."""
    head, colon, name = (reason or "").partition(":")
    return name if colon and head in _HOOK_REASONS else None


def dangers(changes: Iterable[Open], nights: Iterable[Night], now: datetime) -> Mapping[Night, Danger]:
    """The dangers of those ``nights`` of which something is open."""
    wanted = set(nights)
    counts: dict[Night, _Counts] = defaultdict(_Counts)
    if wanted:
        for one in changes:
            night = one.deadline_at, one.effective_date, one.zone
            if night in wanted:
                counts[night].add(one, now)
    return {night: count.danger() for night, count in counts.items()}


def _top(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:TOP]
