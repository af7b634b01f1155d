"""A bar on stderr for work that takes long; nothing where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Tells the bar that so many more are done, of ``total`` if that has become known."""

    def __call__(self, done: int = 1, *, total: int | None = None) -> None: ...


@contextmanager
def progress(description: str, total: int) -> Iterator[Advance]:
    """Between these two the bar is on the screen; it disappears at the end."""
    if not sys.stderr.isatty():
        yield _nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)

        def advance(done: int = 1, *, total: int | None = None) -> None:
            bar.update(task, advance=done, total=total)

        yield advance


def _nothing(done: int = 1, *, total: int | None = None) -> None:
    """Nobody looks."""
