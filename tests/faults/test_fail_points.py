"""The worker kills itself at every place that it passes, and nothing is missing afterwards.

For each fail point: feed, let it die there, start it again, wait until everything is committed. Then every change has
had its effect, each effect id has one content, and changelog and stores are the fold of the input.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterable
from typing import Any

import pytest

from streams.kafka.failpoints import FAIL_POINTS
from tests.faults.flow import Flow
from tests.support.apps import AppProcess

pytestmark = pytest.mark.kafka

RECORDS = 5_000
MORE = 1_000
#: Which pass of the point kills: late enough that something is done already, early enough that it is reached.
NTH = {"commit.before": 2, "commit.after": 2, "rebalance.assign": 2, "seek": 2, "recovery.start": 2, "recovery.end": 2}
USUAL_NTH = 4
RECOVERY = [point for point in FAIL_POINTS if point.startswith("recovery.")]
HAND_OVER = ["rebalance.revoke", "rebalance.revoked", "rebalance.assign", "seek"]
CHUNK = [point for point in FAIL_POINTS if point not in (*RECOVERY, *HAND_OVER)]
#: The generator shape differs from whole chunks only where something is made durable.
SLICED = ("outputs.durable", "changelog.middle", "apply.middle", "apply.end")
#: One of each kind runs with every change, the rest with `make faults`.
QUICK = (
    "outputs.middle",
    "changelog.middle",
    "apply.end",
    "commit.before",
    "recovery.middle",
    "rebalance.revoked",
    "seek",
)


def walk(points: Iterable[str], *shapes: str) -> list[Any]:
    """Parameters, those that are not quick marked for the fault suite."""
    no_shape: list[tuple[str, ...]] = [()]
    return [
        pytest.param(point, *shape, marks=() if point in QUICK and shape != ("generator",) else pytest.mark.faults)
        for point in points
        for shape in ([(name,) for name in shapes] or no_shape)
    ]


def setting(point: str) -> str:
    return f"{point}:{NTH.get(point, 1 if point in (*RECOVERY, *HAND_OVER) else USUAL_NTH)}"


def finish_and_verify(flow: Flow, *running: AppProcess) -> None:
    flow.wait_finished()
    owned = {app: app.partitions() for app in running}

    assert [app.stop() for app in running] == [0] * len(running)
    assert sorted(number for numbers in owned.values() for number in numbers) == list(range(flow.partitions))
    flow.verify(
        [(n, flow.store_directory(app.spec.instance) / str(n)) for app, numbers in owned.items() for n in numbers]
    )


def wait_killed(app: AppProcess) -> None:
    assert app.wait_ended() == -signal.SIGKILL, app.tail()


@pytest.mark.parametrize(("point", "shape"), [*walk(CHUNK, "plain"), *walk(SLICED, "generator")])
def test_a_crash_in_the_life_of_a_chunk_loses_nothing(flow: Flow, point: str, shape: str) -> None:
    """Between any two phases, in the middle of each, and around the commit."""
    flow.feed(RECORDS)

    wait_killed(flow.start(fail_point=setting(point), shape=shape))
    again = flow.start(shape=shape)

    finish_and_verify(flow, again)


@pytest.mark.parametrize("point", walk(RECOVERY))
def test_a_crash_during_recovery_loses_nothing(flow: Flow, point: str) -> None:
    """The directory is gone, the worker recovers, dies while it does, and recovers from what it has."""
    flow.feed(RECORDS)
    first = flow.start()
    flow.wait_finished()
    assert first.stop() == 0
    shutil.rmtree(flow.store_directory())
    flow.feed(MORE)

    wait_killed(flow.start(fail_point=setting(point)))
    again = flow.start()

    finish_and_verify(flow, again)


@pytest.mark.parametrize("point", walk(HAND_OVER))
def test_a_crash_during_a_rebalance_loses_nothing(flow: Flow, point: str) -> None:
    """A second worker joins in the flow; the first dies while it gives partitions up or takes them again."""
    flow.feed(RECORDS)
    first = flow.start("1", fail_point=setting(point), shape="async", chunk_seconds=0.05)
    first.wait_for("worker.assigned")

    second = flow.start("2")
    flow.feed(MORE, per_second=2_000)
    wait_killed(first)
    again = flow.start("1")
    again.wait_for("worker.assigned")
    flow.feed(MORE)

    finish_and_verify(flow, again, second)
