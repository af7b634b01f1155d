"""Which paths a person may have meant: ``invoice.stat`` for ``invoice.state``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST = 5


def nearest_paths(name: str, paths: Iterable[str], likeness: float, *, same_object: bool = False) -> list[str]:
    """At most five: paths that are written nearly like ``name``, those of the same field of other objects, and, with
    ``same_object``, other fields of its object."""
    known = list(paths)
    object, _, field = name.partition(".")
    near = difflib.get_close_matches(name, known, n=3, cutoff=likeness)
    near += [other for other in known if other.partition(".")[2] == field]
    if same_object:
        near += [other for other in known if other.partition(".")[0] == object]
    return list(dict.fromkeys(near))[:MOST]
