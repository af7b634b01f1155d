"""What one look at a cluster has found: every group, and the partitions' ends. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from streams.core.lag.rules import GroupVerdict, Judged, roll_up
from streams.core.lag.track import PartitionLag, trend

#: Topic and partition.
Place = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member of a group, and what it has been given."""

    member_id: str
    client_id: str
    host: str
    places: frozenset[Place]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLag:
    """One group. ``state`` is Kafka's word (stable, empty, …), ``kind`` classic or consumer; ``members`` is None where
    nobody has asked yet. ``lags`` are the sums of the last looks, the newest last; ``trend`` in records per second."""

    group: str
    state: str
    kind: str
    members: tuple[Member, ...] | None
    partitions: tuple[PartitionLag, ...]
    verdict: GroupVerdict
    lags: tuple[int, ...]
    trend: float | None

    @property
    def lag(self) -> int:
        """Records behind, over all partitions."""
        return self.verdict.total_lag

    @property
    def inferred(self) -> bool:
        """Whether the status was judged without the times of commits."""
        return any(one.inferred for one in self.partitions)

    @property
    def time_lag_s(self) -> float | None:
        """The greatest of the partitions'; None where it is not known of any that is behind."""
        return max((one.time_lag_s for one in self.partitions if one.time_lag_s is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionState:
    """One partition as the cluster has it; ``leader`` is -1 without one."""

    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterLag:
    """One look. ``source``: from where the offsets are (``offsets_topic`` or ``offset_fetch``), and ``why`` it is the
    second; ``complete``: whether all that was wanted is there; ``looks_ms`` are the instants of the last looks."""

    cluster_id: str
    at_ms: int
    took_s: float
    brokers: Mapping[int, str]
    controller: int
    topics: Mapping[str, Mapping[int, PartitionState]]
    groups: tuple[GroupLag, ...]
    source: str
    why: str | None = None
    complete: bool = True
    looks_ms: tuple[int, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


def group_lag(
    group: str,
    *,
    state: str,
    kind: str,
    members: tuple[Member, ...] | None,
    partitions: tuple[PartitionLag, ...],
    looks_ms: tuple[int, ...],
) -> GroupLag:
    """A group from its partitions; a partition that is younger than the group counts as 0 before."""
    judged = [Judged(status=one.status, lag=one.lag, complete=one.complete) for one in partitions]
    length = max((len(one.lags) for one in partitions), default=0)
    sums = [0] * length
    for one in partitions:
        if any(one.lags):  # most groups are never behind
            for at, lag in enumerate(one.lags, length - len(one.lags)):
                sums[at] += lag
    lags = tuple(sums)
    return GroupLag(
        group=group,
        state=state,
        kind=kind,
        members=members,
        partitions=partitions,
        verdict=roll_up(judged),
        lags=lags,
        trend=trend(lags, looks_ms),
    )
