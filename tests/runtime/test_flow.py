"""Workers on a real broker: complete, in order, committed, and stopped cleanly."""

from __future__ import annotations

import pytest

from tests.faults.flow import Flow

pytestmark = pytest.mark.kafka


def test_a_fresh_group_commits_the_offsets_it_starts_from(flow: Flow) -> None:
    """Before the first record: "nothing in flight" must differ from "never started"."""
    flow.start()

    flow.wait_finished()

    assert flow.committed() == {0: 0, 1: 0, 2: 0, 3: 0}


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
