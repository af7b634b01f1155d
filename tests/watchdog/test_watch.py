"""What the watchdog knows of a change does not depend on the order in which topics are read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from streams.core.plan_change.messages import Acknowledgement, AcknowledgementKind, Reply
from streams.core.plan_change.window import window
from streams.core.watch import (
    Standing,
    Tracked,
    at_risk,
    merge,
    of_acknowledgement,
    of_change,
    of_finding,
    of_reply,
    release_at,
)
from tests.plan_changes.makers import DEADLINE, NOON, START, acknowledgement, pending

CHANGE = pending()
HOUR = timedelta(hours=1)


def a_reply(**changed: object) -> Reply:
    fields: dict[str, object] = {
        "request_id": "R1", "account_id": "A1", "service_id": "S1", "change_id": CHANGE.change_id, "revision": 1,
        "accepted": True, "state": "pending", "reasons": (), "start_at": START, "deadline_at": DEADLINE,
        "decided_at": NOON,
    }  # fmt: skip
    return Reply(**{**fields, **changed})  # type: ignore[arg-type]


def ack(kind: AcknowledgementKind, at: datetime = START) -> Acknowledgement:
    return acknowledgement(CHANGE, kind, at)


def known(*facts: Tracked | None) -> Tracked:
    row: Tracked | None = None
    for fact in facts:
        if fact is not None:
            row = merge(row, fact)
    assert row is not None
    return row


@st.composite
def facts(draw: st.DrawFn) -> Tracked:
    """Facts as the topics can hold them: one deadline per (revision, sequence), acknowledgements without one."""
    revision, sequence = draw(st.integers(1, 3)), draw(st.integers(-1, 3))
    acknowledged = sequence < 0
    choices = list(Standing)[2:] if acknowledged else list(Standing)[:4]
    standing = choices[(revision + sequence) % len(choices)] if not acknowledged else draw(st.sampled_from(choices))
    deadline = None if acknowledged else DEADLINE + timedelta(hours=24 * revision + sequence)
    return Tracked(
        service_id="S1", account_id="A1", change_id=f"C{revision}", revision=revision, sequence=sequence,
        standing=standing, deadline_at=deadline, start_at=deadline and deadline - 6 * HOUR, due_at=deadline,
        settled_at=draw(st.sampled_from([START, START + HOUR])) if standing >= Standing.PERSISTED else None,
    )  # fmt: skip


@given(st.lists(facts(), min_size=1, max_size=8), st.randoms())
def test_facts_make_the_same_row_in_any_order_and_any_number(found: list[Tracked], random: object) -> None:
    """Replies, acknowledgements and findings are read from different topics, and come again after a crash."""
    again = [*found, *found]
    random.shuffle(again)  # type: ignore[attr-defined]

    assert known(*again) == known(*found)


def test_a_reply_that_is_sent_again_does_not_reopen_what_is_persisted() -> None:
    """The scheduler answers a repeated request with the words of the first time."""
    row = known(of_reply(a_reply()), of_acknowledgement(ack(AcknowledgementKind.PERSISTED)), of_reply(a_reply()))

    assert (row.standing, row.deadline_at, row.settled_at) == (Standing.PERSISTED, DEADLINE, START)


def test_a_release_of_a_late_change_leaves_it_late() -> None:
    """The order of the two acknowledgements' offsets is not the order in which they are read."""
    late = of_acknowledgement(ack(AcknowledgementKind.PERSISTED, DEADLINE + HOUR))
    released = of_acknowledgement(ack(AcknowledgementKind.RELEASED, DEADLINE + HOUR))

    assert known(late, released).standing is known(released, late).standing is Standing.LATE


def test_a_refusal_changes_nothing() -> None:
    """It shows the open change, as it was then."""
    assert of_reply(a_reply(accepted=False, reasons=("open_change",))) is None


def test_a_cancelled_change_is_not_expected_any_more() -> None:
    """A cancel is answered with the change's state."""
    assert known(of_reply(a_reply()), of_reply(a_reply(state="cancelled"))).standing is Standing.ENDED


def test_a_new_order_replaces_what_was_known_of_the_service() -> None:
    """One open change per service: the higher revision is the newer one."""
    row = known(of_reply(a_reply(revision=2, deadline_at=DEADLINE + 24 * HOUR)), of_reply(a_reply()))

    assert (row.revision, row.deadline_at) == (2, DEADLINE + 24 * HOUR)


def test_an_order_after_its_start_is_due_at_once() -> None:
    """Its spread is not waited for."""
    row = known(of_reply(a_reply(decided_at=START + HOUR)))

    assert row.due_at == START + HOUR


@given(st.uuids(), st.integers(1, 48))
def test_work_is_expected_when_the_scheduler_releases_it(change_id: UUID, lead: int) -> None:
    """The watchdog derives the spread by itself; were it another one, it would shout at healthy changes."""
    found = window("Europe/Berlin", datetime(2018, 11, 4, tzinfo=UTC).date(), lead, str(change_id))

    assert release_at(str(change_id), found.start_at, found.deadline_at) == found.release_at


def test_its_event_is_the_one_that_the_scheduler_would_raise() -> None:
    """The same id, so that whoever raises it first, subscribers hear it once; and it does not read its own event."""
    from streams.core.plan_change.told import finding

    row = known(of_reply(a_reply()))
    raised = at_risk(row, "stalled", NOON)

    assert raised.event_id == finding(replace(CHANGE, sequence=1), "at_risk", NOON).finding.event_id
    assert of_finding(replace(raised, current={"state": "pending"})) is None


def test_a_failure_is_known_until_the_change_moves_on() -> None:
    """Findings carry the change's own sequence."""
    from streams.core.plan_change.machine import State
    from streams.core.plan_change.told import finding

    failed = finding(replace(CHANGE, state=State.FAILED, sequence=3), "failed", START).finding
    executed = finding(replace(CHANGE, state=State.EXECUTED, sequence=4), "executed", START).finding

    assert known(of_reply(a_reply()), of_finding(failed)).standing is Standing.STUCK
    assert known(of_finding(executed), of_finding(failed)).standing is Standing.OPEN


def test_a_row_of_the_scheduler_says_the_same_as_the_topics() -> None:
    """A book that begins takes its rows from there, and goes on with the topics."""
    from_topics = known(of_reply(a_reply()), of_acknowledgement(ack(AcknowledgementKind.PERSISTED)))
    from_rows = of_change(replace(CHANGE, persisted_at=START))

    assert replace(from_rows, sequence=0) == from_topics
    assert of_change(replace(CHANGE, persisted_at=DEADLINE)).standing is Standing.LATE
    assert of_change(replace(CHANGE, closed=True)).standing is Standing.MISSED
