"""The language of filters: the Common Expression Language, checked and run by Google's library, cut down to comparing.

Every expression is compiled twice. The first time, when somebody saves it, against the types of the event's fields:
with our own types (decimal, date), without arithmetic, loops or conversions. The second time, in a worker, to be run:
there a decimal is a double, a date its ISO text, an instant milliseconds. Comparing is all that can be done with a
decimal, and doubles compare as the decimals do as long as each gives its own text back; a longer one is unfit, never
rounded (ADR 15).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from functools import cache, lru_cache
from typing import Any, Final

from cel_expr_python import cel

from streams.core.events import Value
from streams.core.filters import InvalidFilter, Unfit

#: Characters. Without loops the work grows only with the text and the values, so this bounds the time of a filter.
MAX_LENGTH: Final = 2_000
#: Compiled filters kept; more distinct ones than this in one deployment would be compiled again now and then.
CACHED: Final = 4_096

_TYPE: Final = cel.Type
_TYPES: Final = {
    "string": _TYPE("google.protobuf.StringValue"),
    "long": _TYPE("google.protobuf.Int64Value"),
    "decimal": _TYPE("google.protobuf.DoubleValue"),
    "boolean": _TYPE("google.protobuf.BoolValue"),
    "instant": _TYPE.AbstractType("instant"),
    "date": _TYPE.AbstractType("date"),
    "any": _TYPE.DYN,
}
_IN_LISTS: Final = {"string": _TYPE.STRING, "long": _TYPE.INT, "decimal": _TYPE.DOUBLE, "boolean": _TYPE.BOOL}
_LITERALS: Final = {"date": "date", "timestamp": "instant"}  # date("2018-11-04") is a date, timestamp("…") an instant
_LIBRARY: Final = ("startsWith", "endsWith", "contains", "matches", "size")
_FUNCTIONS: Final = (*_LIBRARY, *_LITERALS)
#: What is left of the standard library; comparing is declared anew, for our types. Without macros there are no loops.
_KEPT: Final = "stdlib:\n  disable_macros: true\n  include_functions:\n" + "".join(
    f'    - {{name: "{name}"}}\n' for name in ("_&&_", "_||_", "!_", "_?_:_", *_LIBRARY)
)
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
_ERROR: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int


class CelLanguage:
    """Filters in CEL (a :class:`streams.core.filters.Language`); has no state but what it has compiled."""

    def check(self, expression: str, variables: Mapping[str, str]) -> None:
        """Raise :class:`InvalidFilter` unless ``expression`` is a yes-or-no question about these variables (name →
        name of its type)."""
        _check(expression, tuple(sorted(variables.items())))

    def compile(self, expression: str) -> CelFilter:
        """What runs per event, without asking for types again."""
        return _compiled(expression)


class CelFilter:
    """A compiled filter; ``names`` in the order in which they occur."""

    __slots__ = ("_evaluate", "_why", "names")

    def __init__(self, names: tuple[str, ...], evaluate: Any, why: str | None) -> None:
        self.names = names
        self._evaluate = evaluate
        self._why = why

    def __call__(self, values: Mapping[str, Value]) -> bool:
        """The answer; raises :class:`Unfit` where there is none."""
        if self._why is not None:
            raise Unfit(self._why)
        data = {_spoken(name): _plain(values.get(name)) for name in self.names}
        try:
            found = self._evaluate(data=data).value()
        except RuntimeError as error:
            raise Unfit(str(error)) from error
        if found is True or found is False:
            return bool(found)
        raise Unfit("the answer is null, neither yes nor no" if found is None else _reason(str(found)))


@lru_cache(maxsize=CACHED)
def _check(expression: str, variables: tuple[tuple[str, str], ...]) -> None:
    if len(expression) > MAX_LENGTH:
        raise InvalidFilter(f"{len(expression)} characters, at most {MAX_LENGTH}: use several routes or a data source")
    types = dict(variables)
    tokens = list(_tokens(expression))
    for token, problem in _literal_problems(tokens):
        raise InvalidFilter(_at(expression, token.start, problem))
    checker = _checker(variables)
    try:
        found = checker.compile("".join(_spoken_token(token) for token in tokens)).return_type().name()
    except RuntimeError as error:
        raise InvalidFilter(_explain(expression, str(error), tokens, types)) from None
    if found != "BOOL":
        raise InvalidFilter(f'{expression!r} is no question: write what it is compared with, as in facts.to == "x"')


@lru_cache(maxsize=64)
def _checker(variables: tuple[tuple[str, str], ...]) -> Any:
    numbers = [(one, other) for one in ("long", "decimal") for other in ("long", "decimal")]
    ordered = [*numbers, *((name, name) for name in ("string", "instant", "date"))]
    functions = [_operator(name, ordered) for name in ("_<_", "_<=_", "_>_", "_>=_")]
    functions += [_operator(name, [*ordered, ("boolean", "boolean")]) for name in ("_==_", "_!=_")]
    members = [(_TYPES[name], _TYPE.List(_IN_LISTS.get(name, _TYPES[name]))) for name in _TYPES if name != "any"]
    functions.append(_function("@in", [*members, (_TYPES["decimal"], _TYPE.List(_TYPE.INT))], _TYPE.BOOL))
    functions += [_function(name, [(_TYPE.STRING,)], _TYPES[type_name]) for name, type_name in _LITERALS.items()]
    return cel.NewEnv(
        config=cel.NewEnvConfigFromYaml(_KEPT),
        variables={_spoken(name): _TYPES.get(type_name, _TYPE.DYN) for name, type_name in variables},
        functions=functions,
    )


def _operator(name: str, pairs: Sequence[tuple[str, str]]) -> Any:
    return _function(name, [(_TYPES[one], _TYPES[other]) for one, other in pairs], _TYPE.BOOL)


def _function(name: str, overloads: Sequence[tuple[Any, ...]], returns: Any) -> Any:
    declared = [
        cel.Overload(f"{name}_{number}", return_type=returns, parameters=list(parameters))
        for number, parameters in enumerate(overloads)
    ]
    return cel.FunctionDecl(name, declared)


@lru_cache(maxsize=CACHED)
def _compiled(expression: str) -> CelFilter:
    tokens = list(_tokens(expression))
    names = tuple(dict.fromkeys(_names(tokens)))
    try:
        if len(expression) > MAX_LENGTH:
            raise InvalidFilter(f"{len(expression)} characters, at most {MAX_LENGTH}")
        runner = cel.NewEnv(
            config=cel.NewEnvConfigFromYaml("stdlib: {disable_macros: true}"),
            variables={_spoken(name): _TYPE.DYN for name in names},
        )
        return CelFilter(names, runner.compile("".join(_lowered(tokens))).eval, None)
    except (RuntimeError, ValueError, InvalidFilter) as error:
        return CelFilter((), None, f"it cannot be compiled: {error}")


def _tokens(expression: str) -> Iterator[_Token]:
    for match in _TOKEN.finditer(expression):
        yield _Token(match.lastgroup or "", match.group(), match.start())


def _solid(tokens: Sequence[_Token]) -> list[_Token]:
    return [token for token in tokens if token.kind != "space"]


def _names(tokens: Sequence[_Token]) -> Iterator[str]:
    """The names of variables: no words of the language, no functions, and no method at the end of a name."""
    solid = [*_solid(tokens), _Token("", "", 0)]
    for before, token, after in zip([_Token("", "", 0), *solid], solid, solid[1:], strict=False):
        if token.kind != "name" or token.text in _WORDS or before.text == ".":
            continue
        path = re.sub(r"\s", "", token.text)
        if after.text == "(":
            path = path.rpartition(".")[0]
        if path:
            yield path


def _calls(tokens: Sequence[_Token]) -> Iterator[tuple[str, _Token]]:
    """(function, its only argument) for every call of a function with one token in its parentheses."""
    solid = _solid(tokens)
    for name, opening, argument, closing in zip(solid, solid[1:], solid[2:], solid[3:], strict=False):
        if name.kind == "name" and opening.text == "(" and closing.text == ")":
            yield name.text.rpartition(".")[2].strip(), argument


def _literal_problems(tokens: Sequence[_Token]) -> Iterator[tuple[_Token, str]]:
    known = {id(argument) for _, argument in _calls(tokens)}
    solid = _solid(tokens)
    for name, opening, argument in zip(solid, solid[1:], solid[2:], strict=False):
        function = name.text.rpartition(".")[2].strip() if name.kind == "name" else ""
        if function not in (*_LITERALS, "matches") or opening.text != "(":
            continue
        if argument.kind != "string" or id(argument) not in known:
            yield argument, f"{function}(…) takes one text in quotes, nothing that is known only later"
        elif function != "matches":
            try:
                _literal(function, argument)
            except ValueError as error:
                yield argument, f"{argument.text} is no {_LITERALS[function]}: {error}"
        elif (why := _pattern_problem(argument.text)) is not None:
            yield argument, f"{argument.text} is no regular expression (RE2): {why}"
    for token in solid:
        if token.kind == "number" and not _exact(token.text):
            yield token, f"{token.text} has more digits than can be compared exactly; use about 15"


def _exact(number: str) -> bool:
    if re.fullmatch(r"\d+[uU]?", number):
        return True
    try:
        return Decimal(number) == Decimal(repr(float(number)))
    except (InvalidOperation, ValueError, OverflowError):
        return False


@cache
def _pattern_problem(literal: str) -> str | None:
    found = cel.NewEnv().compile(f'"".matches({literal})').eval()
    return None if found.type() == _TYPE.BOOL else _reason(str(found.value()))


def _literal(function: str, argument: _Token) -> date | datetime:
    text = argument.text.strip("rR\"'")
    if function == "date":
        return date.fromisoformat(text)
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("it needs a zone, as in 2018-11-04T02:00:00Z")
    return found


def _lowered(tokens: Sequence[_Token]) -> Iterator[str]:
    """The text that is run: literals of dates and instants as the values that :func:`_plain` gives."""
    replaced = {id(argument): function for function, argument in _calls(tokens) if function in _LITERALS}
    for number, token in enumerate(tokens):
        if id(token) in replaced:
            yield repr(_plain(_literal(replaced[id(token)], token))).replace("'", '"')
        elif token.text in _LITERALS and any(id(one) in replaced for one in tokens[number : number + 5]):
            yield ""  # what is left of date("…") is the text in parentheses
        else:
            yield _spoken_token(token)


def _plain(value: Value) -> bool | int | str | float | None:
    """What the runner gets for a value; raises :class:`Unfit` for a decimal that a double would change."""
    match value:
        case Decimal():
            number = float(value)
            if Decimal(repr(number)) != value:
                raise Unfit(f"{value} has too many digits to be compared exactly")
            return number
        case datetime():
            return int(value.astimezone(UTC).timestamp() * 1000)
        case date():
            return value.isoformat()
        case str():
            return str(value)  # the library takes no enumerations
        case _:
            return value


def _spoken(name: str) -> str:
    """A name as CEL takes it: ``package`` and others are reserved there. The length stays, and with it every column."""
    head, dot, rest = name.partition(".")
    return f"{head[:-1]}{head[-1].upper()}{dot}{rest}" if head in _RESERVED else name


def _spoken_token(token: _Token) -> str:
    return _spoken(token.text) if token.kind == "name" else token.text


# -- what people read ------------------------------------------------------------------------------------------------

_WORDING: Final[Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]] = (
    (r"wrapper\((\w+)\)", r"\1"),
    (r"\bdouble\b", "decimal"),
    (r"\bint\b", "long"),
    (r"\bbool\b", "boolean"),
    (r" \(in container ''\)", ""),
)


def _explain(expression: str, error: str, tokens: Sequence[_Token], types: Mapping[str, str]) -> str:
    """The library's first complaint, with the place, in our words, and with the nearest names."""
    found = _ERROR.search(error)
    if found is None:
        return f"{expression!r}: {error.partition('[')[0].strip()}; make it simpler"
    lines = expression.split("\n")
    offset = sum(len(line) + 1 for line in lines[: int(found[1]) - 1]) + int(found[2]) - 1
    text = found[3].removesuffix("[INVALID_ARGUMENT]").strip()
    unknown = re.match(r"undeclared reference to '([^']+)'", text)
    if unknown is not None:
        name = _unspoken(unknown[1])
        start = next(
            (t.start for t in tokens if t.kind == "name" and t.start <= offset <= t.start + len(t.text)), offset
        )
        if re.match(r"[\w\s.]*\(", expression[start:]):
            return _at(expression, start, f"there is no function {name}; there are {', '.join(_FUNCTIONS)}")
        return _at(expression, start, _unknown(name, tokens, offset, types))
    mismatch = re.match(r"found no matching overload for '([^']+)' applied to '(.*)'", text)
    if mismatch is not None:
        sides = mismatch[2]
        for pattern, with_what in _WORDING:
            sides = re.sub(pattern, with_what, sides)
        return _at(expression, offset, f"{mismatch[1].strip('_@')} cannot be used on {sides}")
    return _at(expression, offset, _unspoken(text.partition(", expecting")[0].partition(" expecting {")[0]))


def _unknown(name: str, tokens: Sequence[_Token], offset: int, types: Mapping[str, str]) -> str:
    if not re.fullmatch(r"[\w.]+", name) or name in ("_+_", "_-_", "_*_", "_/_", "_%_", "-_", "_[_]"):
        return f"there is no {name.strip('_')} here: a filter compares, it does not calculate"
    whole = next((path for t in tokens for path in _names([t]) if t.start <= offset <= t.start + len(t.text)), name)
    near = _nearest(whole, types)
    return f"there is no {whole}" + (
        f" (did you mean {' or '.join(near)}?)" if near else f"; there are {', '.join(types)}"
    )


def _nearest(name: str, types: Mapping[str, str]) -> list[str]:
    near = difflib.get_close_matches(name, list(types), n=3, cutoff=0.5)
    same = [other for other in types if other.partition(".")[2] == name.partition(".")[2]]
    head = [other for other in types if other.partition(".")[0] == name.partition(".")[0]]
    return list(dict.fromkeys([*near, *same, *head]))[:5]


def _at(expression: str, offset: int, problem: str) -> str:
    line = expression.count("\n", 0, offset) + 1
    column = offset - (expression.rfind("\n", 0, offset) + 1) + 1
    place = f"column {column}" if "\n" not in expression else f"line {line}, column {column}"
    return f"{place} of {expression!r}: {problem}"


def _unspoken(text: str) -> str:
    return re.sub(rf"\b({'|'.join(map(_spoken, sorted(_RESERVED)))})\b", lambda found: found[0].lower(), text)


def _reason(text: str) -> str:
    return text.partition(": ")[2] or text
