"""One contract for both stores, what makes a directory worthless, and the overlay of a chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rocksdict import Options, Rdict

from streams.core.errors import Poison
from streams.kafka.manifest import Manifest
from streams.kafka.outbox import MAX_MESSAGE_BYTES
from streams.kafka.store import MemoryStore, Origin, Overlay, RocksStore, Stamp, Store

ORIGIN = Origin(cluster_id="cluster-a", topic_id="topic-a", topic="x-store-changelog", partition=0)


@pytest.fixture(params=["memory", "rocks"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else RocksStore(tmp_path / "0", ORIGIN)
    yield made
    made.close()


def test_a_row_reads_as_it_was_written_last(store: Store) -> None:
    store.write([(b"a", b"1"), (b"b", b"2")], None)
    store.write([(b"a", b"3")], None)

    assert (store.get(b"a"), store.get(b"b"), store.get(b"c")) == (b"3", b"2", None)


def test_none_deletes_a_row_and_deleting_what_is_not_there_is_harmless(store: Store) -> None:
    store.write([(b"a", b"1"), (b"b", b"2")], None)
    store.write([(b"a", None), (b"never", None)], None)

    assert store.get(b"a") is None
    assert list(store.scan(b"")) == [(b"b", b"2")]


def test_scan_gives_rows_of_the_prefix_in_key_order(store: Store) -> None:
    """Also after writes between two scans."""
    store.write([(b"p/2", b"2"), (b"p/1", b"1"), (b"q/1", b"x"), (b"o", b"x")], None)
    before = list(store.scan(b"p/"))
    store.write([(b"p/0", b"0"), (b"p/2", None)], None)

    assert before == [(b"p/1", b"1"), (b"p/2", b"2")]
    assert list(store.scan(b"p/")) == [(b"p/0", b"0"), (b"p/1", b"1")]
    assert list(store.scan(b"p/", b"p/0\x00")) == [(b"p/1", b"1")]
    assert list(store.scan(b"p/", b"a")) == [(b"p/0", b"0"), (b"p/1", b"1")]


def test_scan_of_everything_shows_rows_only(store: Store) -> None:
    """The stamp lives beside the rows but is none of them."""
    store.write([(b"a", b"1")], 7)

    assert list(store.scan(b"")) == [(b"a", b"1")]


def test_position_begins_at_zero_and_moves_only_when_given(store: Store) -> None:
    fresh = store.position
    store.write([(b"a", b"1")], 5)
    store.write([(b"b", b"2")], None)

    assert (fresh, store.position) == (0, 5)


def test_a_reopened_directory_has_its_rows_and_its_position(tmp_path: Path) -> None:
    first = RocksStore(tmp_path / "0", ORIGIN)
    first.write([(b"a", b"1")], 5)
    first.write([(b"b", b"2")], None)  # ahead of the position: reading it again is harmless
    first.close()

    again = RocksStore(tmp_path / "0", ORIGIN)

    assert again.position == 5
    assert list(again.scan(b"")) == [(b"a", b"1"), (b"b", b"2")]
    again.close()


OTHERS: dict[str, Callable[[], Origin]] = {
    "another cluster": lambda: Origin(cluster_id="cluster-b", topic_id="topic-a", topic=ORIGIN.topic, partition=0),
    "a topic made anew": lambda: Origin(cluster_id="cluster-a", topic_id="topic-b", topic=ORIGIN.topic, partition=0),
    "too old": lambda: Origin(
        cluster_id="cluster-a", topic_id="topic-a", topic=ORIGIN.topic, partition=0, tombstones_kept_s=-1.0
    ),
}


@pytest.mark.parametrize("saved", [True, False], ids=["position saved", "killed before the first position"])
@pytest.mark.parametrize("other", OTHERS)
def test_a_copy_of_something_else_is_wiped(tmp_path: Path, other: str, saved: bool) -> None:
    """Its rows would be taken for rows of this changelog, and stay for ever where it has none of that key."""
    first = RocksStore(tmp_path / "0", ORIGIN)
    first.write([(b"a", b"1")], 5 if saved else None)
    first.close()

    again = RocksStore(tmp_path / "0", OTHERS[other]())

    assert (again.position, list(again.scan(b""))) == (0, [])
    again.close()


def test_every_changelog_keeps_tombstones_for_longer_than_a_store_may_be_behind() -> None:
    """Otherwise a deleted row would stay in a store that was away, and rise again: nothing would tell it to go.

    Twice as long, since a store that is a minute too young to be wiped still has to read up to the end.
    """
    manifest = Manifest.load()
    stateful = [name for name, group in manifest.groups.items() if group.store]

    kept_ms = {
        name: manifest.topics[f"{name}-store-changelog"].kafka_config["delete.retention.ms"] for name in stateful
    }

    assert stateful
    assert {name for name, kept in kept_ms.items() if int(kept) < 2_000 * ORIGIN.tombstones_kept_s} == set()


def test_rows_without_a_stamp_are_wiped(tmp_path: Path) -> None:
    """Whoever wrote them, it cannot be told whose they are."""
    database = Rdict(str(tmp_path / "0"), Options(raw_mode=True))
    database[b"a"] = b"1"
    database.close()

    store = RocksStore(tmp_path / "0", ORIGIN)

    assert store.get(b"a") is None
    store.close()


def test_the_stamp_is_in_the_same_write_as_the_rows(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "0", ORIGIN)
    store.write([(b"a", b"1")], 5)
    store.close()

    database = Rdict(str(tmp_path / "0"), Options(raw_mode=True))
    stamp = msgspec.msgpack.decode(database[b"\x00stamp"] or b"", type=Stamp)
    database.close()

    assert (stamp.cluster_id, stamp.topic_id, stamp.position) == ("cluster-a", "topic-a", 5)


KEYS = st.sampled_from([b"a", b"a/1", b"a/2", b"b", b"b/1", b"c"])
WRITES = st.lists(st.tuples(KEYS, st.none() | st.binary(min_size=1, max_size=3)), max_size=20)


@given(below=WRITES, above=WRITES, prefix=st.sampled_from([b"", b"a", b"a/", b"b", b"x"]))
def test_an_overlay_over_a_store_reads_like_one_dictionary(
    below: list[tuple[bytes, bytes | None]], above: list[tuple[bytes, bytes | None]], prefix: bytes
) -> None:
    store, expected = MemoryStore(), dict[bytes, bytes]()
    store.write(below, None)
    overlay = Overlay(store)
    for key, value in [*below, *above]:
        if value is None:
            expected.pop(key, None)
        else:
            expected[key] = value
    for key, value in above:
        if value is None:
            overlay.delete(key)
        else:
            overlay.put(key, value)

    assert {key: overlay.get(key) for key in (b"a", b"a/1", b"a/2", b"b", b"b/1", b"c")} == {
        key: expected.get(key) for key in (b"a", b"a/1", b"a/2", b"b", b"b/1", b"c")
    }
    found = sorted((k, v) for k, v in expected.items() if k.startswith(prefix))
    assert list(overlay.scan(prefix)) == found
    assert list(overlay.scan(prefix, b"a/2")) == [(k, v) for k, v in found if k >= b"a/2"]


@given(above=WRITES)
def test_writes_of_an_overlay_are_in_the_order_of_the_last_write_of_each_key(
    above: list[tuple[bytes, bytes | None]],
) -> None:
    """The changelog gets them in this order, so a partly delivered one is a prefix of what was decided."""
    overlay = Overlay(MemoryStore())
    for key, value in above:
        if value is None:
            overlay.delete(key)
        else:
            overlay.put(key, value)

    last = {key: index for index, (key, _) in enumerate(above)}
    assert list(overlay.writes.items()) == [above[index] for index in sorted(last.values())]


def test_an_overlay_does_not_touch_the_store() -> None:
    """Whoever throws the overlay away throws the decision away."""
    store = MemoryStore()
    store.write([(b"a", b"1")], None)
    overlay = Overlay(store)
    overlay.put(b"a", b"2")
    overlay.delete(b"b")

    assert store.get(b"a") == b"1"


def test_a_row_that_the_changelog_would_refuse_is_poison() -> None:
    """The record that caused it is put aside; as a refused write it would stop the whole worker at every start."""
    with pytest.raises(Poison, match="too_large"):
        Overlay(MemoryStore()).put(b"a", bytes(MAX_MESSAGE_BYTES))
