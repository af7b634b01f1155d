"""One look at the groups as JSON, for ``curfew lag``, the board, and whoever asks the monitor's ``/lag``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from streams.core.lag.report import ClusterLag, GroupLag, Member
from streams.core.lag.rules import Status
from streams.core.lag.track import PartitionLag

#: A lag that moves by less is steady: a handful of records comes and goes between two looks.
STEADY_PER_S: Final = 0.1
_BARS: Final = "▁▂▃▄▅▆▇█"
SPARK_WIDTH: Final = 20


def as_json(
    look: ClusterLag, wanted: Callable[[str], bool] = lambda group: True, *, history: bool = False
) -> dict[str, Any]:
    """The look at the groups that are wanted. Every group has the lags of the last looks, the newest last; with
    ``history`` every partition too."""
    return {
        "cluster_id": look.cluster_id,
        "at_ms": look.at_ms,
        "took_s": look.took_s,
        "source": look.source,
        "why": look.why,
        "complete": look.complete,
        "looks_ms": list(look.looks_ms),
        "groups": [group_row(one, history=history) for one in look.groups if wanted(one.group)],
    }


def group_row(group: GroupLag, *, history: bool = False) -> dict[str, Any]:
    """One group with its partitions."""
    owners = {place: member for member in group.members or () for place in member.places}
    return {
        "group": group.group,
        "state": group.state,
        "kind": group.kind,
        "members": None if group.members is None else len(group.members),
        "status": group.verdict.worst.name,
        "burrow_status": group.verdict.status.name,
        "inferred": group.inferred,
        "lag": group.lag,
        "time_lag_s": _rounded(group.time_lag_s),
        "trend_per_s": _rounded(group.trend),
        "complete": round(group.verdict.complete, 3),
        "history": list(group.lags),
        "partitions": [
            _partition_row(one, owners.get((one.topic, one.partition)), history) for one in group.partitions
        ],
    }


def _partition_row(one: PartitionLag, owner: Member | None, history: bool) -> dict[str, Any]:
    return {
        "topic": one.topic,
        "partition": one.partition,
        "committed": one.committed,
        "committed_at_ms": one.committed_at_ms,
        "start": one.start,
        "end": one.end,
        "lag": one.lag,
        "time_lag_s": _rounded(one.time_lag_s),
        "exact": one.exact,
        "status": one.status.name,
        "inferred": one.inferred,
        "owner": None if owner is None else owner.host,
        "client_id": None if owner is None else owner.client_id,
        **({"history": list(one.lags)} if history else {}),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def status_word(row: dict[str, Any]) -> str:
    """The status for people; judged without the times of commits, it says so."""
    return f"{row['status']} (inferred)" if row["inferred"] and row["status"] != Status.OK.name else str(row["status"])


def trend_word(per_s: float | None) -> str | None:
    """``rising 12.0/s``, ``falling``, ``steady``; None where nobody knows yet."""
    if per_s is None:
        return None
    if abs(per_s) < STEADY_PER_S:
        return "steady"
    return f"{'rising' if per_s > 0 else 'falling'} {abs(per_s):,.1f}/s"


def duration(seconds: float | None) -> str | None:
    """``4 s``, ``12 min``, ``3 h``: what a person needs of it."""
    if seconds is None:
        return None
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def sparkline(lags: Sequence[int], width: int = SPARK_WIDTH) -> str:
    """The newest lags as bars; the highest is the highest of them, an empty line is no history."""
    shown = lags[-width:]
    if len(shown) < 2:
        return ""
    top = max(shown)
    return "".join(_BARS[lag * (len(_BARS) - 1) // top if top else 0] for lag in shown)


def over_limits(
    rows: Collection[dict[str, Any]], limit: int | None, max_seconds: float | None
) -> list[tuple[str, str]]:
    """(group, what is over which limit) of every group that is. A wait of unknown length is over any: a script that
    asks for "not longer than a minute" must not read "all is well" where nobody knows."""
    found = []
    for row in rows:
        if limit is not None and row["lag"] > limit:
            found.append((row["group"], f"is {row['lag']:,} records behind, over the limit of {limit:,}"))
        seconds = row["time_lag_s"]
        if max_seconds is not None and seconds is None and row["lag"]:
            found.append((row["group"], f"is {row['lag']:,} records behind, nobody knows for how long; --limit counts"))
        elif max_seconds is not None and seconds is not None and seconds > max_seconds:
            found.append((row["group"], f"is {seconds:,.1f} s behind, over the limit of {max_seconds:g} s"))
    return found
