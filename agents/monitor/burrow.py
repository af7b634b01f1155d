"""Burrow's HTTP interface, read-only: ``/v3/kafka/…`` in its JSON, for tools that were made for Burrow.

What differs: nothing can be deleted, ``observedAt`` is the time of the commit, and a group's status has our evidence in
it (see docs/adr/0017-lag-monitor.md). There is one cluster, under the name that the monitor was given.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from streams.core.lag.report import ClusterLag, GroupLag, Member
from streams.core.lag.rules import Commit, Status
from streams.core.lag.track import PartitionLag
from streams.kafka.health import Route

PREFIX: Final = "/v3/kafka"


class NotFound(Exception):
    """There is no such cluster, topic or group; the message is Burrow's."""


class BurrowView:
    """Answers from the last look; :attr:`routes` are for the HTTP server."""

    def __init__(self, cluster: str, servers: str, last: Callable[[], ClusterLag | None]) -> None:
        self._cluster = cluster
        self._servers = servers.split(",")
        self._last = last

    @property
    def routes(self) -> dict[str, Route]:
        here = f"{PREFIX}/{{cluster}}"
        return {
            PREFIX: self._route("cluster list returned", lambda look, of: {"clusters": [self._cluster]}),
            here: self._route("cluster module detail returned", self._detail),
            f"{here}/topic": self._route("topic list returned", lambda look, of: {"topics": sorted(look.topics)}),
            f"{here}/topic/{{topic}}": self._route("topic offsets returned", _topic),
            f"{here}/topic/{{topic}}/consumers": self._route("consumers of topic returned", _consumers_of),
            f"{here}/consumer": self._route(
                "consumer list returned", lambda look, of: {"consumers": [one.group for one in look.groups]}
            ),
            f"{here}/consumer/{{group}}": self._route("consumer detail returned", _consumer),
            f"{here}/consumer/{{group}}/status": self._route("consumer status returned", self._status),
            f"{here}/consumer/{{group}}/lag": self._route("consumer status returned", self._lag),
        }

    def _route(self, message: str, answer: Callable[[ClusterLag, Any], dict[str, Any]]) -> Route:
        async def handle(request: web.Request) -> web.Response:
            about = {"request": {"url": request.path, "host": socket.gethostname()}}
            look = self._last()
            try:
                if look is None:
                    raise NotFound("the monitor has not looked yet")
                if request.match_info.get("cluster", self._cluster) != self._cluster:
                    raise NotFound("cluster not found")
                found = answer(look, request.match_info)
            except NotFound as error:
                return web.json_response({"error": True, "message": str(error), **about}, status=404)
            code = 404 if found.get("status", {}).get("status") == "NOTFOUND" else 200
            return web.json_response({"error": False, "message": message, **found, **about}, status=code)

        return handle

    def _detail(self, look: ClusterLag, of: Any) -> dict[str, Any]:
        return {"module": {"class-name": "kafka", "servers": self._servers, "topic-refresh": 0, "offset-refresh": 0}}

    def _status(self, look: ClusterLag, of: Any) -> dict[str, Any]:
        return {"status": self._group_status(look, of["group"], everything=False)}

    def _lag(self, look: ClusterLag, of: Any) -> dict[str, Any]:
        return {"status": self._group_status(look, of["group"], everything=True)}

    def _group_status(self, look: ClusterLag, name: str, *, everything: bool) -> dict[str, Any]:
        group = next((one for one in look.groups if one.group == name), None)
        head = {"cluster": self._cluster, "group": name}
        if group is None:
            return {
                **head, "status": Status.NOTFOUND.name, "complete": 1.0, "partitions": [], "partition_count": 0,
                "maxlag": None, "totallag": 0,
            }  # fmt: skip
        owners = _owners(group)
        rows = [_partition_status(one, owners) for one in group.partitions]
        return {
            **head,
            "status": group.verdict.status.name,
            "complete": group.verdict.complete,
            "partitions": [row for row in rows if everything or row["status"] != Status.OK.name],
            "partition_count": len(rows),
            "maxlag": None if group.verdict.max_lag_at is None else rows[group.verdict.max_lag_at],
            "totallag": group.lag,
        }


def _topic(look: ClusterLag, of: Any) -> dict[str, Any]:
    partitions = look.topics.get(of["topic"])
    if partitions is None:
        raise NotFound("cluster or topic not found")
    return {"offsets": [one.end for _, one in sorted(partitions.items())]}


def _consumers_of(look: ClusterLag, of: Any) -> dict[str, Any]:
    return {
        "consumers": [one.group for one in look.groups if any(part.topic == of["topic"] for part in one.partitions)]
    }


def _consumer(look: ClusterLag, of: Any) -> dict[str, Any]:
    group = next((one for one in look.groups if one.group == of["group"]), None)
    if group is None:
        raise NotFound("cluster or consumer not found")
    owners, topics = _owners(group), dict[str, list[dict[str, Any]]]()
    for one in group.partitions:
        rows = topics.setdefault(one.topic, [])
        # its place in the list is the partition's number
        rows += [{"offsets": [], "owner": "", "client_id": "", "current-lag": 0}] * (one.partition - len(rows))
        rows.append({"offsets": [_offset(commit) for commit in one.window], **_owned(one, owners),
                     "current-lag": one.lag})  # fmt: skip
    return {"topics": topics}


def _partition_status(one: PartitionLag, owners: dict[tuple[str, int], Member]) -> dict[str, Any]:
    return {
        "topic": one.topic,
        "partition": one.partition,
        **_owned(one, owners),
        "status": one.status.name,
        "start": _offset(one.window[0]) if one.window else None,
        "end": _offset(one.window[-1]) if one.window else None,
        "current_lag": one.lag,
        "complete": one.complete,
    }


def _offset(commit: Commit) -> dict[str, Any]:
    return {"offset": commit.offset, "timestamp": commit.at_ms, "observedAt": commit.at_ms, "lag": commit.lag}


def _owners(group: GroupLag) -> dict[tuple[str, int], Member]:
    return {place: member for member in group.members or () for place in member.places}


def _owned(one: PartitionLag, owners: dict[tuple[str, int], Member]) -> dict[str, str]:
    owner = owners.get((one.topic, one.partition))
    return {"owner": owner.host if owner else "", "client_id": owner.client_id if owner else ""}
