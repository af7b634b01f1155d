"""Panel 1: how far the next midnights are, zone by zone, and whether each will be kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from agents.board import words
from streams.core.plan_change.board import Line, Stage

NAME: Final = "countdown"
TITLE: Final = "Next midnights"
#: A clock ticks once per second; one that was silent for longer is worth a word.
SILENT_S: Final = 10.0
_REMAINING: Final = (Stage.PENDING, Stage.STARTED, Stage.EXECUTED, Stage.FAILED, Stage.HELD)


def remaining(line: Line) -> int:
    """Changes of a midnight that are not persisted yet."""
    return sum(line.count(stage) for stage in _REMAINING)


def view(lines: Sequence[Line], now: datetime, *, ticked: bool, clock_silent_s: float) -> dict[str, Any]:
    """The nearest midnight of every zone that has changes, and every one that is late."""
    rows = [_row(line, now) for line in _shown(lines, now)]
    word = words.worst(*(row["word"] for row in rows))
    return {
        "word": word,
        "now": words.utc(now),
        "clock_has_ticked": ticked,
        "clock_silent_seconds": round(clock_silent_s, 1) if ticked else None,
        "clock_is_silent": ticked and clock_silent_s > SILENT_S,
        "zones": rows,
    }


def _shown(lines: Iterable[Line], now: datetime) -> list[Line]:
    """Those that are past and not well first, then the next one of each zone."""
    found, zones = [], set[str]()
    for line in lines:  # the nearest deadline first
        if line.deadline_at <= now:
            if line.word != words.OK:
                found.append(line)
        elif line.zone not in zones:
            zones.add(line.zone)
            found.append(line)
    return found


def _row(line: Line, now: datetime) -> dict[str, Any]:
    return {
        "zone": line.zone,
        "effective_date": line.effective_date.isoformat(),
        "deadline_at": words.utc(line.deadline_at),
        "local": words.local(line.deadline_at, line.zone),
        "in_seconds": words.in_seconds(line.deadline_at - now),
        "remaining": remaining(line),
        "word": line.word.value,
        "detail": line.detail or None,
    }
