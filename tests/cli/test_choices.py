"""A name that there is not: which is meant, which there are, and exit code 2."""

from __future__ import annotations

import pytest
import typer

from agents.cli.choices import LISTED, nearest, one_of, unknown
from streams.core.midnight import zone_names


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("Europe/Berln", "Europe/Berlin"), ("europe/berlin", "Europe/Berlin"), ("sao_paulo", "America/Sao_Paulo")],
)
def test_a_misspelt_zone_is_recognised(typed: str, meant: str) -> None:
    """By its letters, whatever their case, and by a part of the name."""
    assert meant in nearest(typed, zone_names())


def test_few_names_are_listed_and_many_are_not() -> None:
    """Six hundred zones would push the mistake off the screen."""
    few = unknown("state", "panding", ["pending", "held"])
    many = unknown("account", "A1", {f"B{number}" for number in range(LISTED + 1)})

    assert few == "there is no state 'panding' (did you mean 'pending'?); there are: pending, held"
    assert "there are" not in many
    assert unknown("group", "x", []) == "there is no group 'x', nor any other"


def test_only_a_name_of_the_set_passes() -> None:
    """Exactly as it is written there."""
    assert one_of("held", ["held"], what="state", option="--state") == "held"
    with pytest.raises(typer.BadParameter, match="did you mean 'held'"):
        one_of("Held", ["held"], what="state", option="--state")
