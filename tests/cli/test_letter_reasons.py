"""Dead letters without a cluster: names that there are not, and why a letter is dead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import agents
import streams
from agents.cli.dead_letters import _whole
from agents.delivery.letter_reasons import REASONS, explained, incurable
from agents.delivery.letters import Letter
from agents.delivery.redrive import steps
from streams.codec import Codec, LocalSchemas
from streams.codec.golden import examples
from streams.codec.readable import MASKED
from streams.codec.registry import LocalIds
from streams.kafka.manifest import Manifest
from tests.cli.curfew import Curfew

SCHEMAS = LocalSchemas()
IDS = LocalIds(SCHEMAS)
CODEC = Codec(IDS, SCHEMAS)
ROOTS = [Path(str(package.__file__)).parent for package in (agents, streams)]


class Message:
    """As the client hands one out."""

    def __init__(self, value: bytes | None, headers: dict[str, str]) -> None:
        self._value, self._headers = value, [(name, text.encode()) for name, text in headers.items()]

    def value(self) -> bytes | None:
        return self._value

    def key(self) -> bytes:
        return b"acct-1"

    def headers(self) -> list[tuple[str, bytes]]:
        return self._headers

    def topic(self) -> str:
        return "dead-letters.events"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7


class Everywhere:
    """A cluster that has every topic."""

    def spans(self, topic: str) -> dict[int, object]:
        return {0: object()}


def _dead(reason: str, value: bytes | None) -> Message:
    return Message(
        value, {"__connect.errors.topic": "billing.account", "curfew-reason": reason,
                "__connect.errors.exception.message": f"{reason}: ana@example.com"}
    )  # fmt: skip


@pytest.mark.parametrize("command", ["list", "redrive"])
def test_an_app_that_there_is_not_is_wrong_usage(command: str, offline: Curfew) -> None:
    """Before Kafka is asked; an empty table would say that all is well."""
    finished = offline("dead-letters", command, "--app", "evnts")

    assert (finished.code, finished.out) == (2, "")
    assert "there is no app 'evnts' (did you mean 'events'" in " ".join(finished.err.split())


def test_every_reason_that_workers_give_has_an_explanation_and_a_remedy() -> None:
    """Found in the code, so that a new one is not forgotten."""
    given = {
        code
        for root in ROOTS
        for path in root.rglob("*.py")
        for code in re.findall(r'Poison\(\s*"(\w+)"', path.read_text(encoding="utf-8"))
    }

    assert len(given) > 15
    assert given - REASONS.keys() == set()
    assert explained("http_503")[0] == "the receiver answered with status 503"


def test_a_letter_says_why_it_is_dead_without_quoting_it() -> None:
    """An answer that there never was is not masked."""
    message = _dead("wrong_key", b"ana@example.com")
    headers = dict(message.headers())
    letter = Letter(place="dead-letters.events/0/7", app="events", at_ms=0, key=b"acct-1", headers=headers,
                    redriven=False, message=message)  # type: ignore[arg-type]  # fmt: skip

    shown = _whole(letter, CODEC, reveal=False)

    assert (shown["explanation"], shown["remedy"]) == REASONS["wrong_key"]
    assert shown["message"] == MASKED
    assert shown["response"] is None
    assert "ana@example.com" not in str(shown)


def _valid() -> bytes:
    [one, *_] = [one for one in examples(SCHEMAS) if one.schema.name.endswith("AccountChange")]
    return b"\x00" + IDS.id_for("any", one.schema.raw).to_bytes(4, "big") + one.avro.read_bytes()


@pytest.mark.parametrize(
    ("reason", "value", "doubt"),
    [
        ("invalid", _valid(), None),
        ("wrong_key", _valid(), "wrong_key"),
        ("no_value", None, "no_value"),
        ("not_avro", b"\xff", "not_avro"),
        ("undecodable", _valid()[:-1], "undecodable"),
        ("constraint_violated", _valid(), None),
    ],
)
def test_a_dry_run_tells_which_letters_would_come_back(reason: str, value: bytes | None, doubt: str | None) -> None:
    """The record itself is at fault; one that can be read by now may go."""
    [step] = steps([_dead(reason, value)], CODEC, Manifest.load(), Everywhere())  # type: ignore[list-item, arg-type]

    assert step.refused is None
    assert step.doubt_reason == doubt
    assert doubt is None or incurable(doubt)
