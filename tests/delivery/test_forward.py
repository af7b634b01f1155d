"""Forwarding to another queue: the record unchanged, and loops that end."""

from __future__ import annotations

import asyncio
from collections.abc import Container

import pytest

from streams.core.delivery import hops
from streams.core.delivery.messages import Attempt, Header, Verdict
from streams.core.errors import Transient
from streams.core.events import Event
from streams.kafka.chunks import Output
from tests.delivery.plant import Plant, event, forward
from tests.delivery.receiving import sender


class Unknown(Container[str]):
    """The queues while Kafka is away."""

    def __contains__(self, name: object) -> bool:
        raise Transient("Kafka does not say which queues there are")


def to_queue(plant: Plant, queue: str) -> list[Output]:
    return [one for one in plant.outputs if one.topic == f"queue.{queue}"]


def test_a_forward_copies_key_value_and_headers_and_counts_the_hop() -> None:
    """The other queue gets the same bytes; two headers say where they came from."""
    plant = Plant(forward("copy", "customer-events", "partner"), sender=sender())
    value = plant.codec.encode("queue.customer-events", event(1))
    made = plant.chunk("queue.customer-events", [(b"A1", value, [("ce_id", b"x"), ("curfew-hops", b"2")])])

    asyncio.run(plant.run(plant.attempts(made)))

    [copied] = to_queue(plant, "partner")
    assert (copied.key, copied.value) == (b"A1", value)
    assert dict(copied.headers or ()) == {"ce_id": b"x", "curfew-hops": b"3", "curfew-path": b"customer-events"}
    assert plant.rows("unit/") == {}


def test_a_forward_loop_ends_when_the_event_comes_back() -> None:
    """Two subscriptions that send to each other: the event that returns is the same event, and no second unit."""
    plant = Plant(
        forward("there", "customer-events", "partner"), forward("back", "partner", "customer-events"), sender=sender()
    )

    async def circulate() -> int:
        hop, made = 0, plant.feed(event(1))
        while attempts := plant.attempts(made):
            before = len(plant.outputs)
            await plant.run(attempts)
            [moved] = [one for one in plant.outputs[before:] if one.topic.startswith("queue.")]
            hop += 1
            assert hop < 20, "the loop does not end"
            assert moved.value is not None
            made = plant.chunk(moved.topic, [(b"A1", moved.value, list(moved.headers or ()))])
        return hop

    assert asyncio.run(circulate()) == 2
    assert plant.dead() == []


def test_an_event_at_the_hop_limit_is_dead_with_its_path() -> None:
    """The ninth forward does not happen."""
    plant = Plant(forward("copy", "customer-events", "partner"), sender=sender())
    value = plant.codec.encode("queue.customer-events", event(1))
    at_limit: list[tuple[str, bytes | None]] = [("curfew-hops", b"8"), ("curfew-path", b"a,b,c,d,e,f,g,h")]

    assert plant.attempts(plant.chunk("queue.customer-events", [(b"A1", value, at_limit)])) == []

    [dead] = plant.dead()
    headers = dict(dead.headers or ())
    assert headers["curfew-reason"] == b"hop_limit"
    assert b"a,b,c,d,e,f,g,h,customer-events" in headers["__connect.errors.exception.message"]
    assert headers["curfew-path"] == b"a,b,c,d,e,f,g,h"
    assert to_queue(plant, "partner") == []


def test_hops_count_the_header_or_the_event_whichever_is_more() -> None:
    """A calculation's result carries its hops inside; a header that is no number counts as none."""
    assert hops.hops([Header(name="curfew-hops", value=b"3")], 5) == 5
    assert hops.hops([Header(name="curfew-hops", value=b"7")], 5) == 7
    assert hops.hops([Header(name="curfew-hops", value=b"many")], 0) == 0


def test_a_forward_while_kafka_does_not_say_which_queues_there_are_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that stayed with the attempt would be every chunk's that has results to write."""
    plant = Plant(forward("copy", "customer-events", "partner"), sender=sender())
    attempts = plant.attempts(plant.feed(event(1)))

    async def go_on() -> list[Attempt]:
        with monkeypatch.context() as away:
            away.setattr(plant.maker, "_queues", Unknown())
            await plant.run(attempts)
        again = plant.attempts(plant.tick(2))
        await plant.run(again)
        return again

    assert [one.number for one in asyncio.run(go_on())] == [1]
    assert len(to_queue(plant, "partner")) == 1
    assert plant.rows("unit/") == {}


def test_a_forward_to_a_queue_that_is_gone_is_tried_again() -> None:
    """A worker that knows no such queue reports a failure instead of waiting for the topic for ever."""
    plant = Plant(forward("copy", "customer-events", "elsewhere"), sender=sender())
    attempts = plant.attempts(plant.feed(event(1)))

    [result] = asyncio.run(plant.dispatch(attempts))

    assert (result.verdict, result.reason) == (Verdict.FAILED, "no_queue")
    assert plant.codec.decode(attempts[0].value, Event) == event(1)
