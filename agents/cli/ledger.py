"""`curfew ledger`: published = delivered + pending + dead + filtered + discarded, computed from the topics."""

from __future__ import annotations

from typing import Any

import typer

from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show
from streams.codec import Codec, Registry
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

    Reads the queues, results, dead letters and rows itself, without a consumer group. "lag" is what intake has still to
    look at; it is no difference. "unfit" are those of the filtered ones for which the filter had no answer.

    Example: curfew ledger -f json
    """
    settings = Settings()
    config, topics = answering(settings.kafka()), LedgerTopics()
    # without them there would be nothing to account for, which looks like a good answer
    require_topics(admin_client(config), (topics.changelog, topics.dead_letters, topics.results))
    lines = check(config, Codec(Registry(settings.schema_registry_url)), topics)
    show([row(line) for line in lines], style, columns=COLUMNS)
    if not lines:
        note("no subscription has been taken in yet: `curfew subscriptions list`; is `curfew up` running?")
    for line in lines:
        for what, found in (("missing", line.balance.missing), ("unexpected", line.balance.unexpected)):
            for unit_id in found[:SHOWN_IDS]:
                note(f"{line.subscription}: {what} msg_{unit_id}")
    if any(line.balance.difference for line in lines):
        raise typer.Exit(Exit.LIMIT)


def row(line: Line) -> dict[str, Any]:
    """One subscription as the command prints it."""
    found = line.balance
    return {
        "subscription": line.subscription,
        "subscription_id": line.subscription_id,
        "queue": line.queue,
        "published": found.accepted,
        "delivered": found.delivered,
        "pending": found.pending,
        "dead": found.dead,
        "filtered": found.filtered,
        "discarded": found.discarded,
        "difference": found.difference,
        "lag": line.lag,
        "unreadable": line.unreadable,
        "unfit": line.unfit,
        "digest_published": found.digest_accepted,
        "digest_found": found.digest_found,
        "missing": list(found.missing[:SHOWN_IDS]),
        "unexpected": list(found.unexpected[:SHOWN_IDS]),
    }
