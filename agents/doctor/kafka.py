"""What `curfew doctor` asks Kafka: the broker, topics against the manifest, where keys lie, who works."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from confluent_kafka import KafkaException

from agents.doctor.checks import Finding, Status
from streams.core.errors import Transient
from streams.kafka import admin as kafka_admin
from streams.kafka.lag.survey import survey
from streams.kafka.manifest import Manifest, Topic
from streams.kafka.partitioner import PARTITIONER, partition_of
from streams.kafka.scan import Scanner, Span
from streams.settings import Settings

#: The newest records of each partition whose keys are looked at: enough to meet every producer that is at work.
SAMPLE: Final = 50
#: Names in one line; more would hide the remedy.
SHOWN: Final = 5


def broker(settings: Settings) -> Iterator[Finding]:
    """Does one answer, and how many are there."""
    admin = kafka_admin.admin_client(kafka_admin.answering(settings.kafka()))
    try:
        metadata = admin.list_topics(timeout=kafka_admin.REQUEST_TIMEOUT_S)
    except KafkaException as error:
        raise Transient(
            f"{settings.bootstrap_servers} is open, but no Kafka answers there: {error.args[0].str()}. Is it a broker, "
            "and are the security settings right?"
        ) from error
    brokers = ", ".join(f"{one.host}:{one.port}" for one in metadata.brokers.values())
    yield Finding(check="kafka", status=Status.OK, finding=f"cluster {metadata.cluster_id}: {brokers}")


def topics(settings: Settings) -> Iterator[Finding]:
    """Everything in which they differ from the manifest."""
    manifest = Manifest.load()
    found = kafka_admin.diff(manifest, kafka_admin.admin_client(kafka_admin.answering(settings.kafka())))
    if absent := [one.topic for one in found if isinstance(one, kafka_admin.Missing)]:
        yield _fault(
            "topics", f"{len(absent)} of {len(manifest.topics)} are missing: {_some(absent)}", "curfew topics apply"
        )
    for one in found:
        if isinstance(one, kafka_admin.WrongPartitions):
            yield _fault(
                "topics",
                f"{one.topic} has {one.found} partitions, should have {one.wanted}: keys do not meet their rows",
                "stop the workers, make the topic anew with the right number and copy its records "
                "(curfew consume -f json | curfew produce); or correct schemas/topics.toml",
            )
        elif isinstance(one, kafka_admin.WrongConfig):
            yield _fault("topics", f"{one.topic}: {one}{_harm(one)}", "curfew topics apply")
    if not found:
        yield Finding(check="topics", status=Status.OK, finding=f"{len(manifest.topics)} as in the manifest")


def _harm(difference: kafka_admin.WrongConfig) -> str:
    if difference.setting != "cleanup.policy":
        return ""
    if difference.wanted == "compact":
        return " (compaction is off: the newest value of a key is deleted with its age)"
    return " (compaction is on: of several records with one key only the last stays)"


def partitioner(settings: Settings) -> Iterator[Finding]:
    """Do the newest records of topics that others write lie where their keys belong."""
    manifest = Manifest.load()
    looked, well = 0, True
    with Scanner(kafka_admin.answering(settings.kafka())) as scanner:
        existing = set(scanner.topics(""))
        for topic in manifest.topics.values():
            if not _by_key_of_others(topic) or topic.name not in existing:
                continue
            count, wrong, without = _misplaced(scanner, topic)
            looked += count
            if wrong or without:
                well = False
            if wrong:
                yield _fault(
                    "partitioner",
                    f"{topic.name}: {wrong} of the newest {count} records are not in their key's partition, so their "
                    "accounts are looked up where they are not",
                    f"its producer needs murmur2 (librdkafka: partitioner={PARTITIONER}); then send them again",
                )
            if without:
                yield _fault(
                    "partitioner",
                    f"{topic.name}: {without} of the newest {count} records have no key",
                    f"its producer has to set the key: {topic.key}",
                )
    if well:
        yield Finding(check="partitioner", status=Status.OK, finding=f"{looked} records are where their keys belong")


def _by_key_of_others(topic: Topic) -> bool:
    """Our own workers choose right, and some of them choose a partition on purpose."""
    return bool(topic.key and topic.readers) and topic.partitions > 1 and topic.writer in ("billing", "crm")


def _misplaced(scanner: Scanner, topic: Topic) -> tuple[int, int, int]:
    """(records looked at, of these in another partition than their key's, of these without a key)."""
    spans = scanner.spans(topic.name)
    sample = {number: Span(max(span.start, span.end - SAMPLE), span.end) for number, span in spans.items()}
    count = wrong = without = 0
    for message in scanner.read(topic.name, sample):
        count += 1
        key = message.key()
        if not key:
            without += 1
        elif partition_of(key, len(spans)) != message.partition():
            wrong += 1
    return count, wrong, without


def groups(settings: Settings) -> Iterator[Finding]:
    """Who of the workers is at work."""
    manifest = Manifest.load()
    found = survey(kafka_admin.admin_client(kafka_admin.answering(settings.kafka()))).groups
    ours = [name for name in manifest.groups if manifest.read_by(name)]
    never = [name for name in ours if name not in found]
    if len(never) == len(ours):
        yield Finding(
            check="workers", status=Status.NOTE, finding="no worker has run here yet", remedy="curfew up"
        )  # fmt: skip
        return
    if never:
        yield Finding(
            check="workers", status=Status.NOTE, finding=f"never run here: {_some(never)}",
            remedy="curfew up, or curfew worker NAME",
        )  # fmt: skip
    if stopped := [name for name in ours if name in found and not found[name].may_have_members]:
        yield _fault("workers", f"nobody works in {_some(stopped)}", "curfew up, or curfew worker NAME; see their logs")
    if working := [name for name in ours if name in found and found[name].may_have_members]:
        states = ", ".join(f"{name} ({found[name].state.replace('_', ' ')})" for name in working)
        yield Finding(check="workers", status=Status.OK, finding=states)


def _fault(check: str, finding: str, remedy: str) -> Finding:
    return Finding(check=check, status=Status.FAULT, finding=finding, remedy=remedy)


def _some(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)[:SHOWN]) + (", …" if len(names) > SHOWN else "")
