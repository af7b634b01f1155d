"""The demo's fleet and script, without Kafka."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from agents.demo import fleet, script
from agents.demo.report import final_states
from agents.demo.script import Fate
from agents.demo.watch import Seen
from streams.core import ids
from streams.core.midnight import zone
from streams.core.plan_change.messages import Acknowledgement, AcknowledgementKind, Reply, Request, RequestKind


def test_the_same_seed_tells_the_same_story() -> None:
    """The producer and the demo make the fleet and the script each for itself: both must come to the same."""
    first, second = (fleet.generate(300, 7) for _ in range(2))

    assert first == second
    assert script.write(first, 300, 7) == script.write(second, 300, 7)


def test_the_full_fleet_is_as_large_as_it_says() -> None:
    """5,000 accounts in at least 12 zones, one of them with 3,000 services."""
    made = fleet.generate(5_000, 2018)

    services = Counter(service.account_id for service in made.services)
    assert len(made.accounts) == 5_000
    assert len(made.deadlines) >= 12
    assert services.most_common(1) == [(made.big.id, 3_000)]
    assert {plan.service_id for plan in made.plans} == {service.id for service in made.services}


def test_the_night_has_a_missing_and_a_double_midnight() -> None:
    """São Paulo's date begins at 01:00, Havana's at the first of its two midnights."""
    deadlines = fleet.generate(300, 1).deadlines

    assert deadlines["America/Sao_Paulo"].astimezone(zone("America/Sao_Paulo")).hour == 1
    assert deadlines["America/Havana"] == datetime(2018, 11, 4, 4, tzinfo=UTC)
    later = deadlines["America/Havana"] + timedelta(hours=1)
    assert later.astimezone(zone("America/Havana")).strftime("%d %H:%M") == "04 00:00"


def test_every_fate_of_an_order_occurs_even_in_a_small_night() -> None:
    """Otherwise a demo that loses all cancels would still be green."""
    story = script.write(fleet.generate(300, 1), 300, 1)

    fates = Counter(story.fates.values())
    assert set(fates) == set(Fate)
    assert fates[Fate.EFFECTIVE] >= 300
    assert story.refused_cancels > 0


def test_orders_come_in_the_afternoon_of_their_own_zone() -> None:
    """From one o'clock on, on the day before; the clock is running by then."""
    made = fleet.generate(300, 1)
    story = script.write(made, 300, 1)

    assert min(one.at for one in story.sendings) >= script.begins(made)
    assert max(one.at for one in story.sendings) <= script.ends(made)
    for one in story.sendings:
        if isinstance(one.value, Request) and one.value.kind is RequestKind.ORDER:
            local = one.at.astimezone(zone(made.account[one.value.account_id].zone))
            assert local.date() < fleet.NIGHT
            assert local.hour >= 12


def test_a_change_that_the_topics_do_not_finish_is_open() -> None:
    """Persisted and completed is not enough: without its release the change is not counted as effective."""
    made = fleet.generate(300, 1)
    order = next(one.value for one in script.write(made, 300, 1).sendings if isinstance(one.value, Request))
    change_id = ids.change_id(order.service_id, order.request_id)
    seen = Seen(zone_of={account.id: account.zone for account in made.accounts})
    seen.request(order)

    assert final_states(seen) == {change_id: "no answer"}
    seen.reply(_accepted(order, change_id, made.deadline(order.account_id)))
    seen.step(change_id, order.account_id, "completed")
    assert final_states(seen) == {change_id: "open"}
    seen.acknowledgement(_released(order, change_id, made.deadline(order.account_id)))
    assert final_states(seen) == {change_id: "effective"}


def test_another_answer_to_the_same_request_is_a_contradiction() -> None:
    """The report must not hide it behind the first answer."""
    made = fleet.generate(300, 1)
    order = next(one.value for one in script.write(made, 300, 1).sendings if isinstance(one.value, Request))
    seen = Seen(zone_of={})
    answer = _accepted(order, "change", made.deadline(order.account_id))

    seen.reply(answer)
    seen.reply(answer)
    assert seen.contradictions == 0
    seen.reply(replace(answer, accepted=False))
    assert seen.contradictions == 1


def _accepted(order: Request, change_id: str, deadline: datetime) -> Reply:
    return Reply(
        request_id=order.request_id,
        account_id=order.account_id,
        service_id=order.service_id,
        change_id=change_id,
        revision=1,
        accepted=True,
        state="pending",
        reasons=(),
        start_at=deadline - timedelta(hours=6),
        deadline_at=deadline,
        decided_at=order.requested_at,
    )


def _released(order: Request, change_id: str, deadline: datetime) -> Acknowledgement:
    return Acknowledgement(
        kind=AcknowledgementKind.RELEASED,
        change_id=change_id,
        revision=1,
        account_id=order.account_id,
        service_id=order.service_id,
        committed_at=deadline,
        late=False,
    )
