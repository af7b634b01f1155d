"""Panel 6: canary, clock, broker, registry, database, ledger, versions."""

from __future__ import annotations

import platform
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

import confluent_kafka
from sqlalchemy.exc import SQLAlchemyError

from agents.board import words
from agents.board.memory import Memory
from agents.canary import probes
from agents.preflight import revision
from streams.codec import Codec, Registry
from streams.core.errors import CurfewError
from streams.core.watch_rules import DEFAULT_LIMITS
from streams.kafka import ledger
from streams.settings import Settings

NAME: Final = "system"
TITLE: Final = "System"
LEDGER: Final = "ledger"
EVERY_S: Final = 10.0
#: The ledger reads all queues, results and dead letters from their beginning.
LEDGER_EVERY_S: Final = 600.0
TIMEOUT_S: Final = 5.0
_PACKAGES: Final = ("curfew-streams", "faust-streaming", "confluent-kafka", "fastavro", "sqlalchemy", "starlette")


class SystemSource:
    """Asks each part; one that does not answer is a row of the panel and no failure of it."""

    panels: Sequence[str] = (NAME,)

    def __init__(self, settings: Settings, memory: Memory, *, every_s: float = EVERY_S) -> None:
        self.every_s = every_s
        self._settings = settings
        self._memory = memory
        self._registry = Registry(settings.schema_registry_url)

    def read(self) -> Mapping[str, Mapping[str, Any]]:
        parts = [
            _part("canary", self._canary),
            _part("watchdog", self._watchdog),
            _part("clock", self._clock),
            _part("broker", self._broker),
            _part("registry", self._schema_registry),
            _part("database", self._database),
            _part("ledger", self._ledger),
        ]
        # Canary and watchdog are best on machines of their own: not to know them here is no state of the system.
        known = [part["word"] for part in parts if part["word"] != words.UNKNOWN]
        return {NAME: {"word": words.worst(*known), "parts": parts, "versions": versions()}}

    def close(self) -> None:
        """Nothing is held between two readings."""

    def _canary(self) -> tuple[str, str]:
        facts = self._book("canary")
        if facts is None:
            return words.UNKNOWN, "no canary has run with this data directory: `curfew canary run`"
        found = probes.load(facts.get("probes"))
        now = self._business_time() or datetime.now(UTC)
        verdict, probe = probes.overall(found, now)
        if probe is None:
            return words.UNKNOWN, "no canary has been ordered yet"
        took = probe.seconds()["persisted_s"]
        told = verdict.detail or f"{probe.service_id}, midnight {words.instant(words.utc(probe.midnight))}"
        return (
            (words.OK, words.AT_RISK, words.LATE)[verdict.level],
            told + ("" if took is None else f", persisted {words.duration(took)} after its release"),
        )

    def _watchdog(self) -> tuple[str, str]:
        facts = self._book("watchdog")
        if facts is None:
            return words.UNKNOWN, "no watchdog has run with this data directory: `curfew watchdog`"
        if "read_at" not in facts:
            return words.AT_RISK, "it has not read anything yet"
        age_s = (datetime.now(UTC) - datetime.fromisoformat(facts["read_at"])).total_seconds()
        told = f"has read everything {words.duration(age_s)} ago"
        return (words.AT_RISK if age_s > DEFAULT_LIMITS.silent_after_s else words.OK), told

    def _book(self, name: str) -> dict[str, str] | None:
        """The facts in the book of a watchdog or canary that has run here; they are only read."""
        path = self._settings.data_dir / name / "watchdog.sqlite"
        if not path.exists():
            return None
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=TIMEOUT_S)) as book:
            return dict(book.execute("SELECT name, value FROM fact"))

    def _clock(self) -> tuple[str, str]:
        data = self._memory.look("countdown").data
        if data is None:
            return words.UNKNOWN, "the ticks have not been read yet"
        if not data["clock_has_ticked"]:
            return words.AT_RISK, "no clock has ticked: `curfew clock`, or `curfew up`"
        silent = data["clock_silent_seconds"]
        word = words.AT_RISK if data["clock_is_silent"] else words.OK
        return word, f"business time {words.seconds_of(data['now'])}, last tick {words.duration(silent)} ago"

    def _business_time(self) -> datetime | None:
        data = self._memory.look("countdown").data
        return None if data is None else datetime.fromisoformat(data["now"])

    def _broker(self) -> tuple[str, str]:
        look = self._memory.look("cluster")
        if look.data is None or look.problem is not None:
            return (words.UNKNOWN, "not read yet") if look.problem is None else (words.AT_RISK, look.problem)
        data = look.data
        bad = [
            f"{data[name]} partitions {name.replace('_', ' ')}"
            for name in ("without_leader", "under_replicated")
            if data[name]
        ]
        brokers = ", ".join(data["brokers"].values())
        told = f"{brokers}; {data['topics']} topics, {data['partitions']} partitions"
        return (words.AT_RISK, f"{told}; {', '.join(bad)}") if bad else (words.OK, told)

    def _schema_registry(self) -> tuple[str, str]:
        began = time.monotonic()
        found = len(self._registry.subjects())
        return words.OK, f"{found} subjects, answered in {(time.monotonic() - began) * 1000:.0f} ms"

    def _database(self) -> tuple[str, str]:
        began = time.monotonic()
        found = revision(self._settings)
        if found is None:
            return words.UNKNOWN, "there is no billing store yet: `curfew billing migrate`"
        return words.OK, f"tables of revision {found}, answered in {(time.monotonic() - began) * 1000:.0f} ms"

    def _ledger(self) -> tuple[str, str]:
        look = self._memory.look(LEDGER)
        if look.data is None:
            return words.UNKNOWN, look.problem or "being computed from the topics"
        at = words.instant(words.utc(look.read_at))
        bad = {row["subscription"]: row["difference"] for row in look.data["lines"] if row["difference"]}
        if bad:
            named = ", ".join(f"{name}: {difference:,}" for name, difference in bad.items())
            return words.LATE, f"events unaccounted for ({named}) at {at}: `curfew ledger`"
        return words.OK, f"every event of {len(look.data['lines'])} subscriptions accounted for at {at}"


class LedgerSource:
    """The account of completeness; slow, so in a thread of its own."""

    panels: Sequence[str] = (LEDGER,)

    def __init__(self, settings: Settings, *, every_s: float = LEDGER_EVERY_S) -> None:
        self.every_s = every_s
        self._kafka = settings.kafka(log_level=0, error_cb=lambda error: None)
        self._codec = Codec(Registry(settings.schema_registry_url))

    def read(self) -> Mapping[str, Mapping[str, Any]]:
        found = ledger.check(self._kafka, self._codec)
        rows = [
            {
                "subscription": line.subscription,
                "difference": line.difference,
                "accepted": line.balance.accepted,
            }
            for line in found
        ]
        return {LEDGER: {"lines": rows}}

    def close(self) -> None:
        """Nothing is held between two readings."""


def versions() -> dict[str, str]:
    """Of this process."""
    return {name: version(name) for name in _PACKAGES} | {
        "python": platform.python_version(), "librdkafka": confluent_kafka.libversion()[0]
    }  # fmt: skip


def _part(name: str, ask: Callable[[], tuple[str, str]]) -> dict[str, str]:
    try:
        word, told = ask()
    except (CurfewError, OSError, SQLAlchemyError, sqlite3.Error) as error:
        word, told = words.AT_RISK, str(error).splitlines()[0]
    return {"name": name, "word": word, "detail": told}
