"""The worker ``sources`` on a real Kafka: one source that cannot be read holds up no other."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from agents.sources import feed
from agents.sources.feeds import feed_of
from streams.core.errors import EXIT_FATAL
from streams.kafka.chunks import Output
from streams.settings import Settings
from tests.events.source_site import AVRO, PATIENCE_S, Site, json_source, provided
from tests.support.fatal import fail_for_good
from tests.support.kafka_io import create_topic, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

#: Once somebody is named, nobody else may.
OF_ANOTHER = (
    ResourceType.TOPIC, "crm.secret", ResourcePatternType.LITERAL, "User:other", "*", AclOperation.READ,
    AclPermissionType.ALLOW,
)  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with provided(tmp_path) as made:
        yield made


def test_sources_that_cannot_be_read_wait_alone_and_go_on_by_themselves(site: Site) -> None:
    """One topic is missing, one is forbidden, the registry of one is away: each waits with its reason and a remedy, and
    rows of the good one come meanwhile. Its bad record is put aside. When all is repaired everything is there."""
    for name in ("good", "secret", "device"):
        create_topic(site.servers, f"crm.{name}", 2)
    site.declare(json_source("good"), json_source("secret"), json_source("absent"), AVRO)
    site.send("crm.good", ("A1", b'{"tier": "gold"}'))
    site.send("crm.secret", ("A1", b'{"tier": "secret"}'))
    site.admin.create_acls([AclBinding(*OF_ANOTHER)])[AclBinding(*OF_ANOTHER)].result(30)
    site.start()

    wait_until(lambda: site.values("good") == {"A1": "gold"}, "the good one is read", PATIENCE_S)
    wait_until(
        lambda: site.states() == {"good": "reads", "secret": "waits", "absent": "waits", "device": "reads"},
        "two wait",
        PATIENCE_S,
    )
    device = site.device("A1", "X1")
    site.proxy.cut()
    site.send("crm.device", ("A1", device))
    wait_until(lambda: site.states()["device"] == "waits", "the registry is missed", PATIENCE_S)
    site.send("crm.good", ("A2", b'{"tier": "silver"}'), ("A3", b"no JSON"), ("A4", b'{"tier": "tin"}'))
    wait_until(lambda: site.values("good").keys() == {"A1", "A2", "A4"}, "the good one goes on", PATIENCE_S)
    # it may be in the other partition
    wait_until(
        lambda: site.health()[1]["sources"]["good"]["dead_letters"] == 1, "its bad record is put aside", PATIENCE_S
    )
    status, facts = site.health()
    problems = {name: one["problem"] for name, one in facts["sources"].items()}
    waiting = site.waits()

    assert status == 200
    assert problems["good"] is None
    assert "nknown topic" in problems["absent"]
    assert "uthoriz" in problems["secret"]
    assert "registry" in problems["device"]
    assert waiting == {"good": 0, "secret": 1, "absent": 1, "device": 1}
    assert len(site.read("dead-letters.sources")) == 1
    log = (site.supervisor.log_dir / "sources.log").read_text()
    assert "create the topic, or correct the source" in log
    assert "let this worker read and describe the topic" in log

    site.proxy.restore()
    create_topic(site.servers, "crm.absent", 1)
    site.send("crm.absent", ("A1", b'{"tier": "here"}'))
    for deleted in site.admin.delete_acls([AclBindingFilter(*OF_ANOTHER)]).values():
        deleted.result(30)
    wanted = {"absent": {"A1": "here"}, "secret": {"A1": "secret"}, "device": {"A1": "X1"}}
    wait_until(lambda: {name: site.values(name) for name in wanted} == wanted, "all rows have come", PATIENCE_S)
    wait_until(lambda: set(site.states().values()) == {"reads"}, "all are read", PATIENCE_S)

    assert set(site.waits().values()) == {0}
    [child] = site.supervisor.children
    assert child.process is not None
    assert child.process.poll() is None


def test_a_commit_that_is_refused_is_made_good_without_another_record(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a coordinator that is still loading: the group would stand in front of what was written for ever."""
    refusals = [KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_COORDINATOR]

    class Refused(Consumer):
        def commit(self, *args: Any, **options: Any) -> Any:
            if refusals:
                raise KafkaException(KafkaError(refusals.pop()))
            return super().commit(*args, **options)

    monkeypatch.setattr(feed, "Consumer", Refused)
    source, written = json_source("good"), list[Output]()
    create_topic(site.servers, "crm.good")
    site.send("crm.good", ("A1", b'{"tier": "gold"}'), ("A2", b'{"tier": "tin"}'))
    made = feed.Feed(site.settings, site.codec, source, feed_of(source), "1", written.extend)

    made.start()
    try:
        wait_until(lambda: not refusals and len(written) == 6, "both are written again", PATIENCE_S)
        wait_until(lambda: site.unread(source) == 0, "both are committed", PATIENCE_S)
    finally:
        made.stop()

    assert [output.key for output in written] == ["A1", "A2"] * 3


@pytest.mark.parametrize("after_s", [0.0, 0.5], ids=["before it writes", "while it waits"])
def test_a_producer_that_cannot_go_on_ends_the_worker(after_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """No feed could write any more, and the worker would look alive: started again it has a producer that can."""

    def ended(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", ended)
    writer = feed.Writer(Settings(bootstrap_servers="127.0.0.1:1"), "1")
    fatal = threading.Timer(after_s, fail_for_good, [writer._producer])
    fatal.start()
    if not after_s:
        fatal.join()

    with pytest.raises(SystemExit) as found:
        writer([Output("sources.rows", "A1", b"row", None, -1)])

    assert found.value.code == EXIT_FATAL
