"""The language of filters: the Common Expression Language, checked and run by Google's library, cut down to comparing.

Every expression is compiled twice. The first time, when somebody saves it, against the types of the event's fields:
with our own types (decimal, date), without arithmetic, loops or conversions. The second time, in a worker, to be run:
there a decimal is a double, a date its ISO text, an instant milliseconds. Comparing is all that can be done with a
decimal, and doubles compare as the decimals do as long as each gives its own text back; a longer one is unfit, never
rounded (ADR 15).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from functools import cache, lru_cache
from typing import Any, Final

from cel_expr_python import cel

from streams.core.events import Value
from streams.core.filters import InvalidFilter, Unfit
from streams.filters.messages import at, explain
from streams.filters.tokens import (
    LIBRARY,
    LITERALS,
    Token,
    calls_in,
    names_in,
    spoken,
    spoken_token,
    tokens_of,
    without_space,
)

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
#: What is left of the standard library; comparing is declared anew, for our types. Without macros there are no loops.
_KEPT: Final = "stdlib:\n  disable_macros: true\n  include_functions:\n" + "".join(
    f'    - {{name: "{name}"}}\n' for name in ("_&&_", "_||_", "!_", "_?_:_", *LIBRARY)
)


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
    """A compiled filter; ``names`` in the order in which they occur; ``why`` none has an answer, or None."""

    __slots__ = ("_evaluate", "names", "why")

    def __init__(self, names: tuple[str, ...], evaluate: Any, why: str | None) -> None:
        self.names = names
        self._evaluate = evaluate
        self.why = why

    def __call__(self, values: Mapping[str, Value]) -> bool:
        """The answer; raises :class:`Unfit` where there is none."""
        if self.why is not None:
            raise Unfit(self.why)
        data = {spoken(name): _plain(values.get(name)) for name in self.names}
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
    tokens = list(tokens_of(expression))
    for token, problem in _literal_problems(tokens):
        raise InvalidFilter(at(expression, token.start, problem))
    checker = _checker(variables)
    try:
        found = checker.compile("".join(spoken_token(token) for token in tokens)).return_type().name()
    except RuntimeError as error:
        raise InvalidFilter(explain(expression, str(error), tokens, types)) from None
    if found != "BOOL":
        raise InvalidFilter(f'{expression!r} is no question: write what it is compared with, as in facts.to == "x"')
    # What is run is made of the text once more, less strictly: here they must agree, or no event would ever fit.
    runs = _compiled(expression)
    if runs.why is not None or not types.keys() >= set(runs.names):
        raise InvalidFilter(f"{expression!r} is written in a way that is not understood: write fields as in facts.to")


@lru_cache(maxsize=64)
def _checker(variables: tuple[tuple[str, str], ...]) -> Any:
    numbers = [(one, other) for one in ("long", "decimal") for other in ("long", "decimal")]
    ordered = [*numbers, *((name, name) for name in ("string", "instant", "date"))]
    functions = [_operator(name, ordered) for name in ("_<_", "_<=_", "_>_", "_>=_")]
    functions += [_operator(name, [*ordered, ("boolean", "boolean")]) for name in ("_==_", "_!=_")]
    members = [(_TYPES[name], _TYPE.List(_IN_LISTS.get(name, _TYPES[name]))) for name in _TYPES if name != "any"]
    functions.append(_function("@in", [*members, (_TYPES["decimal"], _TYPE.List(_TYPE.INT))], _TYPE.BOOL))
    functions += [_function(name, [(_TYPE.STRING,)], _TYPES[type_name]) for name, type_name in LITERALS.items()]
    return cel.NewEnv(
        config=cel.NewEnvConfigFromYaml(_KEPT),
        variables={spoken(name): _TYPES.get(type_name, _TYPE.DYN) for name, type_name in variables},
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
    tokens = list(tokens_of(expression))
    names = tuple(dict.fromkeys(names_in(tokens)))
    try:
        if len(expression) > MAX_LENGTH:
            raise InvalidFilter(f"{len(expression)} characters, at most {MAX_LENGTH}")
        runner = cel.NewEnv(
            config=cel.NewEnvConfigFromYaml("stdlib: {disable_macros: true}"),
            variables={spoken(name): _TYPE.DYN for name in names},
        )
        return CelFilter(names, runner.compile("".join(_lowered(tokens))).eval, None)
    except (RuntimeError, ValueError, InvalidFilter) as error:
        return CelFilter((), None, f"it cannot be compiled: {error}")


def _literal_problems(tokens: Sequence[Token]) -> Iterator[tuple[Token, str]]:
    known = {id(argument) for _, argument in calls_in(tokens)}
    solid = without_space(tokens)
    for name, opening, argument in zip(solid, solid[1:], solid[2:], strict=False):
        function = name.text.rpartition(".")[2].strip() if name.kind == "name" else ""
        if function not in (*LITERALS, "matches") or opening.text != "(":
            continue
        if argument.kind != "string" or id(argument) not in known:
            yield argument, f"{function}(…) takes one text in quotes, nothing that is known only later"
        elif function != "matches":
            try:
                _literal(function, argument)
            except ValueError as error:
                yield argument, f"{argument.text} is no {LITERALS[function]}: {error}"
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


def _literal(function: str, argument: Token) -> date | datetime:
    text = argument.text.strip("rR\"'")
    if function == "date":
        return date.fromisoformat(text)
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("it needs a zone, as in 2018-11-04T02:00:00Z")
    return found


def _lowered(tokens: Sequence[Token]) -> Iterator[str]:
    """The text that is run: literals of dates and instants as the values that :func:`_plain` gives."""
    replaced = {id(argument): function for function, argument in calls_in(tokens) if function in LITERALS}
    for number, token in enumerate(tokens):
        if id(token) in replaced:
            yield repr(_plain(_literal(replaced[id(token)], token))).replace("'", '"')
        elif token.text in LITERALS and any(id(one) in replaced for one in tokens[number : number + 5]):
            yield ""  # what is left of date("…") is the text in parentheses
        else:
            yield spoken_token(token)


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


def _reason(text: str) -> str:
    return text.partition(": ")[2] or text
