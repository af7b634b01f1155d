"""The one door to the change machine: a state, a fact and the time in, a decision out."""

from __future__ import annotations

from datetime import datetime
from typing import assert_never

from streams.core.plan_change import context, orders, progress, repairs
from streams.core.plan_change.machine import (
    Acknowledged,
    Change,
    ChangeCancelled,
    ChangeOrdered,
    ChangeRepaired,
    ContextChanged,
    ExecutionFinished,
    Fact,
    Rules,
    Step,
    TimePassed,
)
from streams.core.plan_change.window import derived


def step(current: Change | None, fact: Fact, now: datetime, rules: Rules) -> Step:
    """Decide what ``fact`` makes of the service's change at business time ``now``.

    ``current`` is the latest change of the service, open or not; None before its first. Pure: the same arguments give
    the same decision, with the same ids, so it may be made again after a crash.
    """
    if current is not None:
        current = derived(current)
    match fact:
        case ChangeOrdered():
            return orders.order(current, fact, now, rules)
        case ChangeCancelled():
            return orders.cancel(current, fact, now)
        case ChangeRepaired():
            return repairs.repair(current, fact, now, rules)
        case ContextChanged():
            if current is None:
                return Step(change=None)
            return context.follow(current, fact, now, rules)
        case TimePassed():
            if current is None:
                return Step(change=None)
            return progress.progress(current, now, rules, room=fact.room)
        case ExecutionFinished():
            return Step(change=None) if current is None else progress.finished(current, fact, now, rules)
        case Acknowledged():
            return Step(change=None) if current is None else progress.acknowledged(current, fact, now, rules)
        case _:
            assert_never(fact)
