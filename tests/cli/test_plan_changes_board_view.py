"""How the board looks to a person."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import timedelta

import pytest
from rich.console import Console

from agents.cli.output import TableOrJson
from agents.cli.plan_changes.board_view import Picture, as_json, print_once, renderable
from streams.core.plan_change.board import entry, lines
from streams.core.plan_change.machine import State
from tests.plan_changes.makers import DEADLINE, NOON, pending

LONGEST_ZONE = "America/Argentina/ComodRivadavia"
CHANGES = (
    pending(),
    replace(pending(), service_id="S2", state=State.FAILED),
    replace(pending(), service_id="S3", zone=LONGEST_ZONE, deadline_at=DEADLINE + timedelta(hours=4)),
    replace(pending(), service_id="S4", zone="Asia/Tokyo", deadline_at=NOON - timedelta(hours=1)),
)


def picture(clock_silent_s: float = 0.5, *, ticked: bool = True) -> Picture:
    found = lines([one for change in CHANGES if (one := entry(change)) is not None], NOON)
    return Picture(now=NOON, ticked=ticked, clock_silent_s=clock_silent_s, lines=found)


def drawn(width: int) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(renderable(picture(), width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [100, 180])
def test_zones_and_words_are_whole_on_a_narrow_terminal_too(width: int) -> None:
    """The state is a word and not a colour alone; empty columns make room."""
    found = drawn(width)

    assert LONGEST_ZONE in found
    assert [word in found for word in ("OK", "AT RISK", "LATE")] == [True, True, True]
    assert ("completed" in found) is (width > 175)


def test_what_a_person_can_do_is_beside_the_numbers() -> None:
    """Why it is not OK, and which command comes next."""
    found = drawn(180)

    assert "AT RISK: 2018-11-04 Europe/Berlin: 1 change failed and wait for a person" in found
    assert "failed: curfew plan-changes list --state failed, then retry or resolve each" in found


def test_a_clock_that_is_silent_or_never_was_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers of a standing clock look healthy."""
    print_once(picture(300.0), TableOrJson.TABLE)
    silent = capsys.readouterr().out
    print_once(picture(86_400.0, ticked=False), TableOrJson.TABLE)
    never = capsys.readouterr().out

    assert "no tick for 300 s" in silent
    assert "machine time: no tick yet" in never
    assert json.loads(as_json(picture(300.0), indent=None))["clock_silent_seconds"] == 300.0
