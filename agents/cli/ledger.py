"""`curfew ledger`: published = delivered + pending + dead + filtered + discarded, computed from the topics."""

from __future__ import annotations

from typing import Any

import typer

from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show
from streams.codec import Codec, Registry
from streams.core.delivery.ledger import Balance
from streams.kafka.admin import admin_client, answering, require_topics
from streams.kafka.ledger import LedgerTopics, Line, check
from streams.settings import Settings

app = typer.Typer(help="The account of completeness: published = delivered + pending + dead + filtered.")

COLUMNS = (
    "subscription", "queue", "published", "delivered", "pending", "dead", "filtered", "unfit", "discarded",
    "difference", "lag",
)  # fmt: skip
#: A difference in the thousands has one cause; these are enough to find it.
SHOWN_IDS = 20


@app.callback(invoke_without_command=True)
def ledger(style: TableOrJsonOption = TableOrJson.TABLE) -> None:
    """Account for every event of every subscription; exit code 3 if one is missing or nobody's.

    published = delivered + pending + dead + filtered (+ discarded): "published" are the events of its queue since the
    subscription is there, "filtered" those of them that it does not want, "dead" lie in dead-letters.delivery.

    A replay is a run of its own, below its subscription: "published" are then the events that were asked for again.

    Reads the queues, results, dead letters and rows itself, without a consumer group. "lag" is what intake has still to
    look at; it is no difference. "unfit" are those of the filtered ones for which the filter had no answer.

    Example: curfew ledger -f json
    """
    settings = Settings()
    config, topics = answering(settings.kafka()), LedgerTopics()
    # without them there would be nothing to account for, which looks like a good answer
    require_topics(admin_client(config), (topics.changelog, topics.dead_letters, topics.results))
    lines = check(config, Codec(Registry(settings.schema_registry_url)), topics)
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
    if any(line.difference for line in lines):
        raise typer.Exit(Exit.LIMIT)


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
