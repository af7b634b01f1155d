"""`curfew lag`: how far consumer groups are behind, for any group of the cluster."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from agents.cli import choices, completion
from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show
from streams.core.errors import Transient
from streams.settings import Settings

#: A new look of the monitor may take some seconds; one that does not answer is as good as none.
MONITOR_TIMEOUT_S = 20.0

Rows = list[dict[str, Any]]

#: Listing the groups, only to say which there are.
TIMEOUT_S = 15.0

app = typer.Typer()


@app.command()
def lag(
    group: Annotated[
        list[str] | None,
        typer.Option(help="Only groups that match this regex; repeatable.", autocompletion=completion.groups),
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Not those that match this one; repeatable.")] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="Exit code 3 if a group is more records behind.")] = None,
    max_seconds: Annotated[float | None, typer.Option(min=0, help="Exit code 3 if longer behind, or unknown.")] = None,
    alarms: Annotated[
        bool, typer.Option("--alarms", help="Exit code 3 if a group is WARN, STOP, STALL or REWIND.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Print again and again until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks with --watch.")] = 2.0,
    ask_monitor: Annotated[
        bool, typer.Option("--monitor/--no-monitor", help="Ask a running monitor, which has the history.")
    ] = True,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Show how far groups are behind: records, time, status and trend.

    The status follows Burrow's rules: OK, WARN (slower than its topic), STOP, STALL, REWIND. Trend and history come
    from a running `curfew monitor`, or build up with --watch.

    Example: curfew lag --group 'plan-.*' --limit 1000 --max-seconds 60
    """
    from agents.monitor.as_json import over_limits

    settings, wanted = Settings(), name_filter(group, exclude)
    rows: Rows = []
    try:
        with _source(settings, group or [], exclude or [], ask_monitor) as look:
            while True:
                rows = [row for row in look() if wanted(row["group"])]
                if group and not rows and not watch:
                    choices.refuse(choices.unknown("consumer group", " or ".join(group), _names(settings)))
                _show(rows, style)
                if not watch:
                    break
                time.sleep(every)
    except KeyboardInterrupt:
        return
    found = over_limits(rows, limit, max_seconds)
    if alarms:
        found += [(row["group"], f"is {row['status']}") for row in rows if row["status"] not in ("OK", "NOTFOUND")]
    for name, what in found:
        note(f"{name} {what}")
    if found:
        raise typer.Exit(Exit.LIMIT)


def _names(settings: Settings) -> list[str]:
    """All groups of the cluster, for the nearest ones to one that there is not."""
    from streams.kafka.admin import admin_client, answering

    admin = admin_client(answering(settings.kafka()))  # a client that nobody holds ends before it has answered
    listed = admin.list_consumer_groups(request_timeout=TIMEOUT_S).result()
    if listed.errors:
        raise Transient(f"consumer groups cannot be listed: {listed.errors[0]}; is bootstrap_servers right?")
    return sorted(one.group_id for one in listed.valid)


def name_filter(group: list[str] | None, exclude: list[str] | None) -> Callable[[str], bool]:
    """Which groups are meant; a wrong regular expression is wrong usage."""
    from streams.kafka.lag.poll import by_name

    try:
        return by_name(group or (), exclude or ())
    except re.error as error:
        raise typer.BadParameter(f"{error.pattern!r} is no regular expression: {error}") from error


@contextmanager
def _source(
    settings: Settings, group: list[str], exclude: list[str], ask_monitor: bool
) -> Iterator[Callable[[], Rows]]:
    from agents.monitor.as_json import as_json
    from streams.kafka.admin import answering
    from streams.kafka.lag.poll import LagPoller, by_name

    url = _monitor_url(settings) if ask_monitor else None
    poller: LagPoller | None = None
    told: set[str] = set()

    def look() -> Rows:
        nonlocal poller
        if url is not None and poller is None and (rows := _from_monitor(url, group, exclude)) is not None:
            return rows
        poller = poller or LagPoller(answering(settings.kafka()), wanted=by_name(group, exclude))
        while True:
            found = poller.look()
            if found.why is not None and found.why not in told:
                told.add(found.why)
                note(f"statuses are inferred: __consumer_offsets cannot be read ({found.why})")
            if found.groups or found.complete:
                return list(as_json(found)["groups"])
            if "reading" not in told:
                told.add("reading")
                note("reading __consumer_offsets from its beginning…")

    try:
        yield look
    finally:
        if poller is not None:
            poller.close()


def _monitor_url(settings: Settings) -> str | None:
    """Of a monitor that runs with this data directory and looks at all groups of this cluster."""
    from agents.monitor.process import STATE_FILE

    try:
        state = json.loads((settings.data_dir / STATE_FILE).read_bytes())
        os.kill(state["pid"], 0)
        usable = state["everything"] and state["bootstrap_servers"] == settings.bootstrap_servers
        return str(state["url"]) if usable else None
    except (OSError, ValueError, KeyError):
        return None


def _from_monitor(url: str, group: list[str], exclude: list[str]) -> Rows | None:
    """A look of now. None when it does not answer or sees nothing."""
    query = urllib.parse.urlencode({"now": 1, "group": group, "exclude": exclude}, doseq=True)
    try:
        with urllib.request.urlopen(f"{url}/lag?{query}", timeout=MONITOR_TIMEOUT_S) as answer:
            found = json.loads(answer.read())
    except (OSError, ValueError):
        return None
    return list(found["groups"]) if found["problem"] is None and found["complete"] else None


def _show(rows: Rows, style: TableOrJson) -> None:
    from agents.monitor.as_json import duration, sparkline, status_word, trend_word

    if style is TableOrJson.JSON:
        show(rows, style, columns=())
        return
    partitions = [
        {
            "group": row["group"], "topic": one["topic"], "partition": one["partition"], "status": status_word(one),
            "committed": one["committed"], "end": one["end"], "lag": one["lag"], "behind": _behind(one),
        }
        for row in rows
        for one in row["partitions"]
        if one["lag"] or one["status"] != "OK"
    ]  # fmt: skip
    if partitions:
        columns = ("group", "topic", "partition", "status", "committed", "end", "lag", "behind")
        show(partitions, style, columns=columns)
    groups = [
        {
            "group": row["group"], "status": status_word(row), "state": row["state"], "members": row["members"],
            "lag": row["lag"], "behind": duration(row["time_lag_s"]), "trend": trend_word(row["trend_per_s"]),
            "history": sparkline(row["history"]),
        }
        for row in rows
    ]  # fmt: skip
    show(groups, style, columns=("group", "status", "state", "members", "lag", "behind", "trend", "history"))


def _behind(partition: dict[str, Any]) -> str | None:
    """An interpolated time is not a measured one."""
    from agents.monitor.as_json import duration

    text = duration(partition["time_lag_s"])
    return text if text is None or partition["exact"] else f"~{text}"
