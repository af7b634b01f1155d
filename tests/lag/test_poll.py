"""One look at a real cluster: commits with their times, ends, members, first unread records; also without rights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but the stubs do not say so
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from streams.core.lag.report import ClusterLag, GroupLag
from streams.core.lag.rules import Limits, Status
from streams.kafka.lag.commits import TOPIC_S
from streams.kafka.lag.poll import LagPoller, by_name
from tests.support.kafka_io import create_topic, wait_until

pytestmark = pytest.mark.kafka

Unique = Callable[[str], str]
OLD_MS = 600_000


def write(servers: str, topic: str, count: int, *, age_ms: int = 0, partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": servers})
    at_ms = int(time.time() * 1000) - age_ms
    for number in range(count):
        producer.produce(topic, str(number).encode(), partition=partition, timestamp=at_ms)
    assert producer.flush(30) == 0


def commit(servers: str, group: str, topic: str, offset: int, partition: int = 0) -> None:
    """As a consumer commits that was assigned by hand: the group has no members."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": group})

    def done() -> bool:
        try:
            answer = consumer.commit(offsets=[TopicPartition(topic, partition, offset)], asynchronous=False)
        except KafkaException:  # a broker that has just started has no coordinator yet
            return False
        return answer is not None and all(one.error is None for one in answer)

    wait_until(done, f"{group} has committed")
    consumer.close()


@contextmanager
def poller(servers: str, *patterns: str, **how: Any) -> Iterator[LagPoller]:
    made = LagPoller({"bootstrap.servers": servers}, wanted=by_name(patterns), **how)
    try:
        yield made
    finally:
        made.close()


def one(found: ClusterLag, group: str) -> GroupLag:
    return next(row for row in found.groups if row.group == group)


def test_commits_are_seen_with_their_times_and_without_joining(servers: str, unique: Unique) -> None:
    """Two partitions, one read to its end; the look leaves no group behind."""
    topic, group = unique("t"), unique("g")
    create_topic(servers, topic, partitions=3)
    write(servers, topic, 10, partition=0, age_ms=OLD_MS)
    write(servers, topic, 5, partition=1)
    before_ms = int(time.time() * 1000)
    commit(servers, group, topic, 4, partition=0)
    commit(servers, group, topic, 5, partition=1)

    with poller(servers, group) as looking:
        found = looking.look()

    row = one(found, group)
    first, second = row.partitions
    assert (found.source, found.complete, row.state, row.members) == ("offsets_topic", True, "empty", ())
    assert [(p.partition, p.committed, p.end, p.lag) for p in row.partitions] == [(0, 4, 10, 6), (1, 5, 5, 0)]
    assert first.committed_at_ms is not None
    assert before_ms - 2_000 <= first.committed_at_ms <= found.at_ms
    assert (first.exact, second.time_lag_s) == (True, 0.0)
    assert first.time_lag_s is not None
    assert OLD_MS / 1000 <= first.time_lag_s < OLD_MS / 1000 + 120
    listed = AdminClient({"bootstrap.servers": servers}).list_consumer_groups().result().valid
    assert not {name.group_id for name in listed} & {"curfew-monitor", "curfew-scan"}


def test_a_second_look_sees_what_came_meanwhile_and_knows_the_lag_at_each_commit(servers: str, unique: Unique) -> None:
    """And what was asked for once is not read a second time."""
    topic, group = unique("t"), unique("g")
    create_topic(servers, topic)
    write(servers, topic, 10, age_ms=OLD_MS)
    commit(servers, group, topic, 1)
    with poller(servers, group) as looking:
        first = one(looking.look(), group)
        again = one(looking.look(), group)
        reads = looking._first.reads
        write(servers, topic, 5)
        commit(servers, group, topic, 3)
        last = one(looking.look(), group)

    assert (first.lag, again.lag, last.lag, reads) == (9, 9, 12, 1)
    assert last.lags == (9, 9, 12)
    assert last.partitions[0].window[-1].offset == 3


def test_a_deleted_group_is_gone(servers: str, unique: Unique) -> None:
    """Its offsets are deleted by records without value."""
    topic, group = unique("t"), unique("g")
    create_topic(servers, topic)
    commit(servers, group, topic, 0)
    with poller(servers, group) as looking:
        assert [row.group for row in looking.look().groups] == [group]
        admin = AdminClient({"bootstrap.servers": servers})
        for future in admin.delete_consumer_groups([group]).values():
            future.result(30)

        after = looking.look()

        assert after.groups == ()
        assert looking._tracks == {}


def test_the_mark_of_a_transaction_is_no_lag_and_a_real_record_is(servers: str, unique: Unique) -> None:
    """Also offsets that were committed in a transaction are seen, those of an aborted one are not, and the marks at the
    topic's end hold up nobody."""
    topic, group = unique("t"), unique("g")
    create_topic(servers, topic)
    producer = Producer({"bootstrap.servers": servers, "transactional.id": unique("tx")})
    producer.init_transactions(30)
    consumer = Consumer({"bootstrap.servers": servers, "group.id": group, "enable.auto.commit": False})
    consumer.subscribe([topic])
    wait_until(lambda: consumer.poll(0.1) is None and consumer.assignment(), "the group has its partition")

    def transaction(records: int, offset: int, *, commit: bool) -> None:
        producer.begin_transaction()
        for _ in range(records):
            producer.produce(topic, b"x", timestamp=int(time.time() * 1000) - OLD_MS)
        assert producer.flush(30) == 0  # abort_transaction throws away what has not been sent yet
        offsets = [TopicPartition(topic, 0, offset)]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 30)
        (producer.commit_transaction if commit else producer.abort_transaction)(30)

    with poller(servers, group) as looking:

        def looked(readable: int) -> GroupLag:
            """After the marks have been written, which the producer does not wait for, and were read."""
            rows: list[GroupLag] = []

            def so_far() -> bool:
                rows[:] = [one(looking.look(), group)]
                return looking._ends[topic, 0].readable == readable and rows[0].partitions[0].exact

            wait_until(so_far, "it can be read to the mark, and was")
            return rows[0]

        transaction(3, 3, commit=True)
        at_the_mark = looked(4)
        began = time.monotonic()
        looking.look()
        took_s = time.monotonic() - began
        transaction(2, 1, commit=False)
        after_abort = looked(7)
        transaction(2, 3, commit=True)
        behind = looked(10)
    consumer.close()

    assert (at_the_mark.lag, at_the_mark.time_lag_s) == (1, 0.0)
    assert took_s < TOPIC_S, "the mark at the end of __consumer_offsets was not waited for"
    assert (after_abort.partitions[0].committed, after_abort.lag, after_abort.time_lag_s) == (3, 4, 0.0)
    assert behind.lag == 7
    assert behind.time_lag_s is not None
    assert behind.time_lag_s >= OLD_MS / 1000


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_members_and_what_they_have_are_seen(servers: str, unique: Unique, protocol: str) -> None:
    """Both kinds of groups; a partition without a commit counts from its start."""
    topic, group = unique("t"), unique("g")
    create_topic(servers, topic, partitions=2)
    write(servers, topic, 7, partition=1)
    config: dict[str, Any] = {"bootstrap.servers": servers, "group.id": group, "client.id": "reader"}
    config |= {"group.protocol": protocol, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    consumer = Consumer(config)
    consumer.subscribe([topic])
    wait_until(lambda: (consumer.poll(0.1), len(consumer.assignment()) == 2)[1], "the group has its partitions")

    rows: list[GroupLag] = []

    def stable() -> bool:
        """The coordinator of the newer protocol learns by the next heartbeat that the member has its partitions."""
        consumer.poll(0)
        rows[:] = [one(looking.look(), group)]
        return rows[0].state == "stable"

    with poller(servers, group) as looking:
        wait_until(stable, "the group is stable")
    consumer.close()

    [row] = rows
    assert row.kind == protocol
    assert row.members is not None
    [member] = row.members
    assert member.client_id == "reader"
    assert ip_address(member.host).is_private, "as the broker sees it: loopback, or the gateway of its container"
    assert member.places == {(topic, 0), (topic, 1)}
    assert [(p.partition, p.committed, p.lag) for p in row.partitions] == [(0, None, 0), (1, None, 7)]


def test_a_stopped_group_is_seen_at_the_first_look_if_its_commits_were_a_rhythm(servers: str, unique: Unique) -> None:
    """``curfew lag`` looks once: the times of commits and the age of a record are all that it has."""
    topic, group = unique("t"), unique("g")
    create_topic(servers, topic)
    write(servers, topic, 10, age_ms=OLD_MS)
    for offset in (1, 2, 3, 4):
        commit(servers, group, topic, offset)
    patient, strict = Limits(), Limits(young_ms=0)

    with poller(servers, group, limits=patient) as looking:
        early = one(looking.look(), group)
    with poller(servers, group, limits=strict) as looking:
        wait_until(lambda: one(looking.look(), group).verdict.worst is Status.STOP, "the group is STOP")

    assert early.verdict.worst is Status.OK, "within ten seconds all its commits are one entry of the window"


def test_a_filter_is_a_regex_over_the_whole_name(servers: str, unique: Unique) -> None:
    """Those that do not match are neither looked at nor remembered."""
    topic, mine, other = unique("t"), unique("mine"), unique("mine-not")
    create_topic(servers, topic)
    for group in (mine, other):
        commit(servers, group, topic, 0)

    with poller(servers, mine) as looking:
        found = looking.look()

        assert [row.group for row in found.groups] == [mine]
        assert set(looking._tracks) == {mine}


@contextmanager
def denied(servers: str, *, shown: bool) -> Iterator[None]:
    """Nobody may read __consumer_offsets; ``shown``: but everybody may see that it is there."""
    admin = AdminClient({"bootstrap.servers": servers})
    rule = ResourceType.TOPIC, "__consumer_offsets", ResourcePatternType.LITERAL, "User:*", "*"
    rules = [(AclOperation.READ, AclPermissionType.DENY)]
    if shown:
        rules.append((AclOperation.DESCRIBE, AclPermissionType.ALLOW))
    for future in admin.create_acls([AclBinding(*rule, *what) for what in rules]).values():
        future.result(30)

    def in_force() -> int:
        """What the broker goes by; the answers to the two requests are those of the controller, which is ahead."""
        anybody: Any = None
        every = AclBindingFilter(*rule[:3], anybody, anybody, AclOperation.ANY, AclPermissionType.ANY)
        return len(admin.describe_acls(every).result(30))

    try:
        wait_until(lambda: in_force() == len(rules), "the rules are in force")
        yield
    finally:
        for removed in admin.delete_acls([AclBindingFilter(*rule, *what) for what in rules]).values():
            removed.result(30)
        wait_until(lambda: in_force() == 0, "the rules are gone")


@pytest.mark.parametrize(("shown", "why"), [(True, "authorization"), (False, "does not show __consumer_offsets")])
def test_without_the_right_to_read_the_topic_groups_are_asked_and_judged_by_inference(
    servers: str, unique: Unique, shown: bool, why: str
) -> None:
    """The same numbers; the status says that it is inferred, and why."""
    topic, group = unique("t"), unique("g")
    create_topic(servers, topic)
    write(servers, topic, 10, age_ms=OLD_MS)
    commit(servers, group, topic, 1)

    with denied(servers, shown=shown), poller(servers, group) as looking:
        found = looking.look()
        wait_until(lambda: looking.look().complete, "every group was asked")
        row = one(looking.look(), group)

    assert found.source == "offset_fetch"
    assert found.why is not None
    assert why in found.why.replace("Authorization", "authorization")
    assert (row.lag, row.inferred, row.verdict.worst) == (9, True, Status.STOP)
    assert row.partitions[0].committed_at_ms is None
