"""A chunk breaks off behind each of its rows: whatever prefix of them a crash leaves, the world hears the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeAlias

import pytest

from agents import redo
from streams.core.events import Finding
from streams.core.hooks import Hook, Proceed
from streams.core.plan_change.messages import Reply
from streams.core.plan_change.rows import CHANGE, unpack_change
from streams.kafka.chunks import Output, Record
from tests.plan_changes.makers import NOON, START, a_cancel, a_request, an_element
from tests.plan_changes.plant import Plant, a_plan, a_service, an_account
from tests.support.batch import Outputs

VALIDATED, OUTCOMES = "plan-change.validated", "plan-change.outcomes"
HOOK = Hook(name="o", key="RATEPLAN.CHANGE.ORDER.hooked", call=lambda context: Proceed())

Chunk: TypeAlias = tuple[Callable[[Any], Iterator[None]], list[Record]]


def a_plant() -> Plant:
    """Services S1 to S4, noon; orders of the element ``hooked`` wait for a hook."""
    plant = Plant(hooks=(HOOK,), elements=(an_element(), an_element("hooked")))
    for service in ("S1", "S2", "S3", "S4"):
        plant.knows(an_account(), a_service(id=service), a_plan(service_id=service))
    plant.tick(NOON)
    return plant


def chunk_of(plant: Plant, topic: str, outputs: list[Output]) -> list[Record]:
    found = [(str(one.key), one.value) for one in outputs if one.topic == topic]
    return plant.changes.chunk(topic, found)


def validated(plant: Plant, *requests: Any) -> Outputs:
    topic = "plan-change.requests"
    records = [(one.account_id, plant.codec.encode(topic, one)) for one in requests]
    return plant.events.run(plant.orders.requests, topic, records)


def requests(plant: Plant) -> Chunk:
    """One that waits with another behind it, one that supersedes, cancels, one that is refused, a repetition."""
    before = a_request("R0", service_id="S2")
    plant.request(before)
    asked = validated(
        plant,
        a_request("R3", service_id="S3", element_key="hooked"),
        a_cancel("C3", service_id="S3"),
        a_request("R1"),
        a_request("R2", service_id="S2", expected_revision=1),
        a_request("R4", service_id="S4"),
        a_cancel("C4", service_id="S4"),
        a_request("R5", service_id="S4", element_key="unknown"),
        a_request("R1"),
    )
    return plant.scheduler.requests, chunk_of(plant, VALIDATED, asked)


def outcomes(plant: Plant) -> Chunk:
    """The hook of an order agrees, so it is answered, with a cancel behind it; before and after it, other results."""
    plant.request(a_request("R2", service_id="S2"), a_request("R3", service_id="S3"))
    parked = plant.request(a_request("R1", element_key="hooked"), a_cancel("C1"))
    started = plant.tick(START - timedelta(hours=1)) + plant.tick(START + timedelta(hours=3))
    commands = {one.key: one for one in parked + started if one.topic == "plan-change.commands"}
    topic = "plan-change.commands"
    handed = [(str(commands[key].key), commands[key].value) for key in ("S2", "S1", "S3")]
    results = plant.execution.run(plant.executor.commands, topic, handed)
    return plant.scheduler.outcomes, chunk_of(plant, OUTCOMES, results)


def waiting(plant: Plant) -> Chunk:
    """Requests that came before time did are decided with the first tick."""
    asked = validated(plant, a_request("R1"), a_cancel("C1"), a_request("R3", service_id="S3", element_key="hooked"))
    now, plant.changes.now = plant.changes.now, None
    plant.changes.replay(plant.scheduler.requests, chunk_of(plant, VALIDATED, asked))
    plant.changes.now = now
    return plant.scheduler.ticks, plant.changes.chunk("clock.ticks", [(None, b"")])


def rows(plant: Plant) -> dict[bytes, bytes]:
    return dict(plant.changes.store.scan(b""))


def told(plant: Plant, outputs: Outputs) -> tuple[set[Reply], set[tuple[str, str]]]:
    findings = plant.read(outputs, "events.findings", Finding)
    return set(plant.replies(outputs)), {(one.event_id, one.type) for one in findings}


def cuts(prepare: Callable[[Plant], Chunk]) -> list[tuple[int, int]]:
    """Every (slice, rows) behind which the chunk may break off."""
    plant = a_plant()
    handler, records = prepare(plant)
    plant.changes.replay(handler, records)
    return [(slice, kept) for slice, most in enumerate(plant.changes.written, 1) for kept in range(most + 1)]


@pytest.fixture(params=[redo.PIECE_BYTES, 1_000], ids=["one piece", "many pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decided fits into one row, or does not."""
    monkeypatch.setattr(redo, "PIECE_BYTES", request.param)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("prepare", [requests, outcomes, waiting])
def test_wherever_a_chunk_breaks_off_answers_findings_and_rows_are_the_same(prepare: Callable[[Plant], Chunk]) -> None:
    """The process dies behind each row, and the chunk comes again."""
    plant = a_plant()
    handler, records = prepare(plant)
    whole = told(plant, plant.changes.replay(handler, records)), rows(plant)
    assert whole[0][0]
    assert [key for key in whole[1] if key.startswith(b"redo/")] == []

    for slice, kept in cuts(prepare):
        plant = a_plant()
        handler, records = prepare(plant)
        lost = plant.changes.replay(handler, records, crash_after_rows=kept, crash_in_slice=slice)
        again = plant.changes.replay(handler, records)
        assert (told(plant, lost + again), rows(plant)) == whole, (slice, kept)


@pytest.mark.usefixtures("pieces")
def test_wherever_a_chunk_breaks_off_nobody_hears_two_answers_though_time_goes_on() -> None:
    """What was not durable is decided anew, later; but what was told stands, and says what the rows say."""
    for slice, kept in cuts(requests):
        plant = a_plant()
        handler, records = requests(plant)
        before = len(plant.changes.sent)
        plant.changes.replay(handler, records, crash_after_rows=kept, crash_in_slice=slice)
        plant.tick(START + timedelta(hours=1))
        plant.changes.replay(handler, records)

        replies, findings = told(plant, plant.changes.sent[before:])
        assert len(replies) == len({reply.request_id for reply in replies}), (slice, kept)
        accepted = {one.request_id for one in replies if one.accepted and one.request_id in ("R1", "R2", "R4")}
        assert len([kind for _, kind in findings if kind.endswith(".ordered")]) == len(accepted), (slice, kept)
        changes = [unpack_change(value) for _, value in plant.changes.store.scan(CHANGE.encode())]
        assert {"R1": "S1", "R4": "S4"}.items() >= {
            (one.request_id, one.service_id) for one in changes if one.service_id in ("S1", "S4")
        }, (slice, kept)


def test_what_was_decided_before_a_crash_is_in_the_index_after_it() -> None:
    """Its rows were not durable, so the index is built on what is going to be put."""
    plant = a_plant()
    records = chunk_of(plant, VALIDATED, validated(plant, a_request("R1")))
    plant.changes.replay(plant.scheduler.requests, records, crash_after_rows=1)
    assert [key for key, _ in plant.changes.store.scan(b"")] == [b"redo/1/000000"]

    started = plant.tick(START)

    assert "rate_plan_change.started" in {kind for _, kind in told(plant, started)[1]}
