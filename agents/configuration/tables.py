"""Files of ``[[name]]`` tables in TOML, as people write configuration: every mistake is told, with its remedy."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from streams.core.errors import Misconfigured


def read_tables(path: Path, name: str, what: str, parse_float: Callable[[str], Any] = float) -> list[Any]:
    """The ``[[name]]`` tables of a file of ``what``; raises Misconfigured when it is no such file."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=parse_float)
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path} is not TOML: {error}") from error
    tables = document.get(name)
    if set(document) != {name} or not isinstance(tables, list) or not tables:
        raise Misconfigured(f"{path}: a file of {what} has [[{name}]] tables, at least one, and nothing else")
    return tables


def no_strangers(table: Iterable[str], known: Sequence[str], named: Callable[[str], str] = repr) -> None:
    """Raise Misconfigured for a field that is not known, ``named`` so, with the nearest one that is."""
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1) or known
            raise Misconfigured(f"there is no field {named(key)}; did you mean {', '.join(near)}?")


def refuse(path: Path, problems: Sequence[str]) -> None:
    """Raise Misconfigured with every problem of the file, if there is one."""
    if problems:
        raise Misconfigured(f"{path}: nothing was saved.\n" + "\n".join(f"  {problem}" for problem in problems))
