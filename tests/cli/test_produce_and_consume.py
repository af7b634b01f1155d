"""`curfew produce` and `curfew consume`: nothing is lost between them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Producer

from streams.kafka.partitioner import partition_of
from streams.kafka.scan import Scanner
from tests.cli.curfew import Curfew
from tests.support.brokers import Brokers
from tests.support.kafka_io import create_topic

pytestmark = pytest.mark.kafka


@pytest.fixture
def queue(curfew: Curfew, unique: Callable[[str], str]) -> str:
    """A queue's topic with its schema."""
    assert curfew("queues", "create", unique("q")).code == 0
    return f"queue.{unique('q')}"


def _event(number: int) -> dict[str, Any]:
    return {
        "event_id": f"id-{number}",
        "type": "invoice.posted",
        "occurred_at": "2026-02-28T23:00:00.250Z",
        "subject_kind": "Invoice",
        "subject_id": f"inv-{number}",
        "account_id": f"acc-{number}",
        "sequence": number,
        "previous": None,
        "current": {"state": "Posted"},
        "facts": {},
        "audience": "customer",
        "parameters": {
            "invoice.amount": {"decimal": "12.500000"},
            "invoice.due_date": {"date": "2026-03-01"},
            "invoice.seen": {"curfew.events.Instant": {"at": "2026-03-01T00:00:00.000Z"}},
            "invoice.number": "2026-03-01",
            "missing": None,
        },
        "missing": ["missing"],
        "hops": 0,
        "traceparent": None,
    }


def _line(number: int, **more: Any) -> str:
    return json.dumps({"key": f"acc-{number}", "value": _event(number), **more}) + "\n"


def _records(text: str) -> list[dict[str, Any]]:
    return sorted((json.loads(line) for line in text.splitlines()), key=lambda record: record["key"] or "")


def test_what_is_produced_is_consumed_with_every_type(curfew: Curfew, queue: str) -> None:
    """Decimals, dates and instants come back as what they are, each key in its own partition."""
    produced = curfew("produce", queue, stdin="".join(_line(n) for n in range(5)))
    records = _records(curfew("consume", queue, "-e", "-f", "json").out)

    assert produced.code == 0
    assert produced.err == f"5 records sent to {queue}\n"
    assert [record["value"] for record in records] == [_event(n) for n in range(5)]
    assert [record["partition"] for record in records] == [partition_of(f"acc-{n}", 4) for n in range(5)]


def test_json_from_consume_is_read_by_produce_without_loss(curfew: Curfew, kafka: Brokers, queue: str) -> None:
    """Tombstones, repeated and binary headers, timestamps, bytes that are no Avro and keys that are no text."""
    curfew("produce", queue, stdin=_line(1, headers=[["a", "1"], ["a", "2"], ["none", None]], timestamp=1767225600000))
    curfew("produce", queue, stdin='{"key": "acc-2", "value": null}\n')
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "partitioner": "murmur2_random"})
    producer.produce(queue, key=b"\xff\xfe", value=b"\xff no avro", headers=[("bin", b"\xff\x00")])
    producer.produce(queue, key=None, value=b"", partition=3)
    assert producer.flush(30) == 0
    copy = f"{queue}-copy"
    curfew("queues", "create", copy.removeprefix("queue."))

    original = curfew("consume", queue, "-e", "-f", "json").out
    assert curfew("produce", copy, "-f", "json", stdin=original).code == 0
    copied = curfew("consume", copy, "-e", "-f", "json").out

    def comparable(text: str) -> list[str]:
        return sorted(line.replace(copy, queue) for line in text.splitlines())

    assert len(comparable(original)) == 4
    assert comparable(copied) == comparable(original)


def test_dead_letters_are_copied_byte_by_byte(
    curfew: Curfew, kafka: Brokers, queue: str, unique: Callable[[str], str]
) -> None:
    """Their topic has no schema: Avro of another topic is readable there, and stays what it is."""
    assert curfew("topics", "apply").code == 0
    curfew("produce", queue, stdin=_line(1))
    [avro] = [value for _, value, _, _ in _raw(kafka, queue)]
    letters = {unique("avro"): avro, unique("bytes"): b"\xff no avro", unique("text"): b"text", unique("gone"): None}
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "partitioner": "murmur2_random"})
    headers: list[Any] = [("reason", b"bad"), ("reason", None), ("bin", b"\xff"), ("empty", b"")]
    for key, value in letters.items():
        producer.produce("dead-letters.usage", key=key, value=value, headers=headers, timestamp=1767225600123)
    assert producer.flush(30) == 0

    lines = [line for line in curfew("consume", "dead-letters.usage", "-e", "-f", "json").out.splitlines()
             if json.loads(line)["key"] in letters]  # fmt: skip
    assert curfew("produce", "dead-letters.sources", stdin="\n".join(lines)).code == 0
    copied = {key: rest for key, *rest in _raw(kafka, "dead-letters.sources") if key.decode() in letters}

    assert [json.loads(line)["value"]["event_id"] for line in lines if unique("avro") in line] == ["id-1"]
    assert copied == {key.encode(): [value, headers, 1767225600123] for key, value in letters.items()}


def _raw(kafka: Brokers, topic: str) -> list[tuple[bytes, bytes | None, Any, int]]:
    with Scanner({"bootstrap.servers": kafka.bootstrap_servers}) as scanner:
        return [
            (one.key() or b"", one.value(), one.headers(), one.timestamp()[1])
            for one in scanner.read(topic, scanner.spans(topic))
        ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "line 2: is not JSON"),
        ("[]", "line 2: must be an object"),
        ('{"key": "a"}', "line 2: value is missing"),
        ('{"value": null}', "line 2: key is missing"),
        ('{"key": 1, "value": null}', "line 2: key must be text or null, not 1"),
        ('{"key": "a", "valeu": null}', "line 2: valeu is no field of a record"),
        ('{"key": "a", "value": {}}', "line 2: value.event_id is missing: Event needs it"),
        (json.dumps({"key": "a", "value": {**_event(1), "sequence": "1"}}), "line 2: value.sequence must be a long"),
        (json.dumps({"key": "a", "value": {**_event(1), "sequence": 2**63}}), "line 2: value does not fit"),
        (
            json.dumps({"key": "a", "value": {**_event(1), "audience": "all"}}),
            "line 2: value is no valid curfew.events",
        ),
        ('{"key": "a", "value": null, "headers": ["x"]}', "line 2: headers must be pairs"),
        ('{"key": null, "value": null, "partition": 4}', "line 2: partition is 4, but"),
        ('{"key": "a", "value_base64": "%"}', "line 2: value_base64 is not base64"),
    ],
)
def test_a_bad_line_is_named_and_nothing_of_it_is_sent(curfew: Curfew, queue: str, line: str, message: str) -> None:
    """What came before it stays sent, what comes after is not read; exit code 1."""
    finished = curfew("produce", queue, stdin=_line(1) + line + "\n" + _line(3))

    assert finished.code == 1
    assert message in finished.err
    assert f"1 records sent to {queue}" in finished.err
    assert [r["key"] for r in _records(curfew("consume", queue, "-e", "-f", "json").out)] == ["acc-1"]


def test_skip_bad_goes_on_and_still_fails(curfew: Curfew, queue: str) -> None:
    """A script must notice that something was left out."""
    finished = curfew("produce", queue, "--skip-bad", stdin=_line(1) + "\n{\n" + _line(3))

    assert finished.code == 1
    assert "line 3: is not JSON" in finished.err
    assert "2 records sent" in finished.err


def test_dry_run_checks_and_sends_nothing(curfew: Curfew, queue: str) -> None:
    """The same checks."""
    finished = curfew("produce", queue, "--dry-run", stdin=_line(1))

    assert finished.code == 0
    assert curfew("consume", queue, "-e").err == "0 records\n"


def test_a_topic_that_the_manifest_does_not_know_is_refused(curfew: Curfew) -> None:
    """A misspelt topic must not be made by writing to it."""
    produced = curfew("produce", "billing.acount", stdin="{}")
    consumed = curfew("consume", "billing.acount", "-e")

    for finished in (produced, consumed):
        assert finished.code == 2
        assert "there is no topic 'billing.acount' (did you mean 'billing.account'" in finished.err


def test_a_topic_that_is_not_there_is_refused_at_once(curfew: Curfew, unique: Callable[[str], str]) -> None:
    """The client would wait for it in silence; with --dry-run nobody needs it."""
    topic = f"queue.{unique('none')}"

    produced = curfew("produce", topic, stdin=_line(1))

    assert (produced.code, produced.err.count("\n")) == (1, 1)
    assert f"no such topic: {topic}. Create it with: curfew queues create {unique('none')}" in produced.err


def test_a_group_that_does_not_exist_is_never_not_behind(curfew: Curfew, queue: str) -> None:
    """Exit code 2 and the nearest name."""
    group = f"{queue}-readers"
    curfew("produce", queue, stdin=_line(1))
    curfew("consume", queue, "--group", group, "-n", "1")

    finished = curfew("lag", "--group", f"{group}x", "--limit", "0")

    assert (finished.code, finished.out) == (2, "")
    assert f"there is no consumer group '{group}x' (did you mean '{group}'" in finished.err


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (["-e"], ["a", "b", "c"]),
        (["--from-beginning", "-n", "2"], ["a", "b"]),
        (["-o", "1", "-e"], ["b", "c"]),
        (["-o", "0:2"], ["a", "b"]),
        (["-o", "@2026-01-01T00:00:00Z:@2026-01-02T00:00:00Z"], ["a"]),
        (["-o", "@2026-01-01T00:00:01Z", "-e"], ["b", "c"]),
        (["-o", "@-1h:end"], ["c"]),
        (["-o", "end", "-e"], []),
        (["-o", "99", "-e"], []),
    ],
)
def test_reading_starts_and_stops_where_it_is_told(
    curfew: Curfew, kafka: Brokers, unique: Callable[[str], str], arguments: list[str], keys: list[str]
) -> None:
    """Offsets, instants and both ends of a range; the records are of two January days and of now."""
    topic = unique("times")
    create_topic(kafka.bootstrap_servers, topic)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for key, timestamp in (("a", 1767225600000), ("b", 1767398400000), ("c", 0)):  # 0 = now
        producer.produce(topic, key=key, value=b"x", partition=0, timestamp=timestamp)
    assert producer.flush(30) == 0

    finished = curfew("consume", topic, *arguments, "-f", "json")

    assert [json.loads(line)["key"] for line in finished.out.splitlines()] == keys


def test_a_group_goes_on_where_it_committed(curfew: Curfew, queue: str) -> None:
    """And `curfew lag` sees it; over the limit is 3."""
    curfew("produce", queue, stdin=_line(1) + _line(1) + _line(1))
    group = f"{queue}-readers"

    first = curfew("consume", queue, "--group", group, "-n", "1", "-f", "raw")
    behind = curfew("lag", "--group", group, "--limit", "1")
    rest = curfew("consume", queue, "--group", group, "-e", "-f", "raw")
    after = curfew("lag", "--group", group, "--limit", "0", "-f", "json")

    assert (len(first.out.splitlines()), len(rest.out.splitlines())) == (1, 2)
    assert (behind.code, after.code) == (3, 0)
    assert f"{group} is 2 records behind, over the limit of 1" in behind.err
    [row] = json.loads(after.out)
    assert (row["group"], row["lag"], row["members"]) == (group, 0, 0)
    [partition] = [one for one in row["partitions"] if one["committed"]]
    assert (partition["topic"], partition["committed"], partition["end"]) == (queue, 3, 3)
