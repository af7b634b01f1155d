"""Changes of the configuration, each with an entry in the audit trail, and what commands need to know of it."""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec
import typer
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from agents.configuration.records import TIMEOUT_S, read_records, write_records
from streams.codec import Codec
from streams.core.audit import AuditEntry
from streams.core.errors import Misconfigured, Transient
from streams.core.graph import GRAPH, Graph
from streams.core.ids import instant_text
from streams.core.sources import DataSource, extended
from streams.kafka.admin import answering
from streams.settings import Settings
from streams.topics import SOURCES

AUDIT = "config.audit"
#: Who changed it, where neither --by nor CURFEW_BY says so.
BY_VARIABLE = "CURFEW_BY"
#: A broker that is there takes a connection at once; a person without one should not wait for Kafka's own timeouts.
PROBE_S = 0.5

ByOption = Annotated[
    str | None, typer.Option("--by", help=f"Who changes it; default {BY_VARIABLE}, else user@host.", show_default=False)
]
T = TypeVar("T")


def author(by: str | None) -> str:
    """Who is recorded as the one who made a change."""
    if found := by or os.environ.get(BY_VARIABLE):
        return found
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container that runs as a user without a name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def save(
    settings: Settings,
    codec: Codec,
    topic: str,
    what: str,
    before: Mapping[str, object],
    changes: Mapping[str, object | None],
    by: str | None,
) -> None:
    """Write ``changes`` (None deletes) to ``topic``, after their entries in the audit trail.

    The entries are durable first: nothing changes without one. Where Kafka fails in between, the command says so, and
    the trail shows a change that was attempted. Raises Transient.
    """
    if not changes:
        return
    now = datetime.now(UTC)
    now = now.replace(microsecond=now.microsecond // 1000 * 1000)
    who = author(by)
    entries = {
        f"{what}/{name}": AuditEntry(
            at=now, by=who, what=what, name=name, before=_json(before.get(name)), after=_json(after)
        )
        for name, after in changes.items()
    }
    write_records(settings, codec, AUDIT, entries)
    write_records(settings, codec, topic, changes)


def _json(value: object | None) -> str | None:
    return None if value is None else json.dumps(msgspec.to_builtins(value), ensure_ascii=False)


def history(settings: Settings, codec: Codec, what: str, name: str | None) -> list[AuditEntry]:
    """The entries of ``what``, of all or of one ``name``, oldest first; raises Misconfigured or Transient."""
    decode = codec.decoder(AuditEntry)
    config = settings.kafka(**{"group.id": "curfew-audit", "enable.auto.commit": False, "enable.partition.eof": True})
    consumer = Consumer(answering(config))
    found: list[AuditEntry] = []
    try:
        topic = consumer.list_topics(AUDIT, timeout=TIMEOUT_S).topics[AUDIT]
        if topic.error is not None:
            raise Misconfigured(f"there is no topic {AUDIT}: create it with `curfew topics apply`")
        for partition in topic.partitions:
            consumer.assign([TopicPartition(AUDIT, partition, OFFSET_BEGINNING)])
            while (message := consumer.poll(TIMEOUT_S)) is not None:
                error = message.error()
                if error is not None and error.code() == KafkaError._PARTITION_EOF:
                    break
                if error is not None:
                    raise Transient(f"{AUDIT} cannot be read: {error.str()}")
                entry = decode(message.value())
                if entry.what == what and name in (None, entry.name):
                    found.append(entry)
            else:
                raise Transient(f"{AUDIT} cannot be read to its end within {TIMEOUT_S:.0f} s; try again")
    finally:
        consumer.close()
    return sorted(found, key=lambda entry: entry.at)


def as_row(entry: AuditEntry) -> dict[str, Any]:
    """An entry for people and programs: ``changes`` are the fields that differ."""
    before, after = json.loads(entry.before or "{}"), json.loads(entry.after or "{}")
    return {
        "at": instant_text(entry.at),
        "by": entry.by,
        "name": entry.name,
        "action": entry.action,
        "changes": list(_differing(before, after)) if entry.action == "changed" else [],
        "before": json.loads(entry.before) if entry.before is not None else None,
        "after": json.loads(entry.after) if entry.after is not None else None,
    }


def _differing(before: Mapping[str, Any], after: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """The fields that differ, ``webhook.url: … → …`` where both are tables with others beside it."""
    for field in {**before, **after}:
        old, new = before.get(field), after.get(field)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differing(old, new, f"{path}{field}.")
        else:
            yield f"{path}{field}: {_short(old)} → {_short(new)}"


def _short(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


# -- what is in force ------------------------------------------------------------------------------------------------


def reachable(settings: Settings) -> bool:
    """Whether one of the brokers takes connections."""
    for server in settings.bootstrap_servers.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_S).close()
        except (OSError, ValueError):
            continue
        return True
    return False


def live_sources(settings: Settings, codec: Codec) -> dict[str, DataSource]:
    """The data sources that are in force."""
    return read_records(settings, codec, SOURCES, DataSource)


def live_graph(settings: Settings, codec: Codec) -> Graph:
    """The object graph with the data sources that are in force; without any where no broker answers, and then it says
    so: a refusal that follows may be of a parameter that only a data source has."""
    if not reachable(settings):
        typer.echo(
            f"warning: no broker answers at {settings.bootstrap_servers}: data sources are not known, and their "
            "parameters count as unknown; check bootstrap_servers or start Kafka",
            err=True,
        )
        return GRAPH
    try:
        return extended(live_sources(settings, codec).values())
    except Misconfigured:  # the topic is not there yet
        return GRAPH
