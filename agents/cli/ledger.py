"""`curfew ledger`: published = delivered + pending + dead + filtered, computed from the topics."""

from __future__ import annotations

from typing import Any

import typer

from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show
from streams.codec import Codec, Registry
from streams.kafka.ledger import Line, check
from streams.settings import Settings

app = typer.Typer(help="The account of completeness: published = delivered + waiting + given up.")

COLUMNS = (
    "subscription", "queue", "accepted", "filtered", "unfit", "pending", "delivered", "dead", "discarded",
    "difference", "lag",
)  # fmt: skip
#: A difference in the thousands has one cause; these are enough to find it.
SHOWN_IDS = 20


@app.callback(invoke_without_command=True)
def ledger(style: TableOrJsonOption = TableOrJson.TABLE) -> None:
    """Account for every event of every subscription; exit code 3 if one is missing or nobody's.

    Reads the queues, results, dead letters and rows itself, without a consumer group. "lag" is what intake has still to
    look at; it is no difference. "unfit" are those of the filtered ones for which the filter had no answer.

    Example: curfew ledger -f json
    """
    settings = Settings()
    lines = check(settings.kafka(), Codec(Registry(settings.schema_registry_url)))
    show([row(line) for line in lines], style, columns=COLUMNS)
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
        "accepted": found.accepted,
        "filtered": found.filtered,
        "pending": found.pending,
        "delivered": found.delivered,
        "dead": found.dead,
        "discarded": found.discarded,
        "difference": found.difference,
        "lag": line.lag,
        "unreadable": line.unreadable,
        "unfit": line.unfit,
        "digest_accepted": found.digest_accepted,
        "digest_found": found.digest_found,
        "missing": list(found.missing[:SHOWN_IDS]),
        "unexpected": list(found.unexpected[:SHOWN_IDS]),
    }
