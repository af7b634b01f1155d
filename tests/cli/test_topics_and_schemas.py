"""`curfew topics`, `schemas` and `queues` on a real cluster."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient

from tests.cli.curfew import Curfew
from tests.support.brokers import Brokers
from tests.support.kafka_io import TIMEOUT_SECONDS, create_topic, wait_until

pytestmark = pytest.mark.kafka


def test_apply_brings_the_cluster_to_the_manifest(curfew: Curfew, unique: Callable[[str], str]) -> None:
    """3 while something differs, 0 when nothing does; --dry-run changes nothing."""
    queue = unique("q")
    curfew("topics", "apply")

    drifted = curfew("topics", "diff", "--queue", queue)
    tried = curfew("topics", "apply", "--queue", queue, "--dry-run")
    still = curfew("topics", "diff", "--queue", queue, "-f", "json")
    applied = curfew("topics", "apply", "--queue", queue)
    after = curfew("topics", "diff", "--queue", queue)

    assert (drifted.code, tried.code, still.code, applied.code, after.code) == (3, 0, 3, 0, 0)
    assert f"queue.{queue}" in drifted.out
    assert {"topic": f"queue.{queue}", "kind": "Missing", "difference": "does not exist"} in json.loads(still.out)
    assert "1 created, 0 altered" in tried.err
    assert "nothing was changed" in tried.err
    assert "1 created, 0 altered, " in applied.err
    assert " unchanged" in applied.err


def test_a_wrong_partition_count_stays_and_is_explained(
    curfew: Curfew, kafka: Brokers, unique: Callable[[str], str]
) -> None:
    """3, since the drift is still there, and a person has to decide."""
    topic = f"queue.{unique('q')}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    create_topic(kafka.bootstrap_servers, topic)
    try:
        finished = curfew("topics", "apply", "-f", "json")
    finally:
        admin.delete_topics([topic])[topic].result()
        wait_until(lambda: topic not in admin.list_topics(timeout=TIMEOUT_SECONDS).topics, "it is gone for others too")

    assert finished.code == 3
    [difference] = [
        row["difference"]
        for row in json.loads(finished.out)
        if row["topic"] == topic and row["kind"] == "WrongPartitions"
    ]
    assert "keys would move" in difference


def test_schemas_are_registered_once(curfew: Curfew) -> None:
    """The second run has nothing to do, and check agrees."""
    first = curfew("schemas", "apply")
    second = curfew("schemas", "apply")
    checked = curfew("schemas", "check", "-f", "json")

    assert (first.code, second.code, checked.code) == (0, 0, 0)
    assert second.err.startswith("0 of ")
    assert {row["standing"] for row in json.loads(checked.out)} == {"unchanged"}


def test_a_queue_is_created_with_its_schema(curfew: Curfew, unique: Callable[[str], str]) -> None:
    """An external subscriber needs both; a second time is no mistake."""
    queue = unique("field-service")

    created = curfew("queues", "create", queue)
    again = curfew("queues", "create", queue)
    listed = json.loads(curfew("queues", "list", "-f", "json").out)
    subjects = json.loads(curfew("schemas", "check", "-f", "json").out)

    assert (created.code, again.code) == (0, 0)
    assert created.err == f"queue.{queue}: created\n"
    assert again.err == f"queue.{queue}: was there already\n"
    assert {"queue": queue, "topic": f"queue.{queue}", "partitions": 4} in listed
    assert any(row["subject"] == f"queue.{queue}-value" and row["standing"] == "unchanged" for row in subjects)


def test_a_name_that_cannot_be_a_queue_is_refused(curfew: Curfew) -> None:
    """Before anything is made."""
    finished = curfew("queues", "create", "Not A Queue")

    assert finished.code == 2
    assert "cannot be a queue's name" in finished.err
