"""What the panels say, from what was read: no Kafka, no HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agents.board import words
from agents.board.dangers import Danger, dangers, hook_of
from agents.board.memory import Memory
from agents.board.open_changes import OpenChanges
from agents.board.panels import countdown, nights
from agents.board.panels.subscriptions import Tally, view
from agents.board.reading import Reading
from agents.board.sparkline import sparkline
from streams.core.delivery.units import State as UnitState
from streams.core.delivery.units import Unit
from streams.core.plan_change.board import Line, Stage, entry, lines
from streams.core.plan_change.machine import Change, State
from streams.core.subscriptions import Calculate, Email, Forward, Subscription, Webhook
from tests.plan_changes.makers import DEADLINE, NOON, pending
from tests.support.kafka_io import wait_until

CHANGE = pending()
EVENING = DEADLINE - timedelta(hours=1)


def a_change(number: int, state: State, **fields: Any) -> Change:
    return replace(CHANGE, service_id=f"S{number}", account_id=f"A{number % 2}", state=state, **fields)


def opened(*changes: Change) -> OpenChanges:
    made = OpenChanges()
    for one in changes:
        made.put(one.service_id.encode(), one)
    return made


def board(*changes: Change, now: datetime) -> list[Line]:
    return lines([found for one in changes if (found := entry(one)) is not None], now)


def the_danger(*changes: Change, now: datetime = EVENING) -> Danger:
    [line] = board(*changes, now=now)
    [found] = dangers(opened(*changes).all(), [nights.night(line)], now).values()
    return found


def test_the_bottleneck_is_where_most_of_the_work_is_that_should_be_further() -> None:
    """Pending changes that are not due yet are no bottleneck, however many there are."""
    early = [a_change(n, State.PENDING, release_at=DEADLINE) for n in range(9)]
    stuck = [a_change(n, State.EXECUTED) for n in range(10, 13)]

    found = the_danger(*early, *stuck, a_change(20, State.STARTED))

    assert found.bottleneck == (Stage.EXECUTED, 3)
    assert found.changes == 13


def test_the_hook_that_failed_is_named() -> None:
    """With the accounts and elements that it concerns, the most first."""
    found = the_danger(
        a_change(1, State.FAILED, reason="hook_failed:credit-check"),
        a_change(3, State.FAILED, reason="hook_timeout:credit-check"),
        a_change(2, State.FAILED, reason="hook_failed:loyalty"),
    )

    assert found.hooks == [("credit-check", 2), ("loyalty", 1)]
    assert found.accounts == [("A1", 2), ("A0", 1)]
    assert found.elements == [(CHANGE.element.key, 3)]
    assert found.bottleneck == (Stage.FAILED, 3)


@pytest.mark.parametrize(
    ("reason", "hook"),
    [(None, None), ("not_persisted", None), ("invariant:membership_gap", None), ("hook_failed:a:b", "a:b")],
)
def test_only_some_reasons_speak_of_a_hook(reason: str | None, hook: str | None) -> None:
    """A hook's own reason says nothing about which one it was."""
    assert hook_of(reason) == hook


def test_a_change_leaves_the_open_ones_when_it_is_persisted() -> None:
    """It stays if it waits for a person: post work can fail after the commit."""
    found = opened(a_change(1, State.STARTED))
    found.put(b"S1", a_change(1, State.COMPLETED, persisted_at=EVENING))
    assert list(found.all()) == []

    found.put(b"S1", a_change(1, State.FAILED, persisted_at=EVENING))
    assert [one.service_id for one in found.all()] == ["S1"]
    assert [one.service_id for one in found.waiting()] == ["S1"]

    found.put(b"S1", None)
    assert (list(found.all()), found.waiting()) == ([], [])


def test_the_countdown_has_the_next_midnight_of_each_zone_and_those_that_are_late() -> None:
    """A zone's later midnights are in the panel below."""
    late = replace(CHANGE, deadline_at=EVENING, start_at=NOON, release_at=NOON)
    later = a_change(2, State.PENDING, deadline_at=DEADLINE + timedelta(days=1))
    tokyo = a_change(3, State.PENDING, zone="Asia/Tokyo")

    found = countdown.view(
        board(late, a_change(1, State.PENDING), later, tokyo, now=EVENING + timedelta(minutes=2)),
        EVENING + timedelta(minutes=2), ticked=True, clock_silent_s=0.0,
    )  # fmt: skip

    first, *others = found["zones"]
    assert (first["zone"], first["word"]) == (CHANGE.zone, "LATE")
    assert sorted(row["zone"] for row in others) == ["Asia/Tokyo", CHANGE.zone]
    assert found["word"] == words.LATE


def test_a_person_sees_what_waits_for_them_in_words() -> None:
    """The reason is explained as the command line explains it, and the word asks to look."""
    stuck = a_change(1, State.HELD, missed=True, closed=True)

    found = nights.view(board(stuck, now=EVENING), {}, [stuck], {})

    [row] = found["waiting_changes"]
    assert row["reason"] == "deadline_missed"
    assert "curfew plan-changes resolve" in row["reason_in_words"]
    assert found["waiting_by_reason"] == [{"state": "held", "reason": "deadline_missed", "changes": 1}]


def a_subscription(**fields: Any) -> Subscription:
    webhook = Webhook(url="https://user:password@crm.example/hook?token=x", secret_ref="env:X")
    return Subscription(
        **{"name": "crm", "id": "i", "version": 2, "created_at": NOON, "queue": "q", "webhook": webhook, **fields}
    )


def a_unit(due_ms: int, reason: str | None) -> Unit:
    return Unit(
        unit_id="u", subscription_id="i", subscription="crm", recipient="r", queue="q", offset=0, event_id="e",
        lane=None, state=UnitState.PENDING, attempts=1, due_ms=due_ms, accepted_ms=1_000, last_reason=reason,
        key=None, value=b"", headers=(),
    )  # fmt: skip


def test_an_endpoint_that_fails_says_why_and_when_it_is_tried_again() -> None:
    """The next retry is of those that have failed: what waits for its first attempt is no retry."""
    tally = Tally(delivered=3, failed=1)
    for unit in (a_unit(5_000, None), a_unit(90_000, "timeout"), a_unit(60_000, "timeout")):
        tally.add(unit)

    [row] = view([a_subscription()], {"i": tally}, datetime.fromtimestamp(31, UTC))["subscriptions"]

    assert row["state"] == "failing: timeout"
    assert row["next_retry_at"] == "1970-01-01T00:01:00Z"
    assert (row["pending"], row["failing"], row["success"], row["oldest_seconds"]) == (3, 2, 0.75, 30.0)


@pytest.mark.parametrize(
    ("receiver", "said"),
    [
        ({}, "webhook of crm.example"),
        ({"webhook": None, "forward": Forward(queue="partner")}, "queue.partner"),
        ({"webhook": None, "email": Email(subject="x", to_parameters=("account.email",))}, "mail to account.email"),
        ({"webhook": None, "calculation": Calculate(name="totals")}, "calculation totals"),
    ],
)
def test_a_receiver_is_named_without_what_would_let_others_write_to_it(receiver: dict[str, Any], said: str) -> None:
    """The path of a webhook is often its password."""
    [row] = view([a_subscription(**receiver)], {}, EVENING)["subscriptions"]

    assert row["to"] == said


def test_a_disabled_endpoint_is_enabled_by_a_new_version() -> None:
    """The receiver's 410 was about the version that it got."""
    tally = Tally(disabled_version=2, disabled_at_ms=0)

    [old] = view([a_subscription()], {"i": tally}, EVENING)["subscriptions"]
    [new] = view([a_subscription(version=3)], {"i": tally}, EVENING)["subscriptions"]

    assert old["state"].startswith("disabled")
    assert new["state"] == "active"


def test_a_sparkline_says_in_words_what_it_shows() -> None:
    """And a name cannot break out of it."""
    drawn = str(sparkline([4, 8, 2], '"><script>'))

    assert "from 4 to 2, highest 8" in drawn
    assert "<script>" not in drawn
    assert sparkline([1], "one look is no line") == ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (89, "89 s"), (90, "1 min"), (3_600, "1:00 h"), (-700, "−11 min"), (200_000, "2 d 7 h"), (None, "–")],
)
def test_durations_are_short(seconds: float | None, said: str) -> None:
    """What a person needs of them."""
    assert words.duration(seconds) == said


class Flaky:
    """Reads once, then never again."""

    panels: Sequence[str] = ("letters",)
    every_s = 0.01

    def __init__(self) -> None:
        self.readings = 0
        self.closed = False

    def read(self) -> dict[str, dict[str, Any]]:
        self.readings += 1
        if self.readings > 1:
            raise OSError("the broker is away")
        return {"letters": {"word": "OK"}}

    def close(self) -> None:
        self.closed = True


def test_a_panel_that_cannot_be_read_keeps_its_figures_and_says_so() -> None:
    """And its thread goes on; ended, it gives back what it holds."""
    memory, source = Memory(), Flaky()
    reading = Reading(memory, [source])
    reading.start()
    wait_until(lambda: memory.look("letters").problem is not None, "the failure is told")

    look = memory.look("letters")
    assert (look.data, look.problem) == ({"word": "OK"}, "the broker is away")
    reading.stop()
    assert source.closed
