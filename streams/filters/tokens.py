"""The words of a filter's text: enough to know its names, calls and literals, and to tell where one is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

#: Functions of texts that CEL has, and ours.
LIBRARY: Final = ("startsWith", "endsWith", "contains", "matches", "size")
LITERALS: Final = {"date": "date", "timestamp": "instant"}  # date("2018-11-04") is a date, timestamp("…") an instant
FUNCTIONS: Final = (*LIBRARY, *LITERALS)
#: First words of names that CEL keeps for itself, as keywords or as names of types.
_RESERVED: Final = frozenset(
    re.findall(
        r"\w+",
        "as break const continue else for function if import let loop package namespace return var void while "
        "bool bytes double dyn google int list map null_type string type uint",
    )
)
_WORDS: Final = frozenset({"true", "false", "null", "in"})
_STRING: Final = (
    r"[rR]?(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')"
)
_TOKEN: Final = re.compile(
    rf"(?P<space>\s+|//[^\n]*)|(?P<string>{_STRING})|(?P<number>\d+\.?\d*(?:[eE][+-]?\d+)?[uU]?|\.\d+(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_]\w*(?:\s*\.\s*[A-Za-z_]\w*)*)|(?P<other>.)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    start: int


def tokens_of(expression: str) -> Iterator[Token]:
    for match in _TOKEN.finditer(expression):
        yield Token(match.lastgroup or "", match.group(), match.start())


def without_space(tokens: Sequence[Token]) -> list[Token]:
    return [token for token in tokens if token.kind != "space"]


def names_in(tokens: Sequence[Token]) -> Iterator[str]:
    """The names of variables: no words of the language, no functions, and no method at the end of a name."""
    solid = [*without_space(tokens), Token("", "", 0)]
    for before, token, after in zip([Token("", "", 0), *solid], solid, solid[1:], strict=False):
        if token.kind != "name" or token.text in _WORDS or before.text == ".":
            continue
        path = re.sub(r"\s", "", token.text)
        if after.text == "(":
            path = path.rpartition(".")[0]
        if path:
            yield path


def calls_in(tokens: Sequence[Token]) -> Iterator[tuple[str, Token]]:
    """(function, its only argument) for every call of a function with one token in its parentheses."""
    solid = without_space(tokens)
    for name, opening, argument, closing in zip(solid, solid[1:], solid[2:], solid[3:], strict=False):
        if name.kind == "name" and opening.text == "(" and closing.text == ")":
            yield name.text.rpartition(".")[2].strip(), argument


def spoken(name: str) -> str:
    """A name as CEL takes it: ``package`` and others are reserved there. The length stays, and with it every column."""
    head, dot, rest = name.partition(".")
    return f"{head[:-1]}{head[-1].upper()}{dot}{rest}" if head in _RESERVED else name


def spoken_token(token: Token) -> str:
    return spoken(token.text) if token.kind == "name" else token.text


def unspoken(text: str) -> str:
    return re.sub(rf"\b({'|'.join(map(spoken, sorted(_RESERVED)))})\b", lambda found: found[0].lower(), text)
