"""`curfew plan-changes`: deadlines without a cluster; orders, replies and lists with one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from agents.cli.plan_changes import rows as changelog_rows
from agents.plan_changes.reasons import EXPLANATIONS
from agents.plan_changes.requests import exchange
from streams.codec import Codec, Registry
from streams.core.errors import Poison
from streams.core.plan_change.machine import State
from streams.core.plan_change.messages import Request, RequestKind, Resolution
from streams.core.plan_change.rows import change_key, pack, past_key
from streams.core.plan_change.told import accepted, refused
from streams.kafka.chunks import Record
from streams.kafka.dead_letters import envelope
from streams.settings import Settings
from tests.billing.makers import sealed
from tests.cli.curfew import Curfew
from tests.plan_changes.makers import NOON, a_request, pending
from tests.support.brokers import Brokers
from tests.support.kafka_io import TIMEOUT_SECONDS, create_topic

CHANGE = pending()


def test_a_deadline_needs_no_cluster(offline: Curfew) -> None:
    """Midnight was missing in São Paulo that night; the lead is elapsed time."""
    found = offline("plan-changes", "deadline", "America/Sao_Paulo", "2018-11-04", "--lead", "6", "-f", "json")

    assert found.code == 0
    [row] = json.loads(found.out)
    assert (row["start"], row["deadline"]) == ("2018-11-03T21:00:00Z", "2018-11-04T03:00:00Z")
    assert row["deadline_local"] == "2018-11-04T01:00:00-02:00"


def test_many_deadlines_from_standard_input(offline: Curfew) -> None:
    """One line each, in their order; empty lines do not matter."""
    lines = "America/Havana,2018-11-04\n\nEurope/Berlin, 2018-11-04\n"

    found = offline("plan-changes", "deadline", "-", "--lead", "1", "-f", "json", stdin=lines)

    assert [(row["zone"], row["deadline"], row["start"]) for row in json.loads(found.out)] == [
        ("America/Havana", "2018-11-04T04:00:00Z", "2018-11-04T03:00:00Z"),
        ("Europe/Berlin", "2018-11-03T23:00:00Z", "2018-11-03T22:00:00Z"),
    ]


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (("Europe/Berln", "2018-11-04"), "", "did you mean 'Europe/Berlin'"),
        (("Europe/Berlin", "4.11.2018"), "", "write 2018-11-04"),
        (("Europe/Berlin",), "", "give a local date"),
        (("-",), "Europe/Berlin,2018-11-04\nEurope/Berlin\n", "line 2"),
    ],
)
def test_what_cannot_be_a_deadline_is_wrong_usage(
    offline: Curfew, arguments: tuple[str, ...], stdin: str, said: str
) -> None:
    """Exit code 2, and the message names the mistake."""
    found = offline("plan-changes", "deadline", *arguments, stdin=stdin)

    assert found.code == 2
    assert said in " ".join(found.err.replace("│", " ").split())


@pytest.fixture
def answering(curfew: Curfew, kafka: Brokers) -> Any:
    """Somebody who answers requests as the scheduler would: yes to crm, no to everybody else."""
    assert curfew("topics", "apply").code == 0
    assert curfew("schemas", "apply").code == 0
    codec = Codec(Registry(kafka.schema_registry_url))
    topic, config = "plan-change.requests", {"bootstrap.servers": kafka.bootstrap_servers}
    consumer = Consumer({**config, "group.id": "unused", "enable.auto.commit": False})
    numbers = consumer.list_topics(topic).topics[topic].partitions
    ends = {number: consumer.get_watermark_offsets(TopicPartition(topic, number))[1] for number in numbers}
    consumer.assign([TopicPartition(topic, number, end) for number, end in ends.items()])
    producer, stopping, seen = Producer(config), threading.Event(), list[Request]()

    def answer() -> None:
        while not stopping.is_set():
            message = consumer.poll(0.1)
            if message is None or message.error() is not None:
                continue
            request = codec.decode(message.value(), Request)
            seen.append(request)
            if request.channel == "noisy":  # what somebody else has put there
                producer.produce("plan-change.replies", key=request.account_id, value=b"no reply")
            change = replace(CHANGE, service_id=request.service_id, request_id=request.request_id)
            told = (
                accepted(request, change, NOON)
                if request.channel in ("crm", "noisy")
                else refused(request, None, ("channel_not_allowed",), NOON)
            )
            value = codec.encode("plan-change.replies", told.reply)
            producer.produce("plan-change.replies", key=request.account_id, value=value)
            producer.flush(TIMEOUT_SECONDS)
        consumer.close()

    thread = threading.Thread(target=answer)
    thread.start()
    yield seen
    stopping.set()
    thread.join()


@pytest.mark.kafka
def test_an_order_waits_for_its_own_reply(
    curfew: Curfew, answering: list[Request], unique: Callable[[str], str]
) -> None:
    """The reply is printed, and a refusal is exit code 1 with its reasons."""
    service = unique("S")
    order = ("plan-changes", "order", service, "basic-to-plus", "--account", "A1", "--wait", "-f", "json")

    yes = curfew(*order, "--channel", "crm", "--silent", "--option", "tv")
    no = curfew(*order, "--channel", "fax")

    assert (yes.code, json.loads(yes.out)[0]["accepted"]) == (0, True)
    assert (no.code, json.loads(no.out)[0]["reasons"]) == (1, ["channel_not_allowed"])
    first = next(request for request in answering if request.service_id == service)
    assert (first.silent, first.options, first.element_key) == (True, ("tv",), "basic-to-plus")


@pytest.mark.kafka
def test_a_reply_that_nobody_can_read_does_not_hide_the_one_that_is_waited_for(
    curfew: Curfew, answering: list[Request], unique: Callable[[str], str]
) -> None:
    """The request was accepted: an error would have it sent again."""
    order = ("order", unique("S"), "basic-to-plus", "--account", "A1", "--channel", "noisy", "--wait", "-f", "json")

    found = curfew("plan-changes", *order)

    assert (found.code, json.loads(found.out)[0]["accepted"]) == (0, True)


@pytest.mark.kafka
def test_who_waits_for_a_reply_lets_go_of_kafka_when_the_request_cannot_be_sent(
    answering: list[Request], kafka: Brokers, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The board sends many from one process."""
    closed: list[Consumer] = []

    class Watched(Consumer):
        def close(self) -> None:
            closed.append(self)
            super().close()

    monkeypatch.setattr("confluent_kafka.Consumer", Watched)
    too_large = replace(a_request(unique("S")), channel="x" * 2_000_000)

    with pytest.raises(KafkaException):
        exchange(Settings(), Codec(Registry(kafka.schema_registry_url)), too_large, 5.0)

    assert len(closed) == 1


@pytest.mark.kafka
def test_repairs_are_requests_like_any_other(
    curfew: Curfew, answering: list[Request], unique: Callable[[str], str]
) -> None:
    """With the resolution that was chosen; a refusal is explained in words where a person reads it."""
    service = unique("S")
    about = (service, "--account", "A1", "--channel", "crm", "--wait", "-f", "json")

    again = curfew("plan-changes", "retry", *about, "--expected-revision", "3")
    rolled = curfew("plan-changes", "resolve", *about, "--roll")
    refused = curfew("plan-changes", "resolve", service, "--account", "A1", "--channel", "fax", "--abandon", "--wait")

    assert (again.code, rolled.code, refused.code) == (0, 0, 1)
    assert "channel_not_allowed: the element may not be ordered through this channel" in refused.out
    assert [(one.kind, one.resolution, one.expected_revision) for one in answering if one.service_id == service] == [
        (RequestKind.RETRY, None, 3),
        (RequestKind.RESOLVE, Resolution.ROLL, None),
        (RequestKind.RESOLVE, Resolution.ABANDON, None),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "--state", "panding"), "there is no state 'panding' (did you mean 'pending'?); there are: ordered,"),
        (("board", "--once", "--zone", "Europe/Berln"), "there is no IANA zone 'Europe/Berln' (did you mean 'Europe/B"),
        (("dry-run", "--night", "2018-11-04", "--zone", "Berlin"), "did you mean 'Europe/Berlin'"),
        (("dry-run", "S1", "--account", "A1", "--zone", "Europe/Berlin"), "only has a meaning with --night"),
        (("dry-run", "S1", "--account", "A1", "--date", "2018-11-04"), "only has a meaning with --element"),
        (("board", "--once", "--date", "4.11.2018"), "'4.11.2018' does not match the format"),
        (("list", "--format", "jsn"), "'jsn' is not one of 'table', 'json'"),
    ],
)
def test_a_filter_that_means_nothing_is_wrong_usage(offline: Curfew, arguments: tuple[str, ...], said: str) -> None:
    """Exit code 2 before anything is asked; an empty answer would look like a good night."""
    found = offline("plan-changes", *arguments)

    assert (found.code, found.out) == (2, "")
    assert said in " ".join(found.err.replace("│", " ").split())


@pytest.mark.parametrize("chosen", [(), ("--roll", "--abandon")])
def test_a_resolution_is_exactly_one(offline: Curfew, chosen: tuple[str, ...]) -> None:
    """None, or two at once, is wrong usage and sends nothing."""
    found = offline("plan-changes", "resolve", "S1", "--account", "A1", *chosen)

    assert found.code == 2
    assert "exactly one of --finish-late, --roll, --abandon" in " ".join(found.err.replace("│", " ").split())


@pytest.mark.kafka
def test_without_a_reply_the_request_can_be_sent_again(curfew: Curfew, unique: Callable[[str], str]) -> None:
    """Nobody answers: the message has the request id, so that asking again is safe."""
    assert curfew("topics", "apply").code == 0
    assert curfew("schemas", "apply").code == 0

    found = curfew("plan-changes", "cancel", unique("S"), "--account", "A1", "--wait", "--timeout", "0.2",
                   "--request-id", "mine")  # fmt: skip

    assert found.code == 1
    assert "--request-id mine" in found.err


@pytest.mark.kafka
def test_changes_are_listed_from_the_changelog(
    curfew: Curfew, kafka: Brokers, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last row of a key counts, the nearest deadline comes first, deleted rows and other kinds are not shown."""
    topic = unique("changelog")
    create_topic(kafka.bootstrap_servers, topic, partitions=2)
    objects = unique("objects")
    create_topic(kafka.bootstrap_servers, objects)
    monkeypatch.setattr(changelog_rows, "CHANGES", topic)
    monkeypatch.setattr(changelog_rows, "OBJECTS", objects)
    later = replace(CHANGE, service_id="S2", deadline_at=CHANGE.deadline_at + timedelta(hours=1))
    old = replace(CHANGE, state=State.SUPERSEDED)
    new = replace(CHANGE, revision=2, state=State.STARTED)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    rows = [
        (change_key("S1"), pack(CHANGE)),
        (past_key(old), pack(old)),
        (change_key("S1"), pack(new)),
        (change_key("S2"), pack(later)),
        (change_key("S3"), pack(replace(CHANGE, service_id="S3"))),
        (change_key("S3"), None),
        (b"request/S1/R1", b"\x80"),
    ]
    for key, value in rows:
        producer.produce(topic, key=key, value=value)
    assert producer.flush(TIMEOUT_SECONDS) == 0

    listed = json.loads(curfew("plan-changes", "list", "-f", "json").out)
    started = json.loads(curfew("plan-changes", "list", "--state", "started", "-f", "json").out)
    shown = json.loads(curfew("plan-changes", "show", "S1", "-f", "json").out)

    assert [(row["service_id"], row["state"]) for row in listed] == [("S1", "started"), ("S2", "pending")]
    assert [row["service_id"] for row in started] == ["S1"]
    assert [(row["revision"], row["state"]) for row in shown] == [(2, "started"), (1, "superseded")]
    assert curfew("plan-changes", "show", "S9").code == 1
    nobody = curfew("plan-changes", "list", "--account", "A11")
    assert (nobody.code, nobody.out) == (2, "")
    assert "there is no account 'A11' (did you mean 'A1'?)" in nobody.err


@pytest.mark.kafka
def test_show_says_why_a_change_does_not_go_on(
    curfew: Curfew, kafka: Brokers, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook's reason, a deadline that was missed, and what the persister has put aside; a code and its words."""
    assert curfew("topics", "apply").code == 0
    assert curfew("schemas", "apply").code == 0
    codec = Codec(Registry(kafka.schema_registry_url))
    topic, letters = unique("changelog"), unique("letters")
    create_topic(kafka.bootstrap_servers, topic)
    create_topic(kafka.bootstrap_servers, letters)
    monkeypatch.setattr(changelog_rows, "CHANGES", topic)
    monkeypatch.setattr(changelog_rows, "DEAD_LETTERS", letters)
    dead = sealed(1)
    changes = (
        replace(CHANGE, service_id="failed", state=State.FAILED, reason="hook_timeout:crm"),
        replace(CHANGE, service_id="held", state=State.HELD, closed=True, missed=True),
        replace(CHANGE, service_id=dead.service_id, state=State.EXECUTED, change_id=dead.change_id),
        replace(CHANGE, service_id="well", state=State.EXECUTED),
    )
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for change in changes:
        producer.produce(topic, key=change_key(change.service_id), value=pack(change))
    record = Record("plan-change.outcomes", 0, 0, b"s1", codec.encode("plan-change.outcomes", dead), [], 0)
    value, headers = envelope(record, Poison("unknown_service", "import it, then redrive"), "persistence")
    producer.produce(letters, key=record.key, value=value, headers=list[Any](headers))
    assert producer.flush(TIMEOUT_SECONDS) == 0

    def shown(service: str) -> tuple[str | None, str | None]:
        [row] = json.loads(curfew("plan-changes", "show", service, "-f", "json").out)
        return row["reason"], row["reason_in_words"]

    assert shown("failed") == ("hook_timeout:crm", EXPLANATIONS["hook_timeout"])
    assert shown("held") == ("deadline_missed", EXPLANATIONS["deadline_missed"])
    assert shown(dead.service_id) == (
        "unknown_service",
        f"the billing store refused the outcome: unknown_service: import it, then redrive; it lies in {letters}[0]@0",
    )
    assert shown("well") == (None, None)
    assert f"hook_timeout:crm: {EXPLANATIONS['hook_timeout']}" in curfew("plan-changes", "show", "failed").out
