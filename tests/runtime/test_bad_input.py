"""Records that nobody should have sent: each is handled or put aside, and the flow goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.faults.flow import Flow, read
from tests.support.apps import Change
from tests.support.brokers import Brokers

pytestmark = pytest.mark.kafka

LARGE = 2_000_000


@pytest.fixture
def roomy(kafka: Brokers, topic_prefix: str, tmp_path: Path) -> Iterator[Flow]:
    """A flow whose input takes records of three megabytes."""
    made = Flow(servers=kafka.bootstrap_servers, name=topic_prefix, directory=tmp_path)
    try:
        yield made.create({"max.message.bytes": "3000000"})
    finally:
        made.close()


def test_a_record_of_two_megabytes_is_put_aside_cut_and_the_flow_goes_on(roomy: Flow) -> None:
    """Neither its output nor its row would fit into Kafka; the dead letter has its coordinates and its size."""
    noise = os.urandom(LARGE // 2).hex()
    roomy.feed(200)
    roomy.send(
        [("k0", Change(10_000, "", noise)), ("k1", Change(10_000, "keep", noise))], **{"message.max.bytes": 3_000_000}
    )
    roomy.feed(200)
    app = roomy.start()
    roomy.wait_finished()

    letters = [dict(m.headers() or []) for m in read(roomy.servers, roomy.dead_letters)]
    roomy.verify()
    assert app.code is None
    assert [letter["curfew-reason"] for letter in letters] == [b"too_large"] * 2
    assert all(int(letter["curfew-truncated"] or 0) > LARGE for letter in letters)


@pytest.mark.parametrize("codec", ["lz4", "snappy", "zstd", "gzip"])
def test_compressed_records_of_a_foreign_producer_are_read(flow: Flow, codec: str) -> None:
    """Also those of a transactional one: aborted records are not there, and the mark at the end of a partition does not
    stay behind as a lag of one, for which a virtual clock would wait for ever."""
    flow.feed(100)
    foreign = Producer(
        {
            "bootstrap.servers": flow.servers, "partitioner": "murmur2_random", "compression.type": codec,
            "transactional.id": f"{flow.name}-foreign",
        }
    )  # fmt: skip
    foreign.init_transactions(30.0)
    failures: list[object] = []
    for commit in (False, True):
        foreign.begin_transaction()
        for index in range(100):
            flow.put(foreign, f"k{index}", Change(2 if commit else 9, text=f"k{index} at 2"), failures)
        if not commit:
            foreign.flush(30.0)  # else they would never reach the broker
        foreign.commit_transaction(30.0) if commit else foreign.abort_transaction(30.0)
    flow.fed.update({f"k{index}": 2 for index in range(100)})
    flow.start()
    flow.wait_finished()

    assert flow.verify() == 0
