"""`curfew lag`: how far consumer groups are behind, for any group of the cluster."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but the stubs do not say so
    AdminClient,
    OffsetSpec,
)

from agents.cli import choices
from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show
from streams.core.errors import Transient
from streams.kafka.admin import admin_client, answering, partition_counts, quiet
from streams.settings import Settings

TIMEOUT_S = 15.0
#: Offsets of a topic that is gone by now, or that this user may not see: there is nothing to be behind of.
_NOT_THERE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED)

app = typer.Typer()


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLag:
    """``lag`` counts records from the committed offset, or the beginning where there is none, to the end offset."""

    topic: str
    partition: int
    committed: int | None
    end: int
    lag: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLag:
    """One group; ``state`` is Kafka's word (stable, empty, …), ``members`` those that are connected now."""

    group: str
    state: str
    members: int
    partitions: tuple[PartitionLag, ...]

    @property
    def lag(self) -> int:
        return sum(one.lag for one in self.partitions)


@app.command()
def lag(
    group: Annotated[list[str] | None, typer.Option(help="Only this group; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="Exit code 3 if a group is further behind.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Print again and again until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks with --watch.")] = 2.0,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Show committed offset, end offset and lag of every partition, and their sum per group.

    Exit code 2 if there is no such group: a misspelt one would never be behind.

    Example: curfew lag --group plan-changes --limit 1000
    """
    config = answering(Settings().kafka())
    admin = admin_client(config)
    if group:
        existing = group_names(admin)
        for name in group:
            if name not in existing:
                choices.refuse(choices.unknown("consumer group", name, existing))
    try:
        while True:
            found = group_lags(config, admin, group)
            _show(found, style)
            if not watch:
                break
            time.sleep(every)
    except KeyboardInterrupt:
        return
    behind = [one for one in found if limit is not None and one.lag > limit]
    for one in behind:
        note(f"{one.group} is {one.lag} records behind, over the limit of {limit}")
    if behind:
        raise typer.Exit(Exit.LIMIT)


def group_names(admin: AdminClient) -> list[str]:
    """All groups of the cluster; raises Transient when no broker answers."""
    listed = admin.list_consumer_groups(request_timeout=TIMEOUT_S).result()
    if listed.errors:  # no broker, or not all of them: an empty answer would look like "nothing is behind"
        raise _unreadable(listed.errors[0])
    return sorted(one.group_id for one in listed.valid)


def group_lags(config: dict[str, Any], admin: AdminClient, groups: list[str] | None = None) -> list[GroupLag]:
    """Every group (or those named) with its lag, by name; raises Transient when no broker answers."""
    try:
        if groups is None:
            groups = group_names(admin)
        if not groups:
            return []
        described = admin.describe_consumer_groups(groups, request_timeout=TIMEOUT_S)
        partitions = [(topic, number) for topic, count in partition_counts(admin).items() for number in range(count)]
        return [
            _group_lag(admin, name, described[name].result(), committed_offsets(config, name, partitions))
            for name in groups
        ]
    except KafkaException as error:
        raise _unreadable(error) from error


def _unreadable(error: KafkaException) -> Transient:
    why = error.args[0]
    return Transient(f"offsets cannot be read: {why.name()}: {why.str()}; is bootstrap_servers right?")


def committed_offsets(
    config: dict[str, Any], group: str, partitions: list[tuple[str, int]]
) -> dict[tuple[str, int], int]:
    """The offsets that the group has committed, wherever it has.

    Asked by a consumer that never joins: list_consumer_group_offsets of the admin client ends the process (SIGSEGV in
    librdkafka 2.16) when a group's coordinator is not ready, as it is not after a broker's start.
    """
    consumer = Consumer(quiet({**config, "group.id": group, "enable.auto.commit": False}))
    try:
        found = consumer.committed([TopicPartition(*one) for one in partitions], timeout=TIMEOUT_S)
    finally:
        consumer.close()
    for one in found:
        if one.error is not None and one.error.code() not in _NOT_THERE:
            raise KafkaException(one.error)
    return {(one.topic, one.partition): one.offset for one in found if one.error is None and one.offset >= 0}


def _group_lag(admin: AdminClient, group: str, description: Any, offsets: dict[tuple[str, int], int]) -> GroupLag:
    committed: dict[tuple[str, int], int | None] = dict(offsets)
    for member in description.members:
        # assigned, but nothing committed yet: without these a group that never got anything done would show no lag
        for one in member.assignment.topic_partitions:
            committed.setdefault((one.topic, one.partition), None)
    ends = _offsets(admin, list(committed), OffsetSpec.latest())  # type: ignore[no-untyped-call]
    fresh = [key for key, offset in committed.items() if offset is None]
    starts = _offsets(admin, fresh, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
    partitions = [
        PartitionLag(
            topic=key[0],
            partition=key[1],
            committed=offset,
            end=ends[key],
            # a topic that was deleted and made again can end before the committed offset
            lag=max(0, ends[key] - (offset if offset is not None else starts.get(key, 0))),
        )
        for key, offset in sorted(committed.items())
        if key in ends
    ]
    return GroupLag(
        group=group,
        state=description.state.name.lower(),
        members=len(description.members),
        partitions=tuple(partitions),
    )


def _offsets(admin: AdminClient, keys: list[tuple[str, int]], spec: OffsetSpec) -> dict[tuple[str, int], int]:
    if not keys:
        return {}
    futures = admin.list_offsets({TopicPartition(*key): spec for key in keys}, request_timeout=TIMEOUT_S)
    found = {}
    for one, future in futures.items():
        try:
            found[one.topic, one.partition] = int(future.result().offset)
        except KafkaException:
            continue  # the topic is gone, its committed offsets are not yet: there is nothing to be behind of
    return found


def _show(found: list[GroupLag], style: TableOrJson) -> None:
    if style is TableOrJson.JSON:
        rows = [
            {
                "group": one.group,
                "state": one.state,
                "members": one.members,
                "lag": one.lag,
                "partitions": [
                    {"topic": p.topic, "partition": p.partition, "committed": p.committed, "end": p.end, "lag": p.lag}
                    for p in one.partitions
                ],
            }
            for one in found
        ]
        show(rows, style, columns=())
        return
    rows = [
        {
            "group": one.group,
            "state": one.state,
            "topic": p.topic,
            "partition": p.partition,
            "committed": p.committed,
            "end": p.end,
            "lag": p.lag,
        }
        for one in found
        for p in one.partitions
    ]
    show(rows, style, columns=("group", "state", "topic", "partition", "committed", "end", "lag"))
    sums = [{"group": one.group, "state": one.state, "members": one.members, "lag": one.lag} for one in found]
    show(sums, style, columns=("group", "state", "members", "lag"))
