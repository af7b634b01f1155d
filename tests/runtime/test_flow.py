"""Workers on a real broker: complete, in order, committed, and stopped cleanly."""

from __future__ import annotations

import json

import msgspec
import pytest

from streams.kafka.partitioner import partition_of
from tests.faults.flow import Flow, read
from tests.support.apps import TRANSIENT_FAILURES, Change
from tests.support.kafka_io import wait_until

pytestmark = pytest.mark.kafka


def key_in(partition: int, number: int = 0) -> str:
    """The ``number``-th key that lands in a partition."""
    return [key for key in (f"k{index}" for index in range(100)) if partition_of(key, 4) == partition][number]


def test_a_fresh_group_commits_the_offsets_it_starts_from(flow: Flow) -> None:
    """Before the first record: "nothing in flight" must differ from "never started"."""
    flow.start()

    flow.wait_finished()

    assert flow.committed() == {0: 0, 1: 0, 2: 0, 3: 0}


def test_an_idle_group_commits_soon_after_it_has_finished(flow: Flow) -> None:
    """Each time, not only while more is coming: the virtual clock waits for it."""
    flow.start().wait_for("worker.assigned")

    for _ in range(3):
        flow.feed(1)
        flow.wait_finished()

    flow.verify()


def test_two_workers_handle_everything_in_order_and_their_stores_are_the_fold(flow: Flow) -> None:
    """Records fed before and while the second worker joins; both stop with 0 and keep complete stores."""
    flow.feed(4_000)
    first = flow.start("1")
    first.wait_for("worker.assigned")
    second = flow.start("2")
    flow.feed(4_000, per_second=4_000)
    second.wait_for("worker.assigned")
    flow.feed(2_000)
    flow.wait_finished()

    owned = {app: app.partitions() for app in (first, second)}
    codes = [app.stop() for app in (first, second)]

    assert codes == [0, 0]
    assert sorted(number for numbers in owned.values() for number in numbers) == [0, 1, 2, 3]
    flow.verify(
        [(n, flow.store_directory(app.spec.instance) / str(n)) for app, numbers in owned.items() for n in numbers]
    )


@pytest.mark.parametrize("shape", ["generator", "async"])
def test_generators_and_coroutines_are_handlers_too(flow: Flow, shape: str) -> None:
    """Slices of a generator are durable one by one, a coroutine may await; the result is the same."""
    flow.feed(2_000)
    app = flow.start(shape=shape)
    flow.wait_finished()

    assert app.stop() == 0
    assert flow.verify([(n, flow.store_directory() / str(n)) for n in range(4)]) == 0


def test_graceful_stop_commits_all_that_was_done_and_the_restart_repeats_nothing(flow: Flow) -> None:
    """Stopped in the middle of the flow, started again: every effect exactly once even without de-duplication."""
    flow.feed(3_000)
    first = flow.start(shape="async", chunk_seconds=0.05)
    wait_until(lambda: sum(flow.committed().values()) > 500, "something is committed")

    code = first.stop()
    done = sum(max(0, offset) for offset in flow.committed().values())
    effects = len(flow.effects())
    flow.start()
    flow.wait_finished()

    assert code == 0
    assert effects == done
    assert flow.verify() == 0


def test_a_poison_record_is_put_aside_alone_and_the_flow_goes_on(flow: Flow) -> None:
    """Records of its own chunk too, the one with the same key included."""
    flow.feed(400)
    flow.send([(key_in(0), b"\x00not json"), (key_in(1), Change(1, "poison")), (None, Change(1))])
    flow.feed(400)
    flow.start()
    flow.wait_finished()

    letters = {dict(m.headers() or [])["curfew-reason"]: m for m in read(flow.servers, flow.dead_letters)}
    flow.verify()
    assert letters.keys() == {b"not_a_change", b"told_to", b"no_key"}
    assert letters[b"not_a_change"].value() == b"\x00not json"
    assert letters[b"told_to"].key() == key_in(1).encode()


def test_a_transient_error_holds_its_partition_in_order_and_no_other(flow: Flow) -> None:
    """The chunk is decided again, nothing of a failed try gets out, and records behind it wait. What holds it is a
    file, which goes when the others are done."""
    waiting, hold = key_in(0, 1), flow.directory / "hold"
    hold.touch()
    flow.send([(waiting, Change(1)), (waiting, Change(2, "hold")), (waiting, Change(3))])
    flow.fed[waiting] = 3
    flow.feed(400)  # its first keys are in all partitions
    app = flow.start(hold=str(hold))
    ends = flow.ends()
    app.wait_for("lane.waits", times=TRANSIENT_FAILURES)
    wait_until(lambda: flow.committed().items() >= {n: ends[n] for n in (1, 2, 3)}.items(), "the others are done")
    early = [json.loads(m.value() or b"")["id"] for m in read(flow.servers, flow.output) if m.partition() == 0]
    committed = flow.committed()[0]
    hold.unlink()
    flow.wait_finished()

    assert {line["what"].split("@")[0] for line in app.said("lane.waits")} == {f"{flow.input}[0]"}
    assert early in ([], [f"{waiting}:1"]), "at most what stood in a chunk before it"
    assert committed <= len(early)
    assert flow.verify_effects() == 0


def test_a_broken_invariant_stops_the_process_and_commits_nothing_of_its_chunk(flow: Flow) -> None:
    """Exit code 70; neither outputs nor rows nor offset of the chunk; started again it stops again. A record that the
    client has handed over before the others is a chunk of its own, and done."""
    broken = key_in(2)
    flow.send([(broken, Change(1)), (broken, Change(2, "break")), (broken, Change(3))])

    codes = [flow.start().wait_ended() for _ in range(2)]

    assert codes == [70, 70]
    done = max(0, flow.committed()[2])
    assert done <= 1
    assert [effect.id for effect in flow.effects()] == [f"{broken}:1"] * done
    assert len(read(flow.servers, flow.changelog)) == done
    assert "an invariant is broken" in flow.apps[0].said("worker.died")[0]["error"]


def test_a_deleted_row_is_a_tombstone_and_stays_away(flow: Flow) -> None:
    """In the changelog, in the store, and in a store that is recovered."""
    gone = key_in(3)
    flow.send([(gone, Change(1)), (gone, Change(2, "delete"))])
    flow.feed(200)
    del flow.fed[gone]
    flow.send([(gone, Change(9, "delete"))])
    app = flow.start()
    flow.wait_finished()

    tombstones = [m for m in read(flow.servers, flow.changelog) if m.value() is None]
    assert app.stop() == 0
    assert {m.key() for m in tombstones} == {gone.encode()}
    flow.verify_rows([(n, flow.store_directory() / str(n)) for n in range(4)])


def test_a_changed_row_is_what_the_changelog_holds(flow: Flow) -> None:
    """Key, value and partition of the row, byte for byte."""
    flow.send([(key_in(1), Change(4, "keep", "x" * 50))])
    flow.start()
    flow.wait_finished()

    [row] = read(flow.servers, flow.changelog)
    assert (row.partition(), row.key()) == (1, key_in(1).encode())
    assert msgspec.json.decode(row.value() or b"") == {"revision": 4, "text": "x" * 50}
