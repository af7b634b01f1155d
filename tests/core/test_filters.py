"""The filter language: what is refused when it is saved, what an event answers, and what has no answer."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.catalogue import CATALOGUE
from streams.core.events import Value
from streams.core.facts import fact_type
from streams.core.filters import InvalidFilter, Unfit, variables
from streams.filters import CelLanguage
from streams.filters.cel import MAX_LENGTH

LANGUAGE = CelLanguage()
VARIABLES = {
    "invoice.amount": "decimal",
    "invoice.due_date": "date",
    "account.billing_day": "long",
    "account.name": "string",
    "package.name": "string",
    "facts.silent": "boolean",
    "occurred_at": "instant",
    "type": "string",
}
VALUES: dict[str, Value] = {
    "invoice.amount": Decimal("129.900000"),
    "invoice.due_date": date(2018, 11, 4),
    "account.billing_day": 31,
    "account.name": "Ana",
    "package.name": "Fibre",
    "facts.silent": False,
    "occurred_at": datetime(2018, 11, 4, 2, tzinfo=UTC),
    "type": "invoice.posted",
}


def ask(expression: str, **changed: Any) -> bool:
    """The answer for VALUES, after the check that saving makes."""
    LANGUAGE.check(expression, VARIABLES)
    return LANGUAGE.compile(expression)(VALUES | {name.replace("__", "."): value for name, value in changed.items()})


YES = [
    "invoice.amount == 129.9",
    "invoice.amount > 129 && invoice.amount < 129.91",
    "invoice.amount in [1.5, 129.9]",
    "account.billing_day == 31",
    "account.billing_day > 30.5",
    "account.billing_day > -1",
    '!(account.name in ["Bo", "Cy"])',
    'package.name.startsWith("Fib") || package.name == "x"',
    'package.name.matches("^F.*e$") && package.name.size() == 5 && size(package.name) > 4',
    'type == "invoice.posted" ? !facts.silent : false',
    'invoice.due_date < date("2018-11-05") && invoice.due_date == date("2018-11-04")',
    'occurred_at == timestamp("2018-11-04T00:00:00-02:00")',
    'invoice.due_date != null // a comment with date("nonsense")',
    "account.name != 'date(\"x\")'",
]


@pytest.mark.parametrize("expression", YES)
def test_an_event_answers(expression: str) -> None:
    """Every type, every operator; a name that CEL reserves (package, type) is a name like others."""
    assert ask(expression) is True
    assert ask(f"!({expression.partition(' //')[0]})") is False


REFUSED = [
    ("account.nam == 'x'", "column 1 of \"account.nam == 'x'\": there is no account.nam (did you mean account.name"),
    ("facts.silent &&\n invoice.amout > 1", "line 2, column 2"),
    ("account.name == 5", "column 14 of 'account.name == 5': == cannot be used on (string, long)"),
    ('invoice.amount > "100"', "> cannot be used on (decimal, string): write 100 without quotes"),
    ('invoice.due_date > "2018-11-04"', '> cannot be used on (date, string): write date("2026-03-01")'),
    ("invoice.due_date < occurred_at", "< cannot be used on (date, instant)"),
    ('account.billing_day in ["1"]', "in cannot be used on (long, list(string)): write 1 without quotes"),
    ("account.name == invoice.amount", ': write 10.00 for a number, "10.00" for a text'),
    ("invoice.amount + 1.0 > 2.0", "there is no + here: a filter compares, it does not calculate"),
    ("invoice.amount > 0.10000000000000000555", "more digits than can be compared exactly"),
    ('invoice.due_date < date("2018-11-31")', "column 25 of 'invoice.due_date < date(\"2018-11-31\")'"),
    ("invoice.due_date < date(account.name)", "date(…) takes one text in quotes"),
    ('occurred_at < timestamp("2018-11-04T00:00:00")', "it needs a zone"),
    ('account.name.matches("(")', "is no regular expression"),
    ("account.name.matches(package.name)", "matches(…) takes one text in quotes"),
    ("[1, 2].all(x, x > 1)", "there is no"),
    ("occurred_at.getHours() > 2", "there is no function getHours; there are startsWith"),
    ("account.name", "is no question"),
    ("facts.silent &&", "column 16 of 'facts.silent &&': it is incomplete, something is missing at its end"),
    ("(facts.silent", ") is missing at its end"),
    ('"open', 'the text that begins here has no end: " is missing'),
    ('account.name = "x"', "column 14 of 'account.name = \"x\"': '=' is not understood: write =="),
    ('account.name <> "x"', "'<>' is not understood: write !="),
    ('account.name == "x" AND facts.silent', "'AND' is not understood: write &&"),
    ("facts.silent | facts.silent", "'|' is not understood: write ||"),
    ("not facts.silent", "'not' is not understood: write !"),
    ('account.name="x"', "'=' is not understood: write =="),
    ('account.name<>"x"', "'<>' is not understood: write !="),
    ("account.billing_day=-1", "'=' is not understood: write =="),
    ("(facts.silent)&(facts.silent)", "'&' is not understood: write &&"),
    ("not(facts.silent)", "'not' is not understood: write !"),
    ('account.name is "x"', "'is' is not understood: write =="),
    ('account.name is not "x"', "'is not' is not understood: write !="),
    ('account.name == "is" "x"', "'\"' is not expected here"),
    ("facts.silent)", "')' is not expected here"),
    ("(" * 50 + "facts.silent" + ")" * 50, "make it simpler"),
    (f'account.name == "{"x" * MAX_LENGTH}"', f"at most {MAX_LENGTH}"),
    ('.account.name == "x"', "is not understood"),
    ('account.name == "x" || .facts.silent', "is not understood"),
    ('account.`name` == "x"', "is not understood"),
    ('account // of the event\n .name == "x"', "is not understood"),
]


@pytest.mark.parametrize(("expression", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_cannot_be_asked_is_refused_when_it_is_saved(expression: str, words: str) -> None:
    """With the place, the reason in our own words, and the nearest names."""
    with pytest.raises(InvalidFilter) as refused:
        LANGUAGE.check(expression, VARIABLES)

    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("invoice.amount > 100", None),
        ('account.name.startsWith("A")', None),
        ("facts.silent", None),
        ("invoice.amount > 100", Decimal("12345678901234567.123456")),
        ("1 +", 1),
        ("x" * (MAX_LENGTH + 1), 1),
    ],
)
def test_where_there_is_no_answer_it_says_so_and_nothing_else_is_raised(expression: str, value: Value) -> None:
    """Null where a value is needed, more digits than a double has, text that was never checked."""
    ask_for = LANGUAGE.compile(expression)

    with pytest.raises(Unfit):
        ask_for(dict.fromkeys(ask_for.names, value))


def test_null_can_be_asked_for_and_guarded_against() -> None:
    """Equality with null always has an answer, and what stands behind && is not asked in vain."""
    assert ask("account.name == null", account__name=None) is True
    assert ask('account.name == "x"', account__name=None) is False
    assert ask('account.name != null && account.name.startsWith("A")', account__name=None) is False


def test_a_pattern_takes_linear_time_on_what_breaks_others() -> None:
    """A backtracking matcher would need 2^50 steps here and the test would run into its time limit."""
    assert ask('account.name.matches("(a+)+$")', account__name="a" * 50_000 + "b") is False


@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**8), max_value=10**8),
    st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**8), max_value=10**8),
    st.sampled_from((0, Decimal("0.000001"), Decimal("-0.000001"))),
)
def test_money_compares_as_decimals_do(one: Decimal, other: Decimal, near: Decimal) -> None:
    """A hundred million with all six places of the wire; also for values that differ in the last place only."""
    for left, right in ((one, other), (one, one + near)):
        literal = format(right, "f")
        values = {"invoice.amount": left}
        assert LANGUAGE.compile(f"invoice.amount < {literal}")(values) is (left < right)
        assert LANGUAGE.compile(f"invoice.amount == {literal}")(values) is (left == right)


@pytest.mark.parametrize("event_type", CATALOGUE)
def test_every_fact_of_the_catalogue_has_a_type(event_type: str) -> None:
    """Without one a filter on it could not be checked: add the fact to FACT_TYPES in streams/core/facts.py."""
    known = CATALOGUE[event_type]

    assert [name for name in known.facts if fact_type(known, name) == "any"] == []
    assert set(variables(event_type).values()) <= {"string", "long", "decimal", "boolean", "date", "instant"}
