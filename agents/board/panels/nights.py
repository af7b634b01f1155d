"""Panel 2: every effective date, who is in danger and why, and the changes that wait for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agents.board import words
from agents.board.dangers import WHERE, Danger, Night
from agents.board.panels.countdown import remaining
from agents.plan_changes.reasons import why
from streams.core.plan_change.board import Line, Stage
from streams.core.plan_change.machine import Change

NAME: Final = "nights"
TITLE: Final = "Effective dates"
#: Changes that are listed one by one; the others are counted by reason.
LISTED: Final = 50
STAGES: Final = ("pending", "started", "executed", "persisted", "completed", "effective", "failed", "held")


def view(
    lines: Sequence[Line],
    dangers: Mapping[Night, Danger],
    waiting: Sequence[Change],
    history: Mapping[Night, Sequence[int]],
) -> dict[str, Any]:
    """Everything that the panel shows. ``history``: what remained at the last looks."""
    rows = [_row(line, dangers.get(night(line)), history.get(night(line), ())) for line in lines]
    word = words.worst(*(row["word"] for row in rows))
    if word == words.OK and waiting:
        word = words.ATTENTION
    reasons = Counter((one.state.value, why(one, None)[0]) for one in waiting)
    return {
        "word": word,
        "dates": rows,
        "total": {name: sum(row[name] for row in rows) for name in (*STAGES, "missed")},
        "waiting": len(waiting),
        "waiting_by_reason": [
            {"state": state, "reason": reason, "changes": count} for (state, reason), count in reasons.most_common()
        ],
        "waiting_changes": [waiting_row(one) for one in waiting[:LISTED]],
    }


def night(line: Line) -> Night:
    return line.deadline_at, line.effective_date, line.zone


def waiting_row(change: Change) -> dict[str, Any]:
    """One change that waits for a person, with what may be done about it."""
    reason, text = why(change, None)
    return {
        "service_id": change.service_id,
        "account_id": change.account_id,
        "change_id": change.change_id,
        "revision": change.revision,
        "state": change.state.value,
        "element": change.element.key,
        "from_rate_plan_id": change.element.from_rate_plan_id,
        "to_rate_plan_id": change.to_rate_plan_id,
        "effective_date": change.effective_date.isoformat(),
        "zone": change.zone,
        "deadline_at": words.utc(change.deadline_at),
        "missed": change.missed,
        "persisted_at": words.utc(change.persisted_at),
        "failed_in": None if change.failed_in is None else change.failed_in.value,
        "reason": reason,
        "reason_in_words": text,
    }


def _row(line: Line, danger: Danger | None, history: Sequence[int]) -> dict[str, Any]:
    return {
        "effective_date": line.effective_date.isoformat(),
        "zone": line.zone,
        "deadline_at": words.utc(line.deadline_at),
        **{name: line.count(name) for name in STAGES},
        "missed": line.missed,
        "rolled": line.rolled,
        "remaining": remaining(line),
        "history": list(history),
        "per_minute": round(line.per_minute, 1),
        "eta": words.utc(line.eta),
        "margin_seconds": words.in_seconds(line.margin),
        "word": line.word.value,
        "reason": line.reason or None,
        "detail": line.detail or None,
        "danger": None if danger is None else _danger(danger),
    }


def _danger(danger: Danger) -> dict[str, Any]:
    stage: Stage | None = None
    count = 0
    if danger.bottleneck is not None:
        stage, count = danger.bottleneck
    return {
        "changes": danger.changes,
        "bottleneck": None if stage is None else stage.value,
        "bottleneck_changes": count,
        "bottleneck_where": None if stage is None else WHERE[stage],
        **{
            name: [{"name": one, "changes": number} for one, number in getattr(danger, name)]
            for name in ("accounts", "elements", "hooks", "reasons")
        },
    }
