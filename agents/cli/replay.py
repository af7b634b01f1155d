"""`curfew subscriptions replay`: send events again to the receivers of one subscription."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from agents.cli import completion
from agents.cli.choices import refuse, unknown
from agents.cli.output import TableOrJson, note, show
from agents.configuration.changes import ByOption, author
from agents.configuration.records import read_records
from agents.delivery.replays import Ask, choose, is_there, send
from streams.codec import Codec, Registry
from streams.core.delivery.hops import is_run
from streams.core.errors import Transient
from streams.core.ids import derive, instant_text
from streams.core.subscriptions import Subscription
from streams.kafka.positions import parse_instant, parse_position
from streams.settings import Settings
from streams.topics import SUBSCRIPTIONS

#: A replay from the beginning of a busy queue would otherwise fill the receiver's day by one typing error.
MOST = 10_000


def replay(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=completion.subscriptions)],
    event: Annotated[
        str | None, typer.Option("--event", help="This one: an event id, or a webhook-id (msg_…).", show_default=False)
    ] = None,
    failed_since: Annotated[
        str | None,
        typer.Option(help="What was given up since @-1h, @-2d or @2026-03-01T00:00:00Z.", show_default=False),
    ] = None,
    missing_since: Annotated[
        str | None,
        typer.Option(
            help="What has come into the queue since, and the receiver has not got: given up, or from before the "
            "subscription was there or wanted it.",
            show_default=False,
        ),
    ] = None,
    offset: Annotated[
        str | None,
        typer.Option(
            "--offset",
            "-o",
            help="All from here, delivered or not: beginning, an offset, @-1h, @2026-03-01T00:00:00Z; with :STOP also "
            "where to end, as in 100:200.",
            show_default=False,
        ),
    ] = None,
    partition: Annotated[
        int | None, typer.Option(min=0, help="With --offset: of this partition of the queue only.", show_default=False)
    ] = None,
    most: Annotated[int, typer.Option("--max", min=1, help="At most so many.")] = MOST,
    run: Annotated[
        str | None,
        typer.Option(
            help="Name of the run: under the same name nothing is sent twice, so an interrupted run is finished by "
            "it. Default: a new one.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    by: ByOption = None,
) -> None:
    """Send events again to the receivers of one subscription; nobody else hears of it. Running workers do it.

    Say which: one of --event, --failed-since, --missing-since, --offset. What is on its way anyway is left out. A
    repetition has the webhook-id of the event and the header curfew-replay with the name of the run.

    Example: curfew subscriptions replay crm --failed-since @-1d --dry-run
    """
    ask = _ask(event, failed_since, missing_since, offset, partition)
    if run is not None and not is_run(run):
        raise typer.BadParameter("letters, digits, '.', '_' and '-', at most 64", param_hint="--run")
    settings = Settings()
    codec = Codec(Registry(settings.schema_registry_url))
    live = read_records(settings, codec, SUBSCRIPTIONS, Subscription)
    if name not in live:
        refuse(unknown("subscription", name, live))
    subscription = live[name]
    _check(subscription)
    asked = {
        "event": event, "failed_since": failed_since, "missing_since": missing_since, "offset": offset,
        "partition": partition, "max": most,
    }  # fmt: skip
    run = run or derive("replay", subscription.id, str(asked), instant_text(datetime.now(UTC)))
    choice = choose(settings, codec, subscription, ask, run, most)
    if event is not None and not is_there(choice):
        refuse(f"there is no event {event} in queue.{subscription.queue} that {name} could have had; a queue keeps "
               "its events for a week")  # fmt: skip
    show(
        [{"event_type": kind, "events": count} for kind, count in sorted(choice.types.items())],
        TableOrJson.TABLE,
        columns=("event_type", "events"),
    )
    for why, count in sorted(choice.left_out.items()):
        note(f"{count:,} left out: {why}")
    wanted = len(choice.commands)
    if choice.found > wanted:
        note(f"{choice.found:,} found: the first {wanted:,} only, by --max; later the same again for the others")
    if subscription.paused:
        note(f"{name} is paused: they wait until `curfew subscriptions resume {name}`")
    if dry_run or not wanted:
        note(f"{wanted:,} would be sent again; nothing has been sent")
        return
    if not yes:
        typer.confirm(f"Send {wanted:,} again to {name}?", abort=True, err=True)
    note(f"run {run}")
    done = 0
    try:
        for done in send(settings, codec, subscription, choice, author(by), asked):
            note(f"{done:,} of {wanted:,} asked for; `curfew ledger` accounts for the run")
    except (Transient, KeyboardInterrupt):
        note(f"{done:,} of {wanted:,} asked for; finish it by the same command with --run {run}")
        raise


def _ask(
    event: str | None, failed_since: str | None, missing_since: str | None, offset: str | None, partition: int | None
) -> Ask:
    if [event, failed_since, missing_since, offset].count(None) != 3:
        raise typer.BadParameter("say which: one of --event, --failed-since, --missing-since, --offset")
    if partition is not None and offset is None:
        raise typer.BadParameter("is for --offset", param_hint="--partition")
    if failed_since is not None:
        return Ask(failed_since_ms=_instant(failed_since, "--failed-since"))
    if missing_since is not None:
        return Ask(missing_since_ms=_instant(missing_since, "--missing-since"))
    if offset is None:
        return Ask(event=event)
    try:
        start, stop = parse_position(offset)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--offset") from None
    return Ask(start=start, stop=stop, partition=partition)


def _instant(text: str, option: str) -> int:
    try:
        return parse_instant(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _check(subscription: Subscription) -> None:
    name = subscription.name
    if subscription.calculation is not None:
        refuse(
            f"{name} calculates: what it raises would set off everything behind it once more; those that failed are "
            f"begun again by `curfew dead-letters redrive --app delivery --subscription {name}`"
        )
    if not subscription.active:
        refuse(f"{name} is inactive: apply it with active = true first, or they would wait until they are too old")
