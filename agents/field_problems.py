"""What a value that its dataclass refuses has to be: the field in the file's words, what it is, and what fits. Pure.

``msgspec`` says what it has found (``Invalid enum value 'continue' - at `$.on_exhausted` ``); who wrote the file needs
to know what to write instead.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any, Final, get_args, get_origin

import msgspec

from streams.codec.convert import fields_of

_PLACED: Final = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?", re.DOTALL)
_ENUM: Final = re.compile(r"Invalid enum value (?P<value>.*)", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(?P<field>.*)`")
_EXPECTED: Final = re.compile(r"Expected `(?P<wanted>.*)`, got `(?P<got>.*)`")
_STEP: Final = re.compile(r"\[[^\]]*\]|[^.\[]+")
#: Python type → in words, with an example.
_SCALARS: Final[dict[Any, str]] = {
    str: 'text such as "…"',
    bool: "true or false",
    int: "a whole number such as 10",
    float: "a number such as 1.5",
    Decimal: 'a decimal as text such as "12.50"',
    datetime: "an instant with its zone such as 2026-03-01T00:00:00Z",
    date: "a date such as 2026-03-01",
    time: "a time such as 09:00",
}
_JSON_WORDS: Final = {"str": "text", "array": "a list", "object": "a table", "int": "a whole number",
                      "float": "a number", "bool": "true or false", "null": "nothing"}  # fmt: skip


def field_problem(error: msgspec.ValidationError, cls: type) -> str:
    """``on_exhausted is 'continue'; use 'park' or 'dead'``; what is not understood stays as it was said."""
    placed = _PLACED.fullmatch(str(error))
    assert placed is not None  # every text matches
    what, path = placed["what"], placed["path"] or ""
    if (enum := _ENUM.fullmatch(what)) is not None and (values := _values(_hint(cls, path))):
        near = difflib.get_close_matches(enum["value"].strip("'"), values, n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        return f"{path} is {enum['value']}{meant}; use {' or '.join(map(repr, values))}"
    if (missing := _MISSING.fullmatch(what)) is not None:
        name = f"{path}.{missing['field']}" if path else missing["field"]
        return f"{name} is missing: add {_fitting(cls, name)}"
    if (expected := _EXPECTED.fullmatch(what)) is not None and path:
        got = _JSON_WORDS.get(expected["got"], expected["got"])
        return f"{path} must be {_fitting(cls, path)}, not {got}"
    return f"{path}: {what}" if path else what


def _hint(cls: type, path: str) -> Any:
    """The declared type of a field, None where the path leads nowhere that is known."""
    hint: Any = cls
    for step in _STEP.findall(path):
        hint = _without_null(hint)
        if step.startswith("["):
            arguments = [one for one in get_args(hint) if one is not Ellipsis]
            hint = arguments[-1] if arguments else None
        else:
            hint = fields_of(hint).get(step) if dataclasses.is_dataclass(hint) and isinstance(hint, type) else None
    return _without_null(hint)


def _without_null(hint: Any) -> Any:
    others = [one for one in get_args(hint) if one is not type(None)]
    return others[0] if type(None) in get_args(hint) and len(others) == 1 else hint


def _values(hint: Any) -> list[str]:
    return [str(one.value) for one in hint] if isinstance(hint, type) and issubclass(hint, Enum) else []


def _fitting(cls: type, path: str) -> str:
    hint = _hint(cls, path)
    if values := _values(hint):
        return " or ".join(map(repr, values))
    if get_origin(hint) in (tuple, list):
        return f"a list such as {_example(cls, path, hint)}"
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return f"a table with the fields {', '.join(fields_of(hint))}"
    return _SCALARS.get(hint, "a value" if get_origin(hint) is not dict else "a table")


def _example(cls: type, path: str, hint: Any) -> str:
    """The default of the field, if it is one to learn from."""
    inside, _, name = path.rpartition(".")
    owner = _hint(cls, inside) if inside else cls
    defaults: dict[str, Any] = (
        {one.name: one.default for one in dataclasses.fields(owner)} if dataclasses.is_dataclass(owner) else {}
    )
    if isinstance(default := defaults.get(name), tuple) and default:
        return json.dumps(default[:3])
    items = {int: "[1, 2]", float: "[0.5, 1.5]"}
    return items.get(get_args(hint)[0], '["…", "…"]')
