"""What went wrong, sorted by what has to be done about it.

::

    CurfewError
    ├── Transient      try the whole chunk again, with back-off: the world was not ready
    ├── Poison         put this one record into the dead letters and go on: it will never work as it is
    ├── Fatal          stop the process without committing: something we rely on is broken
    └── Misconfigured  tell the person who wrote the file or the flag; nothing has been changed

Every message says what to do next. Where an error concerns one record it carries the coordinates, and ``str(error)``
ends with them, so that a line in a log is enough to find the record again.
"""

from __future__ import annotations

from typing import Self

#: Exit code of a process that stopped itself because going on would have done harm (sysexits' EX_SOFTWARE).
EXIT_FATAL = 70


class CurfewError(Exception):
    """Base of all errors of Curfew; catch it only where a message is shown to a person."""

    topic: str | None = None
    partition: int | None = None
    offset: int | None = None

    def at(self, topic: str, partition: int, offset: int) -> Self:
        """Say which record it was; the first coordinates win, since the first catcher knows best."""
        if self.topic is None:
            self.topic, self.partition, self.offset = topic, partition, offset
        return self

    def __str__(self) -> str:
        text = super().__str__()
        return text if self.topic is None else f"{text} (record {self.topic}[{self.partition}]@{self.offset})"


class Transient(CurfewError):
    """The world was not ready (a registry, a database, a broker is down): the same chunk may succeed later."""


class Poison(CurfewError):
    """One record that can never be handled as it is.

    ``reason`` is a short stable word with underscores (``"unknown_schema_id"``): dead letters are counted and
    filtered by it. ``detail`` is for people and may change.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Fatal(CurfewError):
    """A broken invariant: going on would make it worse, so the process stops and commits nothing."""


class Misconfigured(CurfewError):
    """A setting, a manifest or an argument is wrong; the message names the place and the remedy."""
