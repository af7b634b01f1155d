"""What `curfew subscriptions replay` refuses before it reads or sends anything."""

from __future__ import annotations

from dataclasses import replace

import pytest
import typer

from agents.cli.replay import _check
from streams.core.subscriptions import Calculate
from streams.kafka.positions import parse_instant
from tests.cli.curfew import Curfew
from tests.delivery.plant import subscription

REPLAY = ("subscriptions", "replay", "crm")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "say which: one of --event, --failed-since, --missing-since, --offset"),
        (("--event", "x", "--offset", "17"), "say which"),
        (("--event", "x", "--partition", "1"), "is for --offset"),
        (("--failed-since", "yesterday"), "@2026-03-01T00:00:00Z"),
        (("--missing-since", "17"), "'17' is no instant"),
        (("--failed-since", "@-1d:@-1h"), "is no instant"),
        (("--offset", "somewhere"), "use beginning, end, an offset"),
        (("--event", "x", "--run", "a b"), "letters, digits"),
    ],
)
def test_wrong_usage_is_told_with_the_remedy(offline: Curfew, options: tuple[str, ...], words: str) -> None:
    finished = offline(*REPLAY, *options)

    assert finished.code == 2
    assert words in " ".join(finished.err.replace("│", " ").split())


def test_a_calculation_and_an_inactive_subscription_are_refused_with_what_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing behind a calculation is set off again."""
    for refused in (subscription(calculation=Calculate(name="sum")), replace(subscription(), active=False)):
        with pytest.raises(typer.Exit) as left:
            _check(refused)
        assert left.value.exit_code == 2
    said = capsys.readouterr().err

    assert "curfew dead-letters redrive --app delivery --subscription crm" in said
    assert "active = true" in said


def test_an_instant_is_one_instant() -> None:
    assert parse_instant("@1970-01-01T00:00:01Z") == 1_000
