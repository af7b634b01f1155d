"""What the canary orders when, and what it makes of the answers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.canary import fleet, probes
from agents.canary.probes import HOUR, Probe
from streams.core import ids
from streams.core.midnight import first_instant, local_date
from streams.core.plan_change.matrix import DateRule, effective_date
from streams.core.plan_change.messages import Acknowledgement, AcknowledgementKind, Reply
from streams.core.watch_rules import Level

NOW = datetime(2018, 11, 3, 10, 5, tzinfo=UTC)
MIDNIGHT = datetime(2018, 11, 3, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def reply(probe: Probe, **fields: object) -> Reply:
    given: dict[str, object] = {
        "request_id": probe.request_id, "account_id": probe.service_id, "service_id": probe.service_id,
        "change_id": ids.change_id(probe.service_id, probe.request_id), "revision": 1, "accepted": True,
        "state": "pending", "reasons": (), "start_at": MIDNIGHT - HOUR, "deadline_at": MIDNIGHT,
        "decided_at": NOW + MINUTE,
    }  # fmt: skip
    return Reply(**{**given, **fields})  # type: ignore[arg-type]


def ack(probe: Probe, kind: AcknowledgementKind, at: datetime) -> Acknowledgement:
    return Acknowledgement(
        kind=kind,
        change_id=probe.change_id or "",
        revision=1,
        account_id=probe.service_id,
        service_id=probe.service_id,
        committed_at=at,
        late=at >= MIDNIGHT,
    )


ORDERED = probes.order(MIDNIGHT, probes.ELEMENTS[0], NOW)[0]
ACCEPTED = probes.answered(ORDERED, reply(ORDERED))
PERSISTED = probes.acknowledged(ACCEPTED, ack(ACCEPTED, AcknowledgementKind.PERSISTED, MIDNIGHT - 20 * MINUTE))
ARRIVED = probes.acknowledged(PERSISTED, ack(PERSISTED, AcknowledgementKind.RELEASED, MIDNIGHT + MINUTE))


@given(st.integers(0, 100 * 366 * 86_400))
def test_whenever_it_orders_there_is_a_canary_whose_tomorrow_begins_then(second: int) -> None:
    """The rule "tomorrow" in that canary's zone gives the midnight, and its start is still to come."""
    now = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
    midnight = probes.next_midnight(now)
    zone = fleet.zone_of(midnight.hour)
    day = effective_date(DateRule.TOMORROW, local_date(zone, now), 1, None)

    assert day is not None
    assert first_instant(zone, day) == midnight
    assert now < midnight - probes.LEAD <= now + HOUR


def test_every_hour_has_its_canary() -> None:
    """24 accounts, each with a service and a plan of the same name, in 24 zones."""
    objects = fleet.objects()
    accounts = objects["billing.account"]

    assert set(accounts) == set(objects["billing.service"]) == {plan.service_id for plan in fleet.plans()}
    assert len({change.current.zone for change in accounts.values()}) == 24  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("probe", "now", "level", "reason"),
    [
        (ORDERED, NOW + 5 * MINUTE, Level.OK, ""),
        (ORDERED, NOW + 11 * MINUTE, Level.AT_RISK, "not_answered"),
        (replace(ORDERED, refused="open_change"), NOW, Level.AT_RISK, "refused"),
        (ACCEPTED, MIDNIGHT - HOUR, Level.OK, ""),
        (ACCEPTED, MIDNIGHT - 15 * MINUTE, Level.AT_RISK, "not_persisted"),  # released by half past eleven
        (ACCEPTED, MIDNIGHT, Level.MISSED, "missed"),
        (PERSISTED, MIDNIGHT + MINUTE, Level.OK, ""),
        (PERSISTED, MIDNIGHT + 11 * MINUTE, Level.AT_RISK, "not_effective"),
        (ARRIVED, MIDNIGHT + HOUR, Level.OK, ""),
        (replace(ARRIVED, persisted_at=MIDNIGHT + MINUTE), MIDNIGHT + HOUR, Level.MISSED, "missed"),
    ],
)
def test_a_probe_is_judged_by_where_it_should_be(probe: Probe, now: datetime, level: Level, reason: str) -> None:
    """One row per stage."""
    verdict = probes.judge(probe, now)

    assert (verdict.level, verdict.reason) == (level, reason)


def test_a_later_arrival_ends_an_old_failure() -> None:
    """And only that: a canary that is on its way proves nothing."""
    failed = replace(ACCEPTED, midnight=MIDNIGHT - 2 * HOUR)
    now = MIDNIGHT + MINUTE

    assert probes.overall([failed, PERSISTED], now)[0].level is Level.MISSED
    assert probes.overall([failed, ARRIVED], now)[0].level is Level.OK


def test_answers_of_others_change_nothing() -> None:
    """It sees the whole fleet's topics."""
    other = reply(ORDERED, request_id="R1")
    stranger = replace(ack(ACCEPTED, AcknowledgementKind.PERSISTED, NOW), change_id="other")

    assert probes.answered(ORDERED, other) == ORDERED
    assert probes.acknowledged(ACCEPTED, stranger) == ACCEPTED


def test_it_measures_what_it_saw_and_remembers_it() -> None:
    """Order, answer, release, commit, midnight, release; through the book."""
    [probe] = probes.load(probes.dump([ARRIVED]))

    assert probe == ARRIVED
    assert probe.due_at is not None
    assert probe.seconds() == {
        "accepted_s": 60.0,
        "persisted_s": (MIDNIGHT - 20 * MINUTE - probe.due_at).total_seconds(),
        "effective_s": 60.0,
        "round_trip_s": (MIDNIGHT - 20 * MINUTE - NOW).total_seconds(),
        "margin_s": 20 * 60.0,
    }
    assert probes.histogram([0.5, 60, 700, None]) == {
        "1": 1, "2": 1, "5": 1, "10": 1, "30": 1, "60": 2, "120": 2, "300": 2, "600": 2, "+Inf": 3
    }  # fmt: skip


def test_a_canary_that_is_not_there_says_how_to_make_it() -> None:
    """The first that whoever forgot it sees."""
    refused = probes.answered(ORDERED, reply(ORDERED, accepted=False, change_id=None, reasons=("account_unknown",)))

    assert "curfew canary setup" in probes.judge(refused, NOW).detail
