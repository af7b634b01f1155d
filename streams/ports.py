"""What the core and the agents need from the outside, as Protocols; the adapters are elsewhere."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol


class Clock(Protocol):
    """The wall clock, for what must not follow business time: signatures, tick age, the watchdog."""

    def now(self) -> datetime:
        """The current instant, aware, UTC."""
        ...


class SchemaIds(Protocol):
    """Where numbers of schemas come from: a registry, or a rule of our own in unit tests and benches."""

    def id_for(self, subject: str, schema: dict[str, Any]) -> int:
        """The id under which ``schema`` is known in ``subject``; raises Transient when it cannot be asked now."""
        ...

    def schema_for(self, schema_id: int) -> dict[str, Any]:
        """The writer schema with this id; raises Poison("unknown_schema_id"), or Transient when it cannot be asked."""
        ...
