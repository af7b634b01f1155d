"""The topic manifest ``schemas/topics.toml``, read and checked: which topics exist, who writes them, who reads them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from streams.codec.schemas import SCHEMA_ROOT, LocalSchemas
from streams.codec.subjects import subject_of
from streams.core.errors import Misconfigured

MANIFEST = SCHEMA_ROOT / "topics.toml"
QUEUE_PREFIX = "queue."
_HOUR_MS = 3_600_000
# Kafka allows 249 characters and treats "." and "_" as equal in metric names; a queue's name is kept to what reads well
_QUEUE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,98}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic. ``value`` is an Avro full name or None for raw bytes; ``retention_hours`` counts only for delete;
    ``timer``: its one reader writes it to itself by the machine's clock, so the virtual clock does not wait for it."""

    name: str
    about: str
    key: str
    value: str | None
    partitions: int
    replication: int
    cleanup: Literal["delete", "compact"]
    retention_hours: int
    writer: str
    readers: tuple[str, ...]
    read_whole: bool
    timer: bool
    config: dict[str, str]

    @property
    def kafka_config(self) -> dict[str, str]:
        """The topic's settings as Kafka calls them, all values as text."""
        retention = {"retention.ms": str(self.retention_hours * _HOUR_MS)} if self.cleanup == "delete" else {}
        return {"cleanup.policy": self.cleanup, **retention, **self.config}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A consumer group = a worker's name. ``barrier``: the virtual clock waits for it; ``store``: it keeps rows."""

    name: str
    about: str
    barrier: bool
    store: bool


class _TopicEntry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    about: str
    key: str
    value: str | None = None
    partitions: int | None = None
    cleanup: Literal["delete", "compact"]
    retention_hours: int | None = None
    writer: str
    readers: list[str]
    read_whole: bool = False
    timer: bool = False
    config: dict[str, str] = {}
    for_each: Literal["queue", "group", "store"] | None = None


class _GroupEntry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    about: str
    barrier: bool
    store: bool = False


class _Defaults(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    partitions: int
    replication: int
    retention_hours: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All topics with the default queues and the topics of every group; ``queue.*`` itself stays a template."""

    path: Path
    topics: dict[str, Topic]
    groups: dict[str, Group]
    queue_template: Topic
    queues: tuple[str, ...] = field(default=())

    @staticmethod
    def load(path: Path = MANIFEST, schemas: LocalSchemas | None = None) -> Manifest:
        """Read and check; raises Misconfigured naming file, entry and remedy."""
        manifest = _read(path)
        _check(manifest, schemas or LocalSchemas())
        return manifest

    def with_queues(self, *names: str) -> Manifest:
        """The same with more queues (names without the prefix); raises Misconfigured for a name that cannot be one."""
        made = {}
        for name in names:
            if not is_queue_name(name):
                raise Misconfigured(
                    f"{name!r} cannot be a queue's name: use up to 100 small letters, digits and hyphens, "
                    "not at the ends ('customer-events')"
                )
            made[QUEUE_PREFIX + name] = _instance(self.queue_template, name)
        return replace(self, topics=self.topics | made, queues=tuple(dict.fromkeys((*self.queues, *names))))

    def topic(self, name: str) -> Topic:
        """The topic called ``name``, any queue included; raises Misconfigured when the manifest has no such topic."""
        found = self.topics.get(name)
        if found is not None:
            return found
        if name.startswith(QUEUE_PREFIX):
            return self.with_queues(name.removeprefix(QUEUE_PREFIX)).topics[name]
        raise Misconfigured(f"{self.path} has no topic {name!r}; `curfew topics list` shows what there is")

    def subjects(self) -> dict[str, str]:
        """Subject in the registry → full name of its schema, for every topic with Avro values."""
        return {subject_of(topic.name): topic.value for topic in self.topics.values() if topic.value is not None}

    def read_by(self, group: str) -> tuple[Topic, ...]:
        """The topics whose partitions are divided among the members of ``group``."""
        return tuple(topic for topic in self.topics.values() if group in topic.readers)


def managed(manifest: Manifest, existing: Iterable[str]) -> Manifest:
    """The manifest with the queues that people have made since; ``existing`` are the cluster's topics."""
    queues = [name.removeprefix(QUEUE_PREFIX) for name in existing if name.startswith(QUEUE_PREFIX)]
    return manifest.with_queues(*(name for name in queues if is_queue_name(name)))


def is_queue_name(name: str) -> bool:
    return _QUEUE_NAME.fullmatch(name) is not None


def _read(path: Path) -> Manifest:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured(f"{path} is not TOML: {error}") from error
    if unknown := raw.keys() - {"defaults", "groups", "queues", "templates", "topics"}:
        raise Misconfigured(f'{path}: there is no section [{min(unknown)}]: topics are written [topics."name"]')
    defaults = _entry(path, "defaults", raw.get("defaults"), _Defaults)
    groups = {
        name: Group(name=name, about=entry.about, barrier=entry.barrier, store=entry.store)
        for name, entry in _entries(path, raw, "groups", _GroupEntry)
    }
    topics = {name: _topic(name, entry, defaults) for name, entry in _entries(path, raw, "topics", _TopicEntry)}
    templates = list(_entries(path, raw, "templates", _TopicEntry))
    for pattern, entry in templates:
        if pattern.count("*") != 1 or entry.for_each is None:
            raise Misconfigured(f'{path}: [templates."{pattern}"] needs one * in its name, and for_each')
        for group in groups.values():
            if entry.for_each == "group" or (entry.for_each == "store" and group.store):
                topic = _instance(_topic(pattern, entry, defaults), group.name)
                topics[topic.name] = topic
    queue = next((_topic(name, entry, defaults) for name, entry in templates if name == f"{QUEUE_PREFIX}*"), None)
    if queue is None:
        raise Misconfigured(f'{path}: the section [templates."{QUEUE_PREFIX}*"] is missing')
    names = msgspec.convert(raw.get("queues", {}).get("names", []), list[str])
    return Manifest(path=path, topics=topics, groups=groups, queue_template=queue).with_queues(*names)


def _entries(path: Path, raw: Mapping[str, Any], section: str, kind: type[Any]) -> Iterator[tuple[str, Any]]:
    for name, entry in raw.get(section, {}).items():
        yield name, _entry(path, f'{section}."{name}"', entry, kind)


def _entry(path: Path, where: str, entry: Any, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(entry, kind)
    except msgspec.ValidationError as error:
        raise Misconfigured(f"{path}: [{where}]: {error}; compare it with the entries beside it") from error


def _topic(name: str, entry: _TopicEntry, defaults: _Defaults) -> Topic:
    return Topic(
        name=name,
        about=entry.about,
        key=entry.key,
        value=entry.value,
        partitions=entry.partitions if entry.partitions is not None else defaults.partitions,
        replication=defaults.replication,
        cleanup=entry.cleanup,
        retention_hours=entry.retention_hours if entry.retention_hours is not None else defaults.retention_hours,
        writer=entry.writer,
        readers=tuple(entry.readers),
        read_whole=entry.read_whole,
        timer=entry.timer,
        config=entry.config,
    )


def _instance(template: Topic, name: str) -> Topic:
    return replace(
        template,
        name=template.name.replace("*", name),
        writer=template.writer.replace("*", name),
    )


def _check(manifest: Manifest, schemas: LocalSchemas) -> None:
    for topic in manifest.topics.values():
        where = f'{manifest.path}: [topics."{topic.name}"]'
        if topic.partitions < 1:
            raise Misconfigured(f"{where}: partitions is {topic.partitions}, but a topic has at least one")
        if topic.value is not None and topic.value not in schemas.names():
            raise Misconfigured(f"{where}: there is no schema {topic.value}: add schemas/avro/{topic.value}/v1.avsc")
        for reader in topic.readers:
            if reader not in manifest.groups:
                raise Misconfigured(f"{where}: the reader {reader!r} is no group: add [groups.{reader}] or correct it")
    for group in manifest.groups:
        counts = {topic.name: topic.partitions for topic in manifest.read_by(group)}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
            raise Misconfigured(
                f"{manifest.path}: the group {group} reads topics with different numbers of partitions, so one key "
                f"would be in different places: give them the same number ({listed})"
            )
