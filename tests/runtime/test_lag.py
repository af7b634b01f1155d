"""Offsets are read in a way that survives a broker that has just started."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.brokers import Cluster
from tests.support.kafka_io import create_topic

SCRIPT = """
import sys
from streams.kafka.lag.offset_fetch import committed_offsets
from confluent_kafka import KafkaException
try:
    print(committed_offsets({"bootstrap.servers": sys.argv[1]}, "nobody", [("there", 0)]))
except KafkaException as error:
    print(error.args[0].name())
"""


@pytest.mark.kafka
def test_a_group_whose_coordinator_is_not_ready_does_not_end_the_process(private_kafka: Callable[..., Cluster]) -> None:
    """A fresh cluster has no coordinator yet; the admin client's own way of asking was seen to end in SIGSEGV here."""
    address = private_kafka(with_registry=False).address
    assert address is not None
    create_topic(address.bootstrap_servers, "there")

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, address.bootstrap_servers], capture_output=True, text=True, timeout=120
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() in ("{}", "NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "_TIMED_OUT")
