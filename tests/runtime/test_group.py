"""Who owns a partition, and what becomes of those who owned it."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from pathlib import Path

import msgspec
import pytest

from agents.embedded.ports import free_port
from tests.faults.flow import Flow, create_topics, read
from tests.support.apps import EXIT_MISCONFIGURED, AppProcess, Row
from tests.support.kafka_io import TIMEOUT_SECONDS, wait_until

pytestmark = pytest.mark.kafka

#: Short, since one test waits for its end; long enough for a worker that gets no processor for some seconds.
SESSION_MS = 10_000
#: Nobody is missed meanwhile, however long a start takes.
LONG_SESSION_MS = 120_000


def test_topics_with_different_partition_counts_are_refused(flow: Flow) -> None:
    """The same key would be in different partitions, and joins would find nothing."""
    other = f"{flow.name}-other"
    create_topics(flow.servers, {other: {}}, partitions=3)

    app = flow.start(topics=(flow.input, other))

    assert app.wait_ended() == EXIT_MISCONFIGURED
    [refused] = app.said("refused")
    assert f"{other} has 3" in refused["error"]
    assert f"{flow.input} has 4" in refused["error"]


def test_a_missing_topic_is_named_with_the_remedy(flow: Flow) -> None:
    app = flow.start(topics=(flow.input, f"{flow.name}-nowhere"))

    assert app.wait_ended() == EXIT_MISCONFIGURED
    [refused] = app.said("refused")
    assert f"{flow.name}-nowhere" in refused["error"]
    assert "curfew topics apply" in refused["error"]


def test_two_workers_cannot_share_a_directory(flow: Flow) -> None:
    """The second one is told what to do; the first one goes on."""
    first = flow.start("1")
    first.wait_for("worker.assigned")

    second = flow.start("1")

    assert second.wait_ended() == EXIT_MISCONFIGURED
    assert "--instance" in second.said("refused")[0]["error"]
    flow.feed(100)
    wait_until(lambda: flow.committed() == flow.ends(), "the first worker finishes")
    assert first.code is None


def test_a_second_process_of_the_same_instance_fences_the_first(flow: Flow, tmp_path: Path) -> None:
    """Static membership: the newer one has the partitions at once, the older one leaves."""
    first = flow.start("1")
    first.wait_for("worker.assigned")
    flow.feed(500)
    elsewhere = tmp_path / "elsewhere"

    second = flow.start("1", data_dir=str(elsewhere))
    second.wait_for("worker.assigned")
    flow.feed(500)

    assert first.wait_ended() not in (0, None)
    wait_until(lambda: flow.committed() == flow.ends(), "the second worker finishes")
    flow.verify()


def test_a_killed_worker_gets_its_partitions_back_without_a_rebalance(flow: Flow) -> None:
    """Static membership again: the other worker does not even notice, if it is back within its session."""
    apps = [flow.start(name, session_timeout_ms=LONG_SESSION_MS) for name in ("1", "2")]
    wait_until(lambda: sorted(len(app.partitions()) for app in apps) == [2, 2], "both have two partitions")
    before = [app.partitions() for app in apps]
    seen = len(apps[1].said("worker.assigned"))
    apps[0].kill()

    again = flow.start("1", session_timeout_ms=LONG_SESSION_MS)
    again.wait_for("worker.assigned")

    assert again.partitions() == before[0]
    assert len(apps[1].said("worker.assigned")) == seen


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_that_are_back_within_their_session_read_a_topic_that_is_new_to_them(flow: Flow, workers: int) -> None:
    """Kafka gives a static member that comes back what it had, whatever it subscribes to by now."""
    names = [str(number) for number in range(1, workers + 1)]
    apps = [flow.start(name, session_timeout_ms=LONG_SESSION_MS) for name in names]
    wait_until(lambda: sum(len(app.partitions()) for app in apps) == flow.partitions, "all partitions are given away")
    wait_until(lambda: flow.committed() == flow.ends(), "their offsets are committed")
    for app in apps:
        app.kill()
    added = f"{flow.name}-added"
    create_topics(flow.servers, {added: {}})

    for name in names:
        flow.start(name, topics=(flow.input, added), session_timeout_ms=LONG_SESSION_MS)

    flow.wait_committed(added, dict.fromkeys(range(flow.partitions), 0))


@pytest.mark.faults
@pytest.mark.parametrize("order", ["12", "21"])
def test_workers_that_are_restarted_one_after_another_share_a_topic_that_is_new(flow: Flow, order: str) -> None:
    """Whichever of them leads: in between, the first one may be given all of the topic, and reads only its own."""
    apps = {name: flow.start(name, session_timeout_ms=LONG_SESSION_MS) for name in "12"}
    wait_until(lambda: sorted(len(app.partitions()) for app in apps.values()) == [2, 2], "both have two partitions")
    added = f"{flow.name}-added"
    create_topics(flow.servers, {added: {}})

    for name in order:
        apps[name].kill()
        apps[name] = flow.start(name, topics=(flow.input, added), session_timeout_ms=LONG_SESSION_MS)
        apps[name].wait_for("worker.assigned")

    flow.wait_committed(added, dict.fromkeys(range(flow.partitions), 0))
    assert sorted(len(app.partitions()) for app in apps.values()) == [2, 2]


def test_a_worker_that_was_stopped_for_longer_than_its_session_writes_nothing_any_more(flow: Flow) -> None:
    """A zombie: its partitions have a new owner; a row of it in the changelog would win over the new owner's."""
    zombie = flow.start(
        "1", shape="async", chunk_seconds=0.1, session_timeout_ms=SESSION_MS, delivery_timeout_ms=SESSION_MS - 1_000
    )
    flow.feed(8_000)
    wait_until(lambda: sum(flow.committed().values()) > 500, "the first worker is in the middle")
    zombie.send(signal.SIGSTOP)
    _all_threads_stopped(zombie)

    heir = flow.start("2", session_timeout_ms=SESSION_MS)
    wait_until(lambda: heir.partitions() == [0, 1, 2, 3], "the second worker has everything")
    flow.feed(2_000)
    wait_until(lambda: flow.committed() == flow.ends(), "the second worker has finished")
    rows, effects = _rows(flow), len(flow.effects())
    zombie.send(signal.SIGCONT)
    code = zombie.wait_ended()

    assert code == 70
    assert _rows(flow) == rows
    assert len(flow.effects()) == effects
    assert heir.stop() == 0
    flow.verify([(n, flow.store_directory("2") / str(n)) for n in range(4)])
    assert all(later >= earlier for earlier, later in _steps(rows)), "a revision went back in the changelog"


def _all_threads_stopped(app: AppProcess) -> None:
    def stopped() -> bool:
        tasks = Path(f"/proc/{app.pid}/task")
        states = [(tasks / task / "stat").read_text().rsplit(")", 1)[1].split()[0] for task in os.listdir(tasks)]
        return set(states) == {"T"}

    wait_until(stopped, "every thread is stopped")


def _rows(flow: Flow) -> list[tuple[int, int, bytes, int]]:
    """(partition, offset, key, revision) of every changelog record, sorted: partitions are read side by side."""
    return sorted(
        (
            m.partition() or 0, m.offset() or 0, bytes(m.key() or b""),
            msgspec.json.decode(m.value() or b"", type=Row).revision,
        )
        for m in read(flow.servers, flow.changelog)
    )  # fmt: skip


def _steps(rows: list[tuple[int, int, bytes, int]]) -> list[tuple[int, int]]:
    last: dict[bytes, int] = {}
    steps = []
    for _, _, key, revision in rows:
        steps.append((last.get(key, 0), revision))
        last[key] = revision
    return steps


def test_health_tells_partitions_and_work(flow: Flow) -> None:
    """GET /health on the given port."""
    port = free_port()
    flow.feed(100)
    flow.start(health_port=port)
    flow.wait_finished()

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=TIMEOUT_SECONDS) as answer:
        report = json.load(answer)

    assert report["alive"] is True
    assert report["partitions"] == [0, 1, 2, 3]
    assert (report["records"], report["outputs"], report["chunks_outstanding"]) == (100, 100, 0)
