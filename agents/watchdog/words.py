"""What the watchdog says: one notice in words, one deadline as a row, all of them as metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from agents.watchdog.notify import Message
from streams import metrics as m
from streams.core.ids import instant_text
from streams.core.watch_rules import Alarm, Deadline, Notice, NoticeKind, Verdict
from streams.exposition import Exposition
from streams.kafka.worker_metrics import process_metrics

_COUNTS: Final = ("open", "overdue", "stuck", "missed", "persisted", "late")
_REMEDY = {
    "stuck": "curfew plan-changes list --state failed, then retry or resolve them",
    "left_behind": "curfew plan-changes show SERVICE, curfew dead-letters list",
    "too_slow": "curfew lag; more instances of execution and persistence; look at the database",
    "blind": "curfew doctor: is Kafka running, and may the watchdog read it?",
    "clock_silent": "start the clock: curfew clock",
    "recorded": "curfew plan-changes list; resolve those that are held; the others finish late or roll by their policy",
}
_LOOK = "curfew lag, curfew plan-changes list --state started, and the logs of plan-changes, execution and persistence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One deadline, what was judged of it, and the alarm that stands."""

    deadline: Deadline
    verdict: Verdict
    alarm: Alarm

    def row(self) -> dict[str, Any]:
        """For tables and JSON."""
        return {
            "deadline_at": instant_text(self.deadline.deadline_at),
            "state": self.alarm.level.word,
            "judged": self.verdict.level.word,
            "reason": self.verdict.reason or None,
            **{name: getattr(self.deadline, name) for name in _COUNTS},
            "clears_at": None if self.verdict.clears_at is None else instant_text(self.verdict.clears_at),
            "detail": self.verdict.detail or None,
        }


def watchdog_metrics(seen: Iterable[Seen], *, blind: bool) -> str:
    """What it has told people, and why, by deadline."""
    out = Exposition()
    out.add(m.WATCHDOG_BLIND, blind)
    for one in seen:
        at = instant_text(one.deadline.deadline_at)
        out.add(m.WATCHDOG_ALARM, one.alarm.level, at)
        out.add(m.WATCHDOG_OPEN, one.deadline.open, at)
        out.add(m.WATCHDOG_OVERDUE, one.deadline.overdue, at)
        out.add(m.WATCHDOG_MISSED, one.deadline.missed, at)
    return out.text() + process_metrics()


def message(
    deadline: Deadline,
    verdict: Verdict,
    alarm: Alarm,
    notice: Notice,
    now: datetime,
    *,
    services: Sequence[str],
    raised: int,
) -> Message:
    """The notice for people. ``services``: some that are concerned; ``raised``: how many events were raised."""
    at = instant_text(deadline.deadline_at)
    return Message(
        notice_id=notice.notice_id,
        type=f"watchdog.{notice.kind}",
        at=now,
        subject_kind="deadline",
        subject_id=at,
        sequence=alarm.said,
        summary=_summary(deadline, notice, at),
        detail=verdict.detail or "nothing is open any more, or the rate clears what is left",
        remedy=_REMEDY.get(verdict.reason, _LOOK),
        facts={
            "deadline_at": at,
            "reason": verdict.reason,
            "repeated": notice.repeated,
            **{name: getattr(deadline, name) for name in _COUNTS},
            "events_raised": raised,
            "services": ", ".join(services),
        },
    )


def _summary(deadline: Deadline, notice: Notice, at: str) -> str:
    changes = deadline.missed + deadline.open if notice.kind is NoticeKind.MISSED else deadline.open
    subject = f"{changes:,} rate plan change{'' if changes == 1 else 's'}"
    match notice.kind:
        case NoticeKind.AT_RISK:
            said = f"{subject} at risk of missing the deadline {at}"
        case NoticeKind.MISSED:
            said = f"{subject} missed the deadline {at}"
        case NoticeKind.RECOVERED:
            late = f", {deadline.late:,} of them late" if deadline.late else ""
            said = f"recovered: deadline {at}, {subject} open, {deadline.persisted + deadline.late:,} persisted{late}"
    return f"still so: {said}" if notice.repeated else said
