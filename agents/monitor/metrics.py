"""One look at the groups as Prometheus metrics, under the names that dashboards already have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from streams import metrics as m
from streams.core.lag.report import ClusterLag, GroupLag
from streams.core.lag.rules import Status
from streams.exposition import Exposition
from streams.metrics import Family


def exposition(look: ClusterLag, *, cluster_name: str, families: Collection[Family]) -> str:
    """The text for a scrape; ``families`` are those that are switched on."""
    out = Exposition()
    if Family.KAFKA_EXPORTER in families:
        _kafka_exporter(out, look)
    if Family.KAFKA_LAG_EXPORTER in families:
        _kafka_lag_exporter(out, look, cluster_name)
    if Family.GROUPS in families:
        for group in look.groups:
            _group(out, group)
    return out.text()


def _kafka_exporter(out: Exposition, look: ClusterLag) -> None:
    out.add(m.BROKERS, len(look.brokers))
    for number, address in look.brokers.items():
        out.add(m.BROKER_INFO, 1, number, address)
    for topic, partitions in look.topics.items():
        out.add(m.TOPIC_PARTITIONS, len(partitions), topic)
        for number, one in partitions.items():
            out.add(m.CURRENT_OFFSET, one.end, topic, number)
            out.add(m.OLDEST_OFFSET, one.start, topic, number)
            out.add(m.LEADER, one.leader, topic, number)
            out.add(m.REPLICAS, len(one.replicas), topic, number)
            out.add(m.IN_SYNC, len(one.in_sync), topic, number)
            out.add(m.UNDER_REPLICATED, len(one.in_sync) < len(one.replicas), topic, number)
            out.add(m.LEADER_PREFERRED, one.replicas[:1] == (one.leader,), topic, number)
    for group in look.groups:
        if group.members is not None:
            out.add(m.A_MEMBERS, len(group.members), group.group)
        lags: dict[str, int] = defaultdict(int)
        offsets: dict[str, int] = defaultdict(int)
        for part in group.partitions:
            lags[part.topic] += part.lag
            offsets[part.topic] += part.committed or 0
            # -1 is kafka_exporter's word for "nothing committed"
            committed = -1 if part.committed is None else part.committed
            out.add(m.A_OFFSET, committed, group.group, part.topic, part.partition)
            out.add(m.A_LAG, part.lag, group.group, part.topic, part.partition)
        for topic, lag in lags.items():
            out.add(m.A_LAG_SUM, lag, group.group, topic)
            out.add(m.A_OFFSET_SUM, offsets[topic], group.group, topic)


def _kafka_lag_exporter(out: Exposition, look: ClusterLag, cluster: str) -> None:
    out.add(m.B_POLL_TIME, round(look.took_s * 1000), cluster)
    for topic, partitions in look.topics.items():
        for number, one in partitions.items():
            out.add(m.B_LATEST, one.end, cluster, topic, number)
            out.add(m.B_EARLIEST, one.start, cluster, topic, number)
    for group in look.groups:
        owners = {place: member for member in group.members or () for place in member.places}
        sums: dict[str, int] = defaultdict(int)
        for part in group.partitions:
            owner = owners.get((part.topic, part.partition))
            who = (owner.host, owner.member_id, owner.client_id) if owner else ("", "", "")
            labels = cluster, group.group, part.topic, part.partition, *who
            out.add(m.B_LAG, part.lag, *labels)
            out.add(m.B_LAG_SECONDS, part.time_lag_s, *labels)
            out.add(m.B_OFFSET, part.committed, *labels)
            sums[part.topic] += part.lag
        if group.partitions:
            out.add(m.B_MAX_LAG, max(part.lag for part in group.partitions), cluster, group.group)
            out.add(m.B_SUM_LAG, group.lag, cluster, group.group)
            out.add(m.B_MAX_LAG_SECONDS, group.time_lag_s, cluster, group.group)
        for topic, lag in sums.items():
            out.add(m.B_TOPIC_SUM_LAG, lag, cluster, group.group, topic)


def _group(out: Exposition, group: GroupLag) -> None:
    out.add(m.GROUP_STATUS, group.verdict.worst, group.group)
    out.add(m.GROUP_LAG, group.lag, group.group)
    out.add(m.GROUP_TIME_LAG, group.time_lag_s, group.group)
    out.add(m.GROUP_INFERRED, group.inferred, group.group)
    for part in group.partitions:
        if part.status is not Status.OK:
            out.add(m.PARTITION_STATUS, part.status, group.group, part.topic, part.partition)


def monitor_exposition(*, up: bool, last: ClusterLag | None) -> str:
    """The monitor about itself: also when Kafka is away, and what it knows grows old."""
    out = Exposition()
    out.add(m.MONITOR_UP, up)
    if last is not None:
        out.add(m.MONITOR_LOOKED_AT, last.at_ms / 1000)
        out.add(m.MONITOR_LOOK_SECONDS, last.took_s)
        out.add(m.MONITOR_GROUPS, len(last.groups))
        out.add(m.MONITOR_INFERRED, last.source == "offset_fetch")
    return out.text()
