"""The audit trail: one entry per change of the configuration, or action of a person on the board; never rewritten."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """``what`` (route, subscription, source) called ``name`` was changed ``by`` somebody; ``before`` and ``after`` are
    JSON, None where there was nothing or is nothing any more. Of a plan-change or a dead-letter, ``after`` is what
    somebody has asked for."""

    at: datetime
    by: str
    what: str
    name: str
    before: str | None = None
    after: str | None = None

    @property
    def action(self) -> str:
        """created, changed or deleted."""
        return "created" if self.before is None else "deleted" if self.after is None else "changed"
