"""Names that people type, where only some mean anything: a name that there is not is refused, with the nearest ones.

Empty answers with exit code 0 are for questions that were understood. A name of a closed set (states, zones) and a name
that has to exist (groups, accounts, topics) are refused with exit code 2; a date or a zone in which nothing happens is
a good question, and its answer is empty.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from typing import NoReturn

import typer

from agents.cli.output import Exit, note

#: More than these (zones, accounts) would fill the screen; then only the nearest names are told.
LISTED = 15
NEAREST = 3


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Up to three of ``known`` that may be meant by ``name``, the most similar first; case does not matter."""
    names = {one.casefold(): one for one in sorted(known)}
    asked = name.casefold()
    found = difflib.get_close_matches(asked, names, n=NEAREST)
    # "berlin" is not similar to "america/argentina/rio_gallegos" in letters, but "gallegos" is a part of it
    found += [one for one in names if len(asked) > 2 and asked in one and one not in found]
    return [names[one] for one in found[:NEAREST]]


def meant(near: Sequence[str]) -> str:
    """`` (did you mean 'pending'?)``, or nothing."""
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""


def unknown(what: str, name: str, known: Collection[str]) -> str:
    """``there is no state 'panding' (did you mean 'pending'?); there are: …``"""
    hint = meant(nearest(name, known))
    if not known:
        return f"there is no {what} {name!r}, nor any other"
    names = sorted(known) if isinstance(known, set | frozenset) else known
    listed = f"; there are: {', '.join(names)}" if len(known) <= LISTED else ""
    return f"there is no {what} {name!r}{hint}{listed}"


def one_of(name: str, known: Collection[str], *, what: str, option: str) -> str:
    """``name``, if it is one of a closed set; otherwise wrong usage of ``option``."""
    if name not in known:
        raise typer.BadParameter(unknown(what, name, known), param_hint=option)
    return name


def refuse(message: str) -> NoReturn:
    """Leave with exit code 2 for a name that was looked up and is not there."""
    note(f"error: {message}")
    raise typer.Exit(Exit.USAGE)
