"""Panel 4: how far every consumer group is behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from agents.board import words
from agents.monitor.as_json import group_row, status_word, trend_word
from streams.core.errors import Transient
from streams.core.lag.report import ClusterLag
from streams.core.lag.rules import Status
from streams.kafka.lag.poll import LagPoller
from streams.settings import Settings

NAME: Final = "groups"
TITLE: Final = "Consumer groups"
EVERY_S: Final = 10.0
#: A group without members that is well is somebody's command of last week: those are listed last.
_FINE: Final = (Status.OK.name, Status.NOTFOUND.name)


class GroupSource:
    """Joins no group; its looks are the history of the sparklines. ``survey`` of the last look is kept for others."""

    panels: Sequence[str] = (NAME, "cluster")

    def __init__(self, settings: Settings, *, every_s: float = EVERY_S) -> None:
        self.every_s = every_s
        self._poller = LagPoller(settings.kafka(log_level=0, error_cb=lambda error: None))

    def read(self) -> Mapping[str, Mapping[str, Any]]:
        found = self._poller.look()
        if not found.groups and not found.complete:
            raise Transient("the committed offsets are still being read from the beginning of __consumer_offsets")
        return {NAME: view(found), "cluster": cluster(found)}

    def close(self) -> None:
        self._poller.close()


def view(look: ClusterLag) -> dict[str, Any]:
    """The groups that are not well first, then by lag."""
    rows = []
    for one in look.groups:
        row = group_row(one)
        behind = [place for place in row.pop("partitions") if place["lag"] or place["status"] != Status.OK.name]
        rows.append(row | {
            "status_in_words": status_word(row), "trend": trend_word(row["trend_per_s"]), "partitions_behind": behind
        })  # fmt: skip
    rows.sort(key=lambda row: (row["status"] in _FINE, -row["lag"], not row["members"], row["group"]))
    bad = [row["group"] for row in rows if row["status"] not in _FINE]
    return {
        "word": words.ATTENTION if bad else words.OK,
        "not_well": bad,
        "complete": look.complete,
        "inferred_because": look.why,
        "groups": rows,
    }


def cluster(look: ClusterLag) -> dict[str, Any]:
    """What the same look says about the brokers."""
    partitions = [one for topic in look.topics.values() for one in topic.values()]
    return {
        "cluster_id": look.cluster_id,
        "brokers": {str(number): address for number, address in look.brokers.items()},
        "controller": look.controller,
        "topics": len(look.topics),
        "partitions": len(partitions),
        "without_leader": sum(one.leader < 0 for one in partitions),
        "under_replicated": sum(len(one.in_sync) < len(one.replicas) for one in partitions),
    }
