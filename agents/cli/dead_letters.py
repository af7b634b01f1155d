"""`curfew dead-letters`: records that could not be handled: which there are, one of them, and sending them back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from agents.cli import choices
from agents.cli.choices import refuse
from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show
from agents.configuration.changes import ByOption, author
from agents.delivery import redrive as steps
from agents.delivery.letter_reasons import REASONS, explained
from agents.delivery.letters import (
    REDRIVE,
    REVEAL,
    Letter,
    Wanted,
    entry,
    letters,
    parse_range,
    planned,
    record,
    send_back,
)
from agents.record_json import bytes_json, masked_json, value_json
from streams.codec import Codec, Registry
from streams.codec.readable import MASKED
from streams.kafka import dead_letters
from streams.kafka.admin import answering
from streams.kafka.manifest import Manifest
from streams.kafka.positions import parse_instant
from streams.kafka.scan import Scanner
from streams.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Records that could not be handled: list, show, redrive.")

AppOption = Annotated[str | None, typer.Option("--app", help="Of this app only, e.g. events.", show_default=False)]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="With this reason only.", show_default=False)]
SubscriptionOption = Annotated[
    str | None, typer.Option("--subscription", help="Of this subscription only, by name or id.", show_default=False)
]
SinceOption = Annotated[
    str | None, typer.Option("--since", help="Since @-1h, @-2d or @2026-03-01T00:00:00Z.", show_default=False)
]
KeyOption = Annotated[str | None, typer.Option("--key", help="With this key only.", show_default=False)]
#: Headers without personal data; what a receiver answered, and what the record brought itself, may have some.
_PLAIN = ("curfew-reason", "curfew-unit-id", "curfew-subscription", "curfew-subscription-id", "curfew-attempts",
          "curfew-status", "curfew-truncated", "curfew-replay-run", "curfew-replay-of", steps.FROM,
          steps.COUNT)  # fmt: skip
_COLUMNS = ("place", "at", "key", "reason", "from", "subscription", "redriven")


@app.command("list")
def list_letters(
    application: AppOption = None,
    reason: ReasonOption = None,
    subscription: SubscriptionOption = None,
    since: SinceOption = None,
    key: KeyOption = None,
    counts: Annotated[bool, typer.Option("--counts", help="Only how many there are of each reason.")] = False,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """List dead letters, or with --counts how many there are of each app and reason.

    Example: curfew dead-letters list --app events --since @-1d --counts
    """
    wanted = _wanted(None, application, reason, subscription, since, key)
    with Scanner(answering(Settings().kafka())) as scanner:
        found = _found(scanner, _codec(), wanted)
    if counts:
        _show_counts(found, style)
    else:
        show([_row(one) for one in found], style, columns=_COLUMNS)


@app.command("show")
def show_letter(
    place: Annotated[str, typer.Argument(metavar="PLACE", help="TOPIC/PARTITION/OFFSET, as `list` prints it.")],
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Masked fields, error and answer too; this is audited.")
    ] = False,
    by: ByOption = None,
) -> None:
    """Show one dead letter as JSON: where it is from, why it is dead, and what to do.

    What may hold personal data is masked: marked fields of the value, the error in its own words, a receiver's answer.

    Example: curfew dead-letters show dead-letters.events/0/12
    """
    wanted = _wanted(place, None, None, None, None, None)
    settings, codec = Settings(), _codec()
    with Scanner(answering(settings.kafka())) as scanner:
        found = list(letters(scanner, codec, wanted))
    if not found:
        refuse(f"there is no dead letter {place} any more; see `curfew dead-letters list`")
    for one in found:
        if reveal:
            record(settings, codec, [entry(REVEAL, one.place, author(by), {"action": "reveal"})])
        show([_whole(one, codec, reveal)], TableOrJson.JSON, columns=())


@app.command()
def redrive(
    place: Annotated[
        str | None,
        typer.Argument(metavar="[PLACE]", help="TOPIC/PARTITION/OFFSET, or OFFSET-OFFSET.", show_default=False),
    ] = None,
    application: AppOption = None,
    reason: ReasonOption = None,
    subscription: SubscriptionOption = None,
    since: SinceOption = None,
    key: KeyOption = None,
    most: Annotated[int | None, typer.Option("--max", min=1, help="At most so many.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also those that were sent back before.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    by: ByOption = None,
) -> None:
    """Send dead letters back to the topics from which they came, as they were; those sent back before are left out.

    Says first how many there are of each reason. A delivery begins again at its place in the order of its key, with all
    of its attempts before it.

    Example: curfew dead-letters redrive --app events --reason unknown_schema_id --dry-run
    """
    wanted = _wanted(place, application, reason, subscription, since, key)
    if wanted == Wanted():
        raise typer.BadParameter("say which: a PLACE, or at least one of --app, --reason, --since, --key")
    settings, codec = Settings(), _codec()
    with Scanner(answering(settings.kafka())) as scanner:
        found = [one for one in _found(scanner, codec, wanted) if again or not one.redriven][:most]
        plan = planned(scanner, codec, found)
    _show_counts(found, TableOrJson.TABLE)
    refused = Counter(one.refused for one in plan if one.refused is not None)
    for why, count in refused.items():
        note(f"{count:,} cannot be sent: {why}")
    doubts = Counter(one.doubt_reason for one in plan if one.doubt_reason is not None and one.refused is None)
    for doubt, count in doubts.most_common():
        note(f"{count:,} would come back: {doubt}: {'; '.join(explained(doubt))}")
    sendable = len(plan) - refused.total()
    if dry_run or not sendable:
        note(f"{sendable:,} of {len(plan):,} would be sent back; nothing has been sent")
        return
    if not yes:
        typer.confirm(f"Send {sendable:,} back?", abort=True, err=True)
    who = author(by)
    run = {"action": "redrive", "letters": sendable, "place": place, "app": application, "reason": reason,
           "subscription": subscription, "since": since, "key": key, "max": most, "again": again}  # fmt: skip
    record(settings, codec, [entry(REDRIVE, place or application or "filter", who, run)])
    for done in send_back(settings, codec, plan, who):
        note(f"{done:,} of {sendable:,} sent back")
    if refused:
        raise typer.Exit(Exit.FAILURE)


def _found(scanner: Scanner, codec: Codec, wanted: Wanted) -> list[Letter]:
    """The letters; a reason that no letter has, and that no worker would give, is a name that there is not."""
    found = list(letters(scanner, codec, wanted))
    if not found and wanted.reason is not None and wanted.reason not in REASONS:
        there = {one.reason for one in letters(scanner, codec, Wanted(topic=wanted.topic))}
        if wanted.reason not in there:
            refuse(choices.unknown("dead letter with the reason", wanted.reason, there or REASONS))
    return found


def _codec() -> Codec:
    return Codec(Registry(Settings().schema_registry_url))


def _wanted(
    place: str | None,
    application: str | None,
    reason: str | None,
    subscription: str | None,
    since: str | None,
    key: str | None,
) -> Wanted:
    if application is not None:
        choices.one_of(application, list(Manifest.load().groups), what="app", option="--app")
    topic = None if application is None else dead_letters.topic(application)
    try:
        where = Wanted(topic=topic) if place is None else parse_range(place)
        since_ms = None if since is None else parse_instant(since)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if topic not in (None, where.topic):
        raise typer.BadParameter(f"{place} is not of {topic}: leave --app out")
    return Wanted(
        topic=where.topic, partition=where.partition, first=where.first, last=where.last, reason=reason,
        subscription=subscription, since_ms=since_ms, key=key,
    )  # fmt: skip


def _show_counts(found: Sequence[Letter], style: TableOrJson) -> None:
    sorts = Counter((one.app, one.reason) for one in found)
    back = Counter((one.app, one.reason) for one in found if one.redriven)
    rows = [
        {"app": sort[0], "reason": sort[1], "letters": count, "redriven": back[sort]}
        for sort, count in sorts.most_common()
    ]
    show(rows, style, columns=("app", "reason", "letters", "redriven"))


def _row(letter: Letter) -> dict[str, Any]:
    [key] = bytes_json("key", letter.key).values()
    at = datetime.fromtimestamp(letter.at_ms // 1000, UTC).isoformat().replace("+00:00", "Z")
    origin = "/".join(letter.text(f"{dead_letters.CONNECT}{part}") for part in ("topic", "partition", "offset"))
    return {"place": letter.place, "at": at, "key": key, "reason": letter.reason, "from": origin,
            "subscription": letter.subscriptions[0] or None, "redriven": letter.redriven}  # fmt: skip


def _whole(letter: Letter, codec: Codec, reveal: bool) -> dict[str, Any]:
    headers = {name: letter.text(name) for name in _PLAIN if name in letter.headers}
    hidden = {
        "message": letter.text(f"{dead_letters.CONNECT}exception.message") or None,
        "response": letter.text("curfew-response") or None,
    }
    what, remedy = explained(letter.reason)
    value = letter.message.value()
    assert isinstance(value, bytes | None)
    return {
        **_row(letter),
        "explanation": what,
        "remedy": remedy,
        "headers": headers,
        **{name: text if reveal or text is None else MASKED for name, text in hidden.items()},
        "bytes": len(value or b""),
        **(value_json if reveal else masked_json)(codec, value),
    }
