"""What people read when a filter is refused: the library's complaint, with the place, in our words, and near names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from streams.core.nearest import nearest_paths
from streams.filters.tokens import FUNCTIONS, Token, names_in, unspoken

_ERROR: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
#: The library's words, and ours.
_WORDING: Final[Sequence[tuple[str, str]]] = (
    (r"wrapper\((\w+)\)", r"\1"),
    (r"\bdouble\b", "decimal"),
    (r"\bint\b", "long"),
    (r"\bbool\b", "boolean"),
    (r" \(in container ''\)", ""),
)
#: What other languages write, and what is meant here; at the place of the complaint, or right in front of it.
_OTHERWISE: Final = {"=": "==", "<>": "!=", "&": "&&", "|": "||", "and": "&&", "or": "||", "not": "!",
                     "is": "==", "is not": "!="}  # fmt: skip
_WORD: Final = re.compile(r"<>|[=&|]+|\w+|[^\w\s]")
#: How a value is written that is no text and no number.
_LITERAL: Final = {"date": 'date("2026-03-01")', "instant": 'timestamp("2026-03-01T00:00:00Z")',
                   "boolean": "true or false without quotes"}  # fmt: skip


def explain(expression: str, error: str, tokens: Sequence[Token], types: Mapping[str, str]) -> str:
    """The library's first complaint, with the place, in our words, and with the nearest names."""
    found = _ERROR.search(error)
    if found is None:
        return f"{expression!r}: {error.partition('[')[0].strip()}; make it simpler"
    lines = expression.split("\n")
    offset = sum(len(line) + 1 for line in lines[: int(found[1]) - 1]) + int(found[2]) - 1
    text = found[3].removesuffix("[INVALID_ARGUMENT]").strip()
    unknown = re.match(r"undeclared reference to '([^']+)'", text)
    if unknown is not None:
        name = unspoken(unknown[1])
        start = next(
            (t.start for t in tokens if t.kind == "name" and t.start <= offset <= t.start + len(t.text)), offset
        )
        if re.match(r"[\w\s.]*\(", expression[start:]):
            if name.lower() in _OTHERWISE:
                return at(expression, start, f"{name!r} is not understood: write {_OTHERWISE[name.lower()]}")
            return at(expression, start, f"there is no function {name}; there are {', '.join(FUNCTIONS)}")
        return at(expression, start, _unknown(name, tokens, offset, types))
    mismatch = re.match(r"found no matching overload for '([^']+)' applied to '(.*)'", text)
    if mismatch is not None:
        sides = mismatch[2]
        for pattern, ours in _WORDING:
            sides = re.sub(pattern, ours, sides)
        return at(
            expression, offset, f"{mismatch[1].strip('_@')} cannot be used on {sides}{_remedy(expression, sides)}"
        )
    if "'<EOF>'" in text:
        return at(expression, offset, f"it is incomplete, {_lacking(text)}")
    if text.startswith("Syntax error"):
        return at(expression, offset, _misspelt(expression, offset))
    return at(expression, offset, unspoken(text))


def _misspelt(expression: str, offset: int) -> str:
    """What is written there, and what is meant."""
    words = list(_WORD.finditer(expression))
    at = next((number for number, word in enumerate(words) if word.end() > offset), len(words))
    here, before = [word[0] for word in words[at : at + 2]], [word[0] for word in words[max(0, at - 1) : at]]
    for word in (" ".join(here), " ".join([*before, *here[:1]]), *here[:1], *before):
        if (ours := _OTHERWISE.get(word.lower())) is not None:
            return f"{word!r} is not understood: write {ours}"
    quote = expression[offset : offset + 1]
    if quote in ("'", '"') and quote not in expression[offset + 1 :]:
        return f"the text that begins here has no end: {quote} is missing"
    return f"{(here[0] if here else expression[offset:])!r} is not expected here"


def _remedy(expression: str, sides: str) -> str:
    """How to write the literal, where one of the two sides is a text and the other is none."""
    types = set(re.findall(r"\w+", sides)) - {"list"}
    if len(types) != 2 or "string" not in types:
        return ""
    [other] = types - {"string"}
    if other in _LITERAL:
        return f": write {_LITERAL[other]}"
    quoted = re.search(r"([\"'])(-?\d+(?:\.\d+)?)\1", expression)
    if other in ("decimal", "long"):
        example = "10.00" if other == "decimal" else "10"
        return (
            f": write {quoted[2]} without quotes"
            if quoted
            else f': write {example} for a number, "{example}" for a text'
        )
    return ""


def _lacking(text: str) -> str:
    missing = re.search(r"missing '([^']+)' at", text)
    return (
        f"{missing[1]} is missing at its end" if missing else 'something is missing at its end, as in facts.to == "x"'
    )


def _unknown(name: str, tokens: Sequence[Token], offset: int, types: Mapping[str, str]) -> str:
    if not re.fullmatch(r"[\w.]+", name) or name in ("_+_", "_-_", "_*_", "_/_", "_%_", "-_", "_[_]"):
        return f"there is no {name.strip('_')} here: a filter compares, it does not calculate"
    whole = next((path for t in tokens for path in names_in([t]) if t.start <= offset <= t.start + len(t.text)), name)
    near = nearest_paths(whole, types, 0.5, same_object=True)
    return f"there is no {whole}" + (
        f" (did you mean {' or '.join(near)}?)" if near else f"; there are {', '.join(types)}"
    )


def at(expression: str, offset: int, problem: str) -> str:
    line = expression.count("\n", 0, offset) + 1
    column = offset - (expression.rfind("\n", 0, offset) + 1) + 1
    place = f"column {column}" if "\n" not in expression else f"line {line}, column {column}"
    return f"{place} of {expression!r}: {problem}"
