"""The one error of the embedded stack."""

from __future__ import annotations


class StackError(Exception):
    """The embedded stack cannot do what was asked; the message is for the person at the terminal.

    It always has three parts: what happened, where (a port, a file, an artifact), and the remedy.
    """

    def __init__(self, what: str, *, where: str, remedy: str) -> None:
        super().__init__(f"{what}\n  where:  {where}\n  remedy: {remedy}")
        self.what = what
        self.where = where
        self.remedy = remedy
