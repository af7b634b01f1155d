"""`curfew billing`: topics of a real Kafka against the billing store, with every kind of drift made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from sqlalchemy import Engine

from agents.reconcile import comparison
from agents.reconcile.comparison import Drift, Report, Topics
from streams.codec import Codec, LocalIds, LocalSchemas
from streams.core.clock import Tick
from streams.core.errors import Poison
from streams.core.plan_change.messages import Acknowledgement, ExecutionResult
from streams.kafka.chunks import Record
from streams.kafka.dead_letters import envelope
from streams.kafka.partitioner import PARTITIONER
from streams.sinks.billing import Released, Split, SqlBillingStore
from streams.topics import ACKNOWLEDGEMENTS, OUTCOMES, TICKS
from tests.billing.makers import (
    EVENING,
    LONG_AGO,
    MIDNIGHT,
    MORNING,
    NEXT_MIDNIGHT,
    at,
    closing,
    plan,
    releasing,
    sealed,
)  # fmt: skip
from tests.cli.curfew import Curfew, runner
from tests.support.brokers import Brokers
from tests.support.kafka_io import TIMEOUT_SECONDS, create_topic

pytestmark = pytest.mark.kafka

SERVICES = 8
SCHEMAS = LocalSchemas()


class World:
    """Topics of this test alone, and a billing store; ``codec`` numbers schemas without a registry."""

    def __init__(self, kafka: Brokers, store: SqlBillingStore, unique: Callable[[str], str]) -> None:
        self.codec = Codec(LocalIds(SCHEMAS), SCHEMAS)
        self.config: dict[str, Any] = {"bootstrap.servers": kafka.bootstrap_servers}
        self.topics = Topics(
            outcomes=unique("outcomes"),
            acknowledgements=unique("acknowledgements"),
            ticks=unique("ticks"),
            dead_letters=unique("dead-letters"),
        )
        self.store = store
        for topic in _names(self.topics).values():
            create_topic(kafka.bootstrap_servers, topic)
        store.load_plans((plan(number) for number in range(SERVICES)), occurred_at=LONG_AGO)

    def execute(self, *results: ExecutionResult) -> None:
        """Write results into the topic, as the executor does."""
        self._send(self.topics.outcomes, [(one.service_id, self.codec.encode(OUTCOMES, one)) for one in results])

    def acknowledge(self, answers: Sequence[Acknowledgement | Released | Poison | None]) -> None:
        """Write answers of the store into the topic, as the persister does."""
        sent = [one.acknowledgement if isinstance(one, Released) else one for one in answers]
        acks = [one for one in sent if isinstance(one, Acknowledgement)]
        self._send(
            self.topics.acknowledgements, [(ack.service_id, self.codec.encode(ACKNOWLEDGEMENTS, ack)) for ack in acks]
        )

    def night(self) -> None:
        """Change 0 is released, 1 to 4 are persisted (4 after it was missed), 5 is missed, 6 and 7 were not ordered."""
        results = [sealed(number) for number in range(6)]
        self.execute(*results)
        self.acknowledge(self.store.persist(results[:4], now=at(EVENING)))
        self.acknowledge(self.store.close([closing(4), closing(5, accept_late=False)], now=at(MIDNIGHT)))
        self.acknowledge(self.store.persist(results[4:], now=at(MORNING)))
        self.acknowledge(self.store.release([releasing(0)], now=at(MIDNIGHT)))

    def tick(self, now: datetime) -> None:
        self._send(self.topics.ticks, [(None, self.codec.encode(TICKS, Tick(epoch="night", seq=1, now=now)))])

    def put_aside(self, *results: ExecutionResult, reason: str = "unknown_service") -> None:
        """Write dead letters, as the persister does of what the store refuses."""
        producer = Producer({**self.config, "partitioner": PARTITIONER})
        for one in results:
            record = Record(OUTCOMES, 0, 0, one.service_id.encode(), self.codec.encode(OUTCOMES, one), [], 0)
            value, headers = envelope(record, Poison(reason, "import it, then redrive"), "persistence")
            producer.produce(self.topics.dead_letters, value, record.key, headers=list[Any](headers))
        assert producer.flush(TIMEOUT_SECONDS) == 0

    def reconcile(self, now: datetime | None = MORNING, limit: int = 100) -> Report:
        return comparison.reconcile(self.config, self.codec, self.store, now=now, limit=limit, topics=self.topics)

    def drift(self, now: datetime | None = MORNING) -> list[tuple[Drift, str, str]]:
        """What is found, without the detail's hashes and offsets."""
        return [(one.kind, one.change_id, one.detail) for one in self.reconcile(now).differences]

    def _send(self, topic: str, records: Sequence[tuple[str | None, bytes]]) -> None:
        producer = Producer({**self.config, "partitioner": PARTITIONER})
        for key, value in records:
            producer.produce(topic, value, key)
        assert producer.flush(TIMEOUT_SECONDS) == 0


@pytest.fixture
def world(kafka: Brokers, store: SqlBillingStore, unique: Callable[[str], str]) -> World:
    return World(kafka, store, unique)


def by_hand(database: Engine, *statements: str) -> None:
    """SQL that no program of ours would run; foreign keys are off on SQLite, as in its shell."""
    with database.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_a_night_that_went_well_has_no_difference(world: World) -> None:
    """Persisted, late, missed and released changes; an outcome that is still to come is waiting, not missing."""
    world.night()
    world.execute(sealed(6, effective_from=NEXT_MIDNIGHT))

    report = world.reconcile()

    assert report.differences == []
    assert (report.outcomes, report.persisted, report.missed, report.waiting) == (7, 5, 2, 1)


def test_an_outcome_that_nobody_decided_is_named_after_its_deadline(world: World) -> None:
    """Not in the moment after it: its close may be on the way. Without business time nothing is overdue."""
    world.execute(sealed(6))

    assert world.drift(MIDNIGHT + timedelta(minutes=9)) == []
    assert world.drift(None) == []
    assert world.drift(MIDNIGHT + timedelta(minutes=10)) == [(Drift.NOT_PERSISTED, "c6", "sealed in record 0@0")]


def test_an_outcome_among_the_dead_letters_is_a_difference_before_its_deadline_too(world: World) -> None:
    """Nothing writes it by itself; it is neither waiting nor, later, counted twice. Reason and record are told."""
    world.execute(sealed(6), sealed(7))
    world.put_aside(sealed(6))

    before, after = world.reconcile(EVENING), world.reconcile(MORNING)

    (found,) = before.differences
    assert (found.kind, found.change_id) == (Drift.DEAD_LETTERED, "c6")
    assert found.detail == f"{world.topics.dead_letters}[0]@0: unknown_service: import it, then redrive"
    assert before.waiting == 1
    assert {kind: after.found[kind] for kind in Drift if after.found[kind]} == {
        Drift.DEAD_LETTERED: 1, Drift.NOT_PERSISTED: 1,
    }  # fmt: skip


def test_a_dead_letter_that_was_redriven_or_given_up_is_no_difference(world: World) -> None:
    """Written again it waits for the store; put aside again it is dead; persisted or missed it is settled."""
    world.execute(sealed(5), sealed(6), sealed(7))
    world.put_aside(sealed(5), sealed(6), sealed(7))
    world.acknowledge(world.store.persist([sealed(5)], now=at(EVENING)))
    world.acknowledge(world.store.close([closing(6, accept_late=False)], now=at(MIDNIGHT)))
    world.execute(sealed(7))
    redriven = world.reconcile(EVENING)
    world.put_aside(sealed(7))

    again = world.drift(EVENING)

    assert (redriven.differences, redriven.waiting) == ([], 1)
    assert [(kind, change_id) for kind, change_id, _ in again] == [(Drift.DEAD_LETTERED, "c7")]


def test_a_late_outcome_among_the_dead_letters_is_one_although_its_deadline_was_missed(world: World) -> None:
    """A person let it finish late; that the first revision was missed says nothing about the second."""
    world.execute(sealed(6, revision=2))
    world.acknowledge(world.store.close([closing(6)], now=at(MIDNIGHT)))
    world.put_aside(sealed(6, revision=2))

    assert [(kind, change_id) for kind, change_id, _ in world.drift()] == [(Drift.DEAD_LETTERED, "c6")]


def test_an_outcome_of_which_only_the_first_part_is_written_is_not_persisted(world: World) -> None:
    """It waits as one that has not come at all; at its deadline it is overdue, or taken back and missed."""
    world.execute(sealed(6))
    world.store.persist([sealed(6)], now=at(EVENING), split=Split(before=timedelta(hours=2), at=EVENING, partition=0))

    before, after = world.reconcile(EVENING), world.drift()
    world.acknowledge(world.store.close([closing(6, accept_late=False)], now=at(MIDNIGHT)))

    assert (before.waiting, before.persisted, before.differences) == (1, 0, [])
    assert after == [(Drift.NOT_PERSISTED, "c6", "sealed in record 0@0")]
    assert world.drift() == []


def test_an_obsolete_revision_is_not_missed(world: World) -> None:
    """Its change went on to a revision that is persisted."""
    rolled = sealed(6, revision=2, effective_from=NEXT_MIDNIGHT)
    world.execute(sealed(6), rolled)
    world.store.persist([rolled], now=at(MORNING))

    assert world.drift(NEXT_MIDNIGHT) == []


def test_of_two_outcomes_of_one_revision_the_store_may_hold_either(world: World) -> None:
    """A hook that ran twice can do that, and the persister keeps the first. A third one is a difference."""
    world.execute(sealed(6), sealed(6, silent=True))
    world.store.persist([sealed(6)], now=at(EVENING))
    assert world.drift() == []

    world.store.persist([sealed(7, silent=True)], now=at(EVENING))
    world.execute(sealed(7))

    ((kind, change_id, _),) = world.drift()
    assert (kind, change_id) == (Drift.HASH_DIFFERS, "c7")


def test_what_was_acknowledged_and_is_gone_is_named(world: World, database: Engine) -> None:
    """A store that was restored from an older backup: one persisted, one missed, one released change are not there."""
    world.night()
    by_hand(
        database,
        "DELETE FROM fee WHERE change_id = 'c1'",
        "DELETE FROM task WHERE change_id = 'c1'",
        "DELETE FROM outcome WHERE change_id = 'c1'",
        "DELETE FROM settlement WHERE change_id = 'c5'",
        "DELETE FROM plan_revision WHERE change_id = 'c0'",
    )

    assert sorted(world.drift()) == [
        (Drift.ACKNOWLEDGED_ABSENT, "c0", "acknowledged as released"),
        (Drift.ACKNOWLEDGED_ABSENT, "c1", "acknowledged as persisted"),
        (Drift.ACKNOWLEDGED_ABSENT, "c5", "acknowledged as missed"),
    ]


def test_rows_that_were_changed_by_hand_are_named_by_their_table(world: World, database: Engine) -> None:
    """The sealed outcome beside the rows says what should be there."""
    world.night()
    by_hand(
        database,
        "DELETE FROM fee WHERE change_id = 'c1'",
        "UPDATE membership SET product_id = 'OTHER' WHERE change_id = 'c1'",
    )

    assert world.drift() == [(Drift.ROWS_DIFFER, "c1", "membership, fee")]


def test_an_altered_outcome_and_an_altered_hash_are_told_apart(world: World, database: Engine) -> None:
    """A body that is not what its seal says, or a seal that is another one than the topic's."""
    world.night()
    by_hand(
        database,
        "UPDATE outcome SET body = replace(body, '\"silent\":false', '\"silent\":true') WHERE change_id = 'c1'",
        f"UPDATE outcome SET hash = '{'0' * 64}' WHERE change_id = 'c2'",
    )

    found = [(one.kind, one.change_id) for one in world.reconcile().differences]

    assert found == [(Drift.HASH_DIFFERS, "c2"), (Drift.SEAL_BROKEN, "c1"), (Drift.SEAL_BROKEN, "c2")]


def test_a_persisted_change_without_an_outcome_is_named_unless_retention_has_removed_it(
    world: World, database: Engine
) -> None:
    """As long as the topic has all its records nothing excuses it; then being older than all records does."""
    world.night()
    world.execute(sealed(6))
    world.store.persist([sealed(6), sealed(7, sealed_at=MORNING)], now=at(MORNING))
    before = world.reconcile()

    admin = AdminClient(world.config)
    partition = TopicPartition(world.topics.outcomes, 0, 6)
    admin.delete_records([partition])[partition].result(TIMEOUT_SECONDS)
    after = world.reconcile()

    assert [(one.kind, one.change_id) for one in before.differences] == [(Drift.NOT_IN_TOPIC, "c7")]
    assert [(one.kind, one.change_id) for one in after.differences] == [(Drift.NOT_IN_TOPIC, "c7")]
    assert (before.retired, after.retired) == (0, 5)


def test_all_differences_are_counted_and_only_some_are_kept(world: World, database: Engine) -> None:
    """A record that nobody can read is counted too, and stops nothing."""
    world.night()
    world._send(world.topics.outcomes, [("s0", b"not avro")])
    by_hand(database, "DELETE FROM fee")

    report = world.reconcile(limit=2)

    assert (len(report.differences), report.found[Drift.ROWS_DIFFER], report.unreadable) == (2, 5, 1)


def test_many_changes_are_compared_in_pages(world: World, monkeypatch: pytest.MonkeyPatch, database: Engine) -> None:
    """One difference at the end of several pages of everything, and progress on the way."""
    monkeypatch.setattr("streams.sinks.billing.read.PAGE", 3)
    monkeypatch.setattr("agents.reconcile.comparison.COMPARED", 2)
    monkeypatch.setattr("agents.reconcile.comparison.REPORT_EVERY", 5)
    world.night()
    by_hand(database, "DELETE FROM fee WHERE change_id = 'c4'")
    said: list[str] = []

    report = comparison.reconcile(
        world.config, world.codec, world.store, now=MORNING, limit=9, topics=world.topics, progress=said.append
    )

    assert [(one.kind, one.change_id) for one in report.differences] == [(Drift.ROWS_DIFFER, "c4")]
    assert said == [
        f"5 records of {world.topics.acknowledgements}",
        "5 decisions of the billing store",
        f"5 records of {world.topics.outcomes}",
        "5 persisted changes compared with their rows",
    ]


def test_business_time_is_the_highest_tick(world: World) -> None:
    """Two clocks may write, so the last one need not be it."""
    before = comparison.business_time(world.config, world.codec, world.topics)
    world.tick(MORNING)
    world.tick(EVENING)

    assert (before, comparison.business_time(world.config, world.codec, world.topics)) == (None, MORNING)


# -- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def curfew(
    kafka: Brokers, store_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Curfew:
    """`curfew` on the session's cluster and this test's billing store, in virtual time."""
    settings = {
        "BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "SCHEMA_REGISTRY_URL": kafka.schema_registry_url,
        "DATABASE_URL": store_url, "CLOCK": "virtual", "DEBUG": "0",
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(f"CURFEW_{name}", value)
    return runner(monkeypatch, capsys)


def test_the_command_says_0_or_3_and_names_the_change(
    curfew: Curfew, world: World, database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agreement, then a fee that somebody deleted, as a table and as JSON; counts beside it."""
    from streams.codec import Registry

    monkeypatch.setattr("agents.reconcile.comparison.Topics", partial(Topics, **_names(world.topics)))
    assert curfew("schemas", "apply").code == 0
    world.codec = Codec(Registry(_environment("CURFEW_SCHEMA_REGISTRY_URL")))
    world.night()
    world.tick(MORNING)

    well = curfew("billing", "reconcile")
    by_hand(database, "DELETE FROM fee WHERE change_id = 'c2'")
    drifted = curfew("billing", "reconcile", "-f", "json", "--limit", "1")
    counted = curfew("billing", "counts", "-f", "json")

    assert (well.code, drifted.code, counted.code) == (0, 3, 0)
    assert "no difference" in well.err
    (row,) = json.loads(drifted.out)
    assert (row["kind"], row["change_id"], row["detail"]) == ("rows_differ", "c2", "fee")
    assert "differences: 1 rows_differ" in drifted.err
    assert json.loads(counted.out)[0]["fees"] == 4


def _names(topics: Topics) -> dict[str, str]:
    return {name: getattr(topics, name) for name in ("outcomes", "acknowledgements", "ticks", "dead_letters")}


def _environment(name: str) -> str:
    import os

    return os.environ[name]


def test_migrate_makes_the_tables_and_says_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before it, counts says what to do; the second run has nothing to do. Needs no Kafka."""
    monkeypatch.setenv("CURFEW_DATABASE_URL", f"sqlite:///{tmp_path / 'billing.sqlite'}")
    monkeypatch.setenv("CURFEW_DEBUG", "0")
    curfew = runner(monkeypatch, capsys)

    empty = curfew("billing", "counts")
    first: dict[str, Any] = json.loads(curfew("billing", "migrate", "-f", "json").out)[0]
    second: dict[str, Any] = json.loads(curfew("billing", "migrate", "-f", "json").out)[0]
    after = curfew("billing", "counts")

    assert (empty.code, after.code) == (1, 0)
    assert "curfew billing migrate" in empty.err
    assert (first["before"], first["changed"], second["changed"]) == (None, True, False)
    assert first["after"] == second["before"] == second["after"]
    assert str(tmp_path) in first["store"]
