"""A store is a copy: whatever happens to it, the changelog brings it back."""

from __future__ import annotations

import shutil
import time
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, KafkaError

from streams.core.errors import Transient
from streams.kafka import recovery
from streams.kafka.store import MemoryStore, Origin, RocksStore
from tests.faults.flow import Flow, fold, producer, read, store_rows
from tests.support.apps import Row
from tests.support.brokers import Brokers
from tests.support.kafka_io import TIMEOUT_SECONDS, create_topic

pytestmark = pytest.mark.kafka


def stores(flow: Flow) -> list[tuple[int, object]]:
    return [(n, flow.store_directory() / str(n)) for n in range(flow.partitions)]


def run_once(flow: Flow, records: int, **spec: object) -> int:
    """Feed, run until finished, stop; returns how many changelog records the recovery read."""
    if records:
        flow.feed(records)
    app = flow.start(**spec)  # type: ignore[arg-type]
    flow.wait_finished()
    wait = app.wait_for("store.recovered", times=flow.partitions)
    assert wait
    assert app.stop() == 0
    return sum(line["records"] for line in app.said("store.recovered"))


def test_a_wiped_directory_is_recovered_whole_and_a_kept_one_not_at_all(flow: Flow) -> None:
    """After kill -9 and without the directory every row comes back; after a clean stop nothing needs to be read."""
    flow.feed(2_000)
    flow.start()
    flow.wait_finished()
    flow.apps[-1].kill()
    shutil.rmtree(flow.directory / "workers")

    read_wiped = run_once(flow, 0)
    read_kept = run_once(flow, 0)

    assert read_wiped >= 200
    assert read_kept == 0
    flow.verify([(n, flow.store_directory() / str(n)) for n in range(4)])


def test_a_store_of_another_cluster_is_wiped_and_recovered(flow: Flow) -> None:
    """Its rows must not be taken for rows of this one: k0 would be "seen already" and never raised."""
    stranger = Origin(cluster_id="elsewhere", topic_id="t", topic=flow.changelog, partition=0)
    for number in range(4):
        store = RocksStore(flow.store_directory() / str(number), stranger)
        store.write([(b"k%d" % key, msgspec.json.encode(Row(10_000))) for key in range(200)], None)
        store.close()

    run_once(flow, 1_000)

    assert len(flow.apps[-1].said("store.wiped")) == 4
    flow.verify([(n, flow.store_directory() / str(n)) for n in range(4)])


def test_a_store_ahead_of_its_changelog_is_wiped_and_recovered(flow: Flow) -> None:
    """It says that it has read what is not there: it copies something that is gone."""
    run_once(flow, 500)
    for number in range(4):
        directory = flow.store_directory() / str(number)
        store = RocksStore(directory, _origin(directory))
        store.write([(b"ghost", b"1")], 1_000_000)
        store.close()

    run_once(flow, 500)

    assert len(flow.apps[-1].said("store.wiped")) == 4
    flow.verify([(n, flow.store_directory() / str(n)) for n in range(4)])


def _origin(directory: object) -> Origin:
    """The origin in the stamp of a store."""
    from rocksdict import Options, Rdict

    from streams.kafka.store import Stamp

    database = Rdict(str(directory), Options(raw_mode=True))
    stamp = msgspec.msgpack.decode(database[b"\x00stamp"] or b"", type=Stamp)
    database.close()
    return Origin(cluster_id=stamp.cluster_id, topic_id=stamp.topic_id, topic="", partition=0)


def test_a_memory_store_is_read_again_at_every_start(flow: Flow) -> None:
    run_once(flow, 1_000, memory_store=True)
    again = run_once(flow, 1_000, memory_store=True)

    assert again > 0
    flow.verify()


def test_a_store_claims_no_row_of_the_changelog_that_it_does_not_have(flow: Flow) -> None:
    """Another owner's row stands between ours, and ours go on behind it: the next opening reads it."""
    flow.feed(400)
    app = flow.start()
    flow.wait_finished()
    out = producer(flow.servers)
    out.produce(flow.changelog, msgspec.json.encode(Row(7)), b"of-another-owner", partition=0)
    assert out.flush(30.0) == 0
    flow.feed(400)
    flow.wait_finished()
    assert app.stop() == 0
    without = store_rows(flow.store_directory() / "0")

    again = flow.start()
    again.wait_for("store.recovered", times=flow.partitions)
    assert again.stop() == 0
    read_again = {line["partition"]: line["records"] for line in again.said("store.recovered")}

    assert b"of-another-owner" not in without
    assert read_again[0] > 0
    assert [read_again[number] for number in (1, 2, 3)] == [0, 0, 0]
    rows = store_rows(flow.store_directory() / "0")
    assert rows == fold(change for change in read(flow.servers, flow.changelog) if change.partition() == 0)
    assert rows[b"of-another-owner"] == msgspec.json.encode(Row(7))


def test_an_end_in_front_of_the_one_that_was_asked_for_skips_no_row(
    kafka: Brokers, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader that has just taken over shows less of the log than the one before, and says that it ends there."""

    class End:
        def __init__(self, offset: int) -> None:
            self._offset = offset

        def error(self) -> KafkaError:
            return KafkaError(KafkaError._PARTITION_EOF)

        def offset(self) -> int:
            return self._offset

    class Behind(Consumer):
        held: list[Any] | None = None

        def consume(self, *args: Any, **options: Any) -> list[Any]:
            if self.held:
                held, self.held = self.held, []
                return held
            found: list[Any] = list(super().consume(*args, **options))
            if self.held is None and len(found) > 1:
                self.held = found[1:]
                return [found[0], End(found[1].offset())]
            return found

    monkeypatch.setattr(recovery, "Consumer", Behind)
    create_topic(kafka.bootstrap_servers, topic_prefix)
    sender = producer(kafka.bootstrap_servers)
    for key in ("a", "b", "c"):
        sender.produce(topic_prefix, key=key, value=b"v")
    assert sender.flush(TIMEOUT_SECONDS) == 0
    origin = Origin(cluster_id="c", topic_id="t", topic=topic_prefix, partition=0)
    changelog = recovery.Changelog({"bootstrap.servers": kafka.bootstrap_servers}, origin)
    store = MemoryStore()

    changelog.recover(store, lambda: False)
    changelog.close()

    assert [key for key, _ in store.scan(b"")] == [b"a", b"b", b"c"]
    assert store.position == 3


def test_a_broker_that_falls_silent_in_the_middle_is_given_the_time_that_is_said(
    kafka: Brokers, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clock, however short the polls are; and nothing is left assigned."""

    class Silent(Consumer):
        silent = False

        def consume(self, *args: Any, **options: Any) -> list[Any]:
            if self.silent:
                time.sleep(options["timeout"])
                return []
            found: list[Any] = list(super().consume(*args, **options))
            self.silent = bool(found)
            return found[:1]

    monkeypatch.setattr(recovery, "Consumer", Silent)
    monkeypatch.setattr(recovery, "STALLED_AFTER_S", 3.0)
    create_topic(kafka.bootstrap_servers, topic_prefix)
    sender = producer(kafka.bootstrap_servers)
    for key in ("a", "b"):
        sender.produce(topic_prefix, key=key, value=b"v")
    assert sender.flush(TIMEOUT_SECONDS) == 0
    origin = Origin(cluster_id="c", topic_id="t", topic=topic_prefix, partition=0)
    changelog = recovery.Changelog({"bootstrap.servers": kafka.bootstrap_servers}, origin)
    store, began = MemoryStore(), time.monotonic()

    with pytest.raises(Transient, match="at 1 of 2"):
        changelog.recover(store, lambda: False)
    took, still_assigned = time.monotonic() - began, changelog._consumer.assignment()
    changelog.close()

    assert took >= 3.0
    assert not still_assigned
