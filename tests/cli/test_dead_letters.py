"""`curfew dead-letters`: what lies there, and every letter goes back exactly once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Producer

from agents.delivery import letters, redrive
from streams.core.errors import Poison, Transient
from streams.kafka.chunks import Record
from streams.kafka.dead_letters import envelope
from streams.kafka.scan import Scanner
from tests.cli.curfew import Curfew
from tests.support.brokers import Brokers
from tests.support.kafka_io import create_topic

pytestmark = pytest.mark.kafka
COUNT = 200


@pytest.fixture
def origin(curfew: Curfew, kafka: Brokers, unique: Callable[[str], str]) -> str:
    """A topic whose records have died: 200 for one reason of its own, two of them with a person's data."""
    assert curfew("topics", "apply").code == 0
    assert curfew("schemas", "apply").code == 0
    topic = unique("origin")
    create_topic(kafka.bootstrap_servers, topic)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number in range(COUNT):
        headers: list[tuple[str, bytes | None]] = [("kept", b"yes"), ("traceparent", b"00-1-2-01")]
        dead = Record(topic, 0, number, f"{topic}-{number}".encode(), b"ana@example.com", headers, 0)
        value, marked = envelope(dead, Poison(unique("reason"), "no ana@example.com"), "usage")
        producer.produce("dead-letters.usage", key=dead.key, value=value, headers=[*marked], partition=0)
    assert producer.flush(30) == 0
    return topic


def arrived(kafka: Brokers, topic: str) -> list[Any]:
    with Scanner({"bootstrap.servers": kafka.bootstrap_servers}) as scanner:
        return list(scanner.read(topic, scanner.spans(topic)))


def test_a_redrive_brings_all_back_as_they_were_and_a_second_one_finds_none(
    curfew: Curfew, kafka: Brokers, origin: str, unique: Callable[[str], str]
) -> None:
    """Counted first, and nothing sent by the dry run."""
    which = ("--app", "usage", "--reason", unique("reason"))
    dry = curfew("dead-letters", "redrive", *which, "--dry-run")
    untouched = arrived(kafka, origin)
    first = curfew("dead-letters", "redrive", *which, "--max", "50", "--yes", "--by", "maria")
    rest = curfew("dead-letters", "redrive", *which, "--yes")
    none = curfew("dead-letters", "redrive", *which, "--yes")
    counts = json.loads(curfew("dead-letters", "list", *which, "--counts", "-f", "json").out)
    misspelt = curfew("dead-letters", "list", "--app", "usage", "--reason", f"{unique('reason')}s")

    assert (dry.code, untouched) == (0, [])
    assert (misspelt.code, misspelt.out) == (2, "")
    assert f"did you mean '{unique('reason')}'" in misspelt.err
    assert f"{COUNT} of {COUNT} would be sent back; nothing has been sent" in dry.err
    assert "50 of 50 sent back" in first.err
    assert "150 of 150 sent back" in rest.err
    assert "0 of 0 would be sent back" in none.err
    records = arrived(kafka, origin)
    assert sorted(one.key() for one in records) == sorted(f"{origin}-{n}".encode() for n in range(COUNT))
    assert {one.value() for one in records} == {b"ana@example.com"}
    assert {tuple(name for name, _ in one.headers()) for one in records} == {("kept", "replayed-from", "replay-count")}
    assert [(one["letters"], one["redriven"]) for one in counts] == [(COUNT, COUNT)]


def test_an_interrupted_redrive_loses_nothing(
    curfew: Curfew, kafka: Brokers, origin: str, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka goes away after two of four chunks: the next redrive sends the other two."""
    which = ("--app", "usage", "--reason", unique("reason"), "--yes")
    monkeypatch.setattr(letters, "CHUNK", 50)
    sent: list[int] = []
    send = redrive.send

    def interrupted(settings: Any, steps: Any) -> int:
        if len(sent) == 2:
            raise Transient("away")
        sent.append(len(steps))
        return send(settings, steps)

    with monkeypatch.context() as broken:
        broken.setattr(redrive, "send", interrupted)
        assert curfew("dead-letters", "redrive", *which).code == 1
    assert "100 of 100 sent back" in curfew("dead-letters", "redrive", *which).err

    assert sorted(one.key() for one in arrived(kafka, origin)) == sorted(f"{origin}-{n}".encode() for n in range(COUNT))


def test_show_masks_personal_data_and_a_reveal_is_audited(curfew: Curfew, kafka: Brokers, origin: str) -> None:
    """Neither value nor error message is there unless somebody asks for them by name."""
    [row] = json.loads(curfew("dead-letters", "list", "--key", f"{origin}-7", "-f", "json").out)
    masked = curfew("dead-letters", "show", row["place"])
    revealed = curfew("dead-letters", "show", row["place"], "--reveal", "--by", "maria")

    assert row["from"] == f"{origin}/0/7"
    assert (masked.code, "ana@" in masked.out) == (0, False)
    assert "no ana@example.com" in revealed.out
    audited = [
        one for one in arrived(kafka, "config.audit") if one.key() == f"dead-letter-reveal/{row['place']}".encode()
    ]
    assert len(audited) == 1


def test_what_is_no_dead_letter_is_wrong_usage(offline: Curfew) -> None:
    """And a redrive of everything has to be asked for by app, reason, time or key."""
    assert offline("dead-letters", "show", "queue.a/0/1").code == 2
    assert offline("dead-letters", "redrive", "dead-letters.events/0/x").code == 2
    assert offline("dead-letters", "redrive", "--yes").code == 2
    assert offline("dead-letters", "list", "--since", "17").code == 2
