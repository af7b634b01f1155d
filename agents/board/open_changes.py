"""The changes that are not persisted or wait for a person, with what an operator asks: who, why, where."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import date, datetime
from typing import NamedTuple

from streams.core.plan_change.board import Stage, entry
from streams.core.plan_change.machine import Change

WAITING = (Stage.FAILED, Stage.HELD)


class Open(NamedTuple):
    """A tuple, since a million of them wait on the evening before the first of a month."""

    service_id: str
    account_id: str
    element_key: str
    stage: Stage
    effective_date: date
    zone: str
    deadline_at: datetime
    due_at: datetime
    reason: str | None


class OpenChanges:
    """Kept up to date row by row (:meth:`put` is an ``on_change`` of the feed)."""

    def __init__(self) -> None:
        self._open: dict[bytes, Open] = {}
        self._waiting: dict[bytes, Change] = {}

    def put(self, key: bytes, change: Change | None) -> None:
        """The row of a service is now ``change``."""
        self._open.pop(key, None)
        self._waiting.pop(key, None)
        kept = None if change is None else entry(change)
        if change is None or kept is None:
            return
        if kept.stage in WAITING:
            self._waiting[key] = change
        if kept.stage in WAITING or kept.persisted_at is None:
            self._open[key] = Open(
                service_id=change.service_id,
                account_id=change.account_id,
                # few elements and zones, many changes
                element_key=sys.intern(change.element.key),
                stage=kept.stage,
                effective_date=kept.effective_date,
                zone=sys.intern(kept.zone),
                deadline_at=kept.deadline_at,
                due_at=kept.due_at,
                reason=change.reason,
            )

    def all(self) -> Iterable[Open]:
        return self._open.values()

    def waiting(self) -> list[Change]:
        """Those that wait for a person, the nearest deadline first."""
        return sorted(self._waiting.values(), key=lambda one: (one.deadline_at, one.service_id))
