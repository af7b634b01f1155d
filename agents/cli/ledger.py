"""`curfew ledger`: published = delivered + pending + dead + filtered + discarded, computed from the topics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show
from streams.codec import Codec, Registry
from streams.core.delivery.ledger import Balance
from streams.kafka.admin import admin_client, answering, require_topics
from streams.kafka.ledger import LedgerTopics, Line, check
from streams.kafka.positions import parse_instant
from streams.settings import Settings

app = typer.Typer()

COLUMNS = (
    "subscription", "queue", "published", "delivered", "pending", "dead", "filtered", "unfit", "discarded",
    "difference", "lag",
)  # fmt: skip
INPUT_COLUMNS = ("topic", "input", "applied", "stale", "duplicate", "dead", "difference", "lag")
EVENT_COLUMNS = ("type", "topic", "raised", "routed", "unrouted", "difference")
#: A difference in the thousands has one cause; these are enough to find it.
SHOWN_IDS = 20


#: Between two looks, while something is not accounted for.
LOOK_AGAIN_S = 1.0

_T = TypeVar("_T")


@app.command()
def ledger(
    upstream: Annotated[
        bool, typer.Option("--upstream", help="What comes before the queues: from object changes to events.")
    ] = False,
    since: Annotated[
        str | None, typer.Option(help="With --upstream: records since @-1h, @-2d or an instant. Default: @-1d.")
    ] = None,
    within: Annotated[
        float, typer.Option(min=0, help="A difference counts if it is still there after so many seconds.")
    ] = 5.0,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Account for every event of every subscription; exit code 3 if one is missing or nobody's.

    published = delivered + pending + dead + filtered + discarded: "published" are the events of its queue since the
    subscription is there, "filtered" those of them that it does not want, "dead" lie in dead-letters.delivery,
    "discarded" is what only replays leave out.

    A replay is a run of its own, below its subscription: "published" are then the events that were asked for again.

    Reads the queues, results, dead letters and rows itself, without a consumer group. "lag" is what intake has still to
    look at; it is no difference. "unfit" are those of the filtered ones for which the filter had no answer.

    --upstream is about the events worker: input = applied + stale + duplicate + dead for each topic that it reads, and
    raised = routed + unrouted for what these records must have raised. Exit code 3 if a record or an event is nowhere.

    Example: curfew ledger -f json
    """
    settings = Settings()
    if upstream:
        _upstream(settings, since, within, style)
        return
    if since is not None:
        raise typer.BadParameter("is for --upstream", param_hint="--since")
    config, topics = answering(settings.kafka()), LedgerTopics()
    # without them there would be nothing to account for, which looks like a good answer
    require_topics(admin_client(config), (topics.changelog, topics.dead_letters, topics.results))
    codec = Codec(Registry(settings.schema_registry_url))

    def odd(found: list[Line]) -> frozenset[str]:
        return frozenset[str]().union(*(line.oddities for line in found))

    lines, lasting = lasts(lambda: check(config, codec, topics), odd, within)
    if style is TableOrJson.JSON:
        show([row(line) for line in lines], style, columns=COLUMNS)
    else:
        _table(lines)
    if not lines:
        note("no subscription has been taken in yet: `curfew subscriptions list`; is `curfew up` running?")
    for line in lines:
        for where, balance in [(line.subscription, line.balance), *_runs(line)]:
            for what, found in (("missing", balance.missing), ("unexpected", balance.unexpected)):
                for unit_id in found[:SHOWN_IDS]:
                    note(f"{where}: {what} msg_{unit_id}")
    _judge(lasting, any(line.difference for line in lines))


def lasts(look: Callable[[], _T], oddities: Callable[[_T], frozenset[str]], within_s: float) -> tuple[_T, bool]:
    """The last look, and whether something that was not accounted for at first is not after ``within_s`` either.

    Topics are read one after another while work goes on; what is only on its way is found by a later look.
    """
    until = time.monotonic() + within_s
    found = look()
    same = oddities(found)
    while same and time.monotonic() < until:
        time.sleep(min(LOOK_AGAIN_S, max(0.0, until - time.monotonic())))
        found = look()
        same &= oddities(found)
    return found, bool(same)


def _judge(lasting: bool, different: bool) -> None:
    if lasting:
        raise typer.Exit(Exit.LIMIT)
    if different:
        note("the difference is new: look again whether it lasts (--within)")


def _upstream(settings: Settings, since: str | None, within: float, style: TableOrJson) -> None:
    # imported here, since the events worker brings a stream processor along
    from agents.events.upstream import CHANGELOG, check_upstream
    from streams.topics import FINDINGS

    try:
        since_ms = parse_instant(since or "@-1d")
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    require_topics(admin_client(answering(settings.kafka())), (CHANGELOG, FINDINGS))
    codec = Codec(Registry(settings.schema_registry_url))
    found, lasting = lasts(lambda: check_upstream(settings, codec, since_ms), lambda one: one.oddities, within)
    inputs = [_with_difference(line) for line in found.inputs if line.input or line.lag]
    events = [_with_difference(line) for line in found.events]
    if style is TableOrJson.JSON:
        typer.echo(json.dumps({"inputs": inputs, "events": events}, indent=2))
    else:
        show(inputs, style, columns=INPUT_COLUMNS)
        show(events, style, columns=EVENT_COLUMNS)
    for line in found.inputs:
        _tell_missing(line.topic, line.missing)
    for event in found.events:
        _tell_missing(f"{event.type} of {event.topic}", event.missing)
    _judge(lasting, bool(found.oddities))


def _tell_missing(where: str, missing: Sequence[str]) -> None:
    for one in missing[:SHOWN_IDS]:
        note(f"{where}: missing {one}")


def _with_difference(line: Any) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(line)
    return {**shown, "missing": shown["missing"][:SHOWN_IDS], "difference": line.difference}


def row(line: Line) -> dict[str, Any]:
    """One subscription as the command prints it."""
    return {
        "subscription": line.subscription,
        "subscription_id": line.subscription_id,
        "queue": line.queue,
        **_terms(line.balance),
        "lag": line.lag,
        "unreadable": line.unreadable,
        "unfit": line.unfit,
        "runs": [{"replay": run.name, **_terms(run.balance), "lag": run.lag} for run in line.runs],
    }


def _terms(found: Balance) -> dict[str, Any]:
    return {
        "published": found.accepted,
        "delivered": found.delivered,
        "pending": found.pending,
        "dead": found.dead,
        "filtered": found.filtered,
        "discarded": found.discarded,
        "difference": found.difference,
        "digest_published": found.digest_accepted,
        "digest_found": found.digest_found,
        "missing": list(found.missing[:SHOWN_IDS]),
        "unexpected": list(found.unexpected[:SHOWN_IDS]),
    }


def _runs(line: Line) -> list[tuple[str, Balance]]:
    return [(f"{line.subscription}, replay {run.name}", run.balance) for run in line.runs]


def _table(lines: list[Line]) -> None:
    rows = []
    for line in lines:
        whole = row(line)
        rows.append({**whole, "replay": None})
        rows += [{"subscription": line.subscription, "queue": line.queue, **run} for run in whole["runs"]]
    runs = any(line.runs for line in lines)
    show(rows, TableOrJson.TABLE, columns=("subscription", "replay", *COLUMNS[1:]) if runs else COLUMNS)
