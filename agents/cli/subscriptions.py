"""`curfew subscriptions`: who wants which events of a queue, and what is done with them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from agents.calculations import declarations
from agents.calculations.declarations import own_types
from agents.calculations.pool import START_S, CalculationPool, Failed
from agents.cli import choices, completion
from agents.cli import replay as replaying
from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show
from agents.configuration.changes import ByOption, as_row, history, live_graph, save
from agents.configuration.records import read_records
from agents.configuration.subscriptions import read_subscriptions
from agents.delivery.dispatch import email_sender
from agents.delivery.subscription_status import read_status, read_statuses
from streams.codec import Codec, Registry
from streams.core.catalogue import CATALOGUE, nearest_types
from streams.core.delivery.messages import Verdict
from streams.core.delivery.recipients import is_address
from streams.core.delivery.status import Status
from streams.core.errors import Misconfigured
from streams.core.events import Event, text
from streams.core.ids import derive, instant_text
from streams.core.subscription_filter import exact_types
from streams.core.subscription_rules import Known
from streams.core.subscriptions import Subscription, succeed
from streams.filters import CelLanguage
from streams.kafka import admin as kafka_admin
from streams.kafka.manifest import Manifest, managed
from streams.settings import Settings
from streams.sinks.email_templates import Templates
from streams.sinks.secrets import SecretError, Secrets
from streams.sinks.webhook import Exchange, WebhookSender
from streams.topics import SUBSCRIPTIONS

app = typer.Typer(
    callback=own_types, no_args_is_help=True, help="Who wants which events, how, and with which parameters."
)


app.command("replay")(replaying.replay)

#: A receiver changes over within a day; Standard Webhooks advises a grace like that.
OVERLAP_H = 24.0
NameArgument = Annotated[str, typer.Argument(metavar="NAME", autocompletion=completion.subscriptions)]
SkipSecretsOption = Annotated[
    bool, typer.Option("--skip-secrets", help="Do not look secrets up: only the workers' machines have them.")
]


class _WallClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(help="TOML, see docs/examples/subscriptions.toml")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and compare, change nothing.")] = False,
    skip_secrets: SkipSecretsOption = False,
    skip_templates: Annotated[
        bool, typer.Option("--skip-templates", help="Do not look at templates: only the workers' machines have them.")
    ] = False,
    by: ByOption = None,
) -> None:
    """Check a file of subscriptions and save them; running workers follow at once. Exits with 2 if one is wrong.

    A subscription gets the events that reach its queue from now on. Its name is its identity: a change makes a new
    version, another name another subscription. A pause, and a secret that was rotated, stay as they are when the file
    does not say `paused`, and still names the former secret.

    Example: curfew subscriptions apply docs/examples/subscriptions.toml
    """
    settings = Settings()
    codec = Codec(Registry(settings.schema_registry_url))
    existing = read_records(settings, codec, SUBSCRIPTIONS, Subscription)
    topics = kafka_admin.partition_counts(kafka_admin.admin_client(kafka_admin.answering(settings.kafka())))
    queues = managed(Manifest.load(), topics).queues
    known = Known(
        templates=None if skip_templates else Templates(settings.email_templates).uses(),
        queues=queues,
        development=settings.environment == "development",
        language=CelLanguage(),
        graph=live_graph(settings, codec),
        calculations={name: one.kind for name, one in declarations.load(settings.calculations).items()},
    )
    secrets = _secrets(settings)

    def secret_problem(reference: str) -> str | None:
        try:
            if not skip_secrets:
                secrets.resolve(reference)
        except SecretError as error:
            return f"{error} (--skip-secrets if only the workers have it)"
        return None

    now = _now()
    try:
        wanted = read_subscriptions(file, known, existing, now, secret_problem)
    except Misconfigured as error:
        note(f"error: {error}")
        raise typer.Exit(Exit.USAGE) from None
    changes = {name: one for name, one in wanted.items() if existing.get(name) != one}
    if not dry_run:
        save(settings, codec, SUBSCRIPTIONS, "subscription", existing, changes, by)
    for name in sorted(wanted.keys() | existing.keys()):
        what = "unchanged" if name in wanted else "kept, not in the file"
        if name in changes:
            what = f"version {changes[name].version}" if name in existing else "new"
        note(f"{name}: {what}{' (dry run)' if dry_run and name in changes else ''}")
    for name, one in sorted(wanted.items()):
        if one.paused:
            note(f"{name}: is paused; `curfew subscriptions resume {name}` lets it go on")
        if one.webhook is not None and one.webhook.previous_secret_ref is not None:
            note(f"{name}: signs with {one.webhook.secret_ref} since its rotation; let the file name that one")


@app.command("list")
def list_subscriptions(style: TableOrJsonOption = TableOrJson.TABLE) -> None:
    """List the subscriptions that are in force, and how each fares now: active, failing, disabled, paused, inactive.

    Example: curfew subscriptions list -f json
    """
    live = [subscription for _, subscription in sorted(_live().items())]
    found = read_statuses(Settings(), live)
    rows = [_row(one, found[one.id]) for one in live]
    reason = ("reason",) if any(row["reason"] for row in rows) else ()
    show(rows, style, columns=("name", "version", "state", *reason, "queue", "event_types", "ordering", "action"))


@app.command("show")
def show_one(name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=completion.subscriptions)]) -> None:
    """Show all of one subscription as JSON; secrets are only references. "status" is how it fares now.

    That is: active, failing, disabled, paused or inactive, and why; what waits and what is retried; the endpoint with
    its breaker, its last success and its last failure (an address that was refused, with the reason).

    Example: curfew subscriptions show crm
    """
    subscription = _one(name)
    shown = msgspec.to_builtins(subscription)
    shown["status"] = msgspec.to_builtins(read_status(Settings(), subscription))
    typer.echo(json.dumps(shown, indent=2))


@app.command()
def pause(name: NameArgument, by: ByOption = None) -> None:
    """Stop attempts; events are accepted and wait, up to the subscription's max_age_s.

    Example: curfew subscriptions pause crm
    """
    _change(name, by, lambda live: replace(live, paused=True), "paused; its events wait")


@app.command()
def resume(name: NameArgument, by: ByOption = None) -> None:
    """Let attempts go on: of a paused subscription, or of one whose endpoint was disabled (410, or days of failures).

    Example: curfew subscriptions resume crm
    """
    _change(name, by, lambda live: replace(live, paused=False, active=True), "resumed", anew=True)


@app.command("rotate-secret")
def rotate_secret(
    name: NameArgument,
    secret_ref: Annotated[str, typer.Argument(help="the new one, env:NAME or file:PATH")],
    overlap_hours: Annotated[
        float, typer.Option(min=0.0, max=720.0, help="for so long requests carry a signature of the former secret too")
    ] = OVERLAP_H,
    skip_secrets: SkipSecretsOption = False,
    by: ByOption = None,
) -> None:
    """Sign with another secret; for a day both verify, so that the receiver can change over in its own time.

    The workers need the new secret before. Every attempt is signed anew, retries too.

    Example: curfew subscriptions rotate-secret crm env:CURFEW_SECRET_CRM_2
    """
    now = _now()

    def rotated(live: Subscription) -> Subscription:
        webhook = live.webhook
        if webhook is None:
            choices.refuse(f"{name} sends no webhooks, so it has no secret")
        if webhook.secret_ref == secret_ref:
            choices.refuse(f"{secret_ref} is the present secret of {name} already; name the new one")
        changed = replace(
            webhook,
            secret_ref=secret_ref,
            previous_secret_ref=webhook.secret_ref,
            previous_until=now + timedelta(hours=overlap_hours),
        )
        return replace(live, webhook=changed)

    if not skip_secrets:
        try:
            _secrets(Settings()).resolve(secret_ref)
        except SecretError as error:
            choices.refuse(f"{error} (--skip-secrets if only the workers have it)")
    until = f"{now + timedelta(hours=overlap_hours):%Y-%m-%d %H:%M} UTC"
    _change(name, by, rotated, f"signs with {secret_ref}, and until {until} with the former secret too")


def _change(
    name: str, by: str | None, change: Callable[[Subscription], Subscription], said: str, *, anew: bool = False
) -> None:
    """Save a changed subscription as its next version; with ``anew`` also if nothing else differs."""
    settings = Settings()
    codec = Codec(Registry(settings.schema_registry_url))
    live = _one(name)
    after = succeed(live, change(live))
    if after is live and anew:
        after = replace(live, version=live.version + 1)
    if after is live:
        note(f"{name}: unchanged")
        return
    save(settings, codec, SUBSCRIPTIONS, "subscription", {name: live}, {name: after}, by)
    note(f"{name}: {said} (version {after.version})")


def _now() -> datetime:
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)  # what an Avro timestamp keeps


@app.command("history")
def show_history(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", autocompletion=completion.subscriptions)] = None,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Show who changed which subscription, when, from what to what.

    Example: curfew subscriptions history crm
    """
    settings = Settings()
    entries = history(settings, Codec(Registry(settings.schema_registry_url)), "subscription", name)
    show([as_row(entry) for entry in entries], style, columns=("at", "by", "name", "action", "changes"))


@app.command("test")
def try_one(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=completion.subscriptions)],
    event_type: Annotated[str | None, typer.Option("--type", help="Type of the sample; default its first one.")] = None,
    to: Annotated[str | None, typer.Option(help="Address for the sample of an e-mail; default its first one.")] = None,
) -> None:
    """Send a sample event, signed or as a mail, to the receiver and show the exchange. Exits with 1 if it is refused.

    The sample is no event: it passes no queue, and its facts say that it is a sample.

    Example: curfew subscriptions test crm
    """
    subscription = _one(name)
    if subscription.email is not None:
        _try_mail(subscription, event_type, to)
        return
    if subscription.calculation is not None:
        asyncio.run(_try_calculation(subscription.calculation.name, subscription, event_type))
        return
    if subscription.forward is not None:
        typer.echo(f"{name} forwards to the queue {subscription.forward.queue!r}; there is nobody to send a sample to")
        return
    exchange = asyncio.run(_try(subscription, sample(subscription, event_type, datetime.now(UTC))))
    assert subscription.webhook is not None
    typer.echo(f"POST {subscription.webhook.url}")
    for header, value in exchange.request_headers.items():
        typer.echo(f"> {header}: {value}")
    typer.echo(f"> {exchange.request_body.decode()}")
    _show_answer(exchange, without="no answer")


async def _try_calculation(name: str, subscription: Subscription, event_type: str | None) -> None:
    declared = Settings().calculations
    pool = CalculationPool(declared, declarations.load(declared))
    if name not in pool.calculations:
        choices.refuse(choices.unknown("calculation", name, pool.calculations))
    try:
        emits = await pool.run(name, sample(subscription, event_type, datetime.now(UTC)), within_s=START_S)
    except Failed as failed:
        typer.echo(f"< {failed.reason}: {failed.detail}")
        raise typer.Exit(Exit.FAILURE) from None
    finally:
        await pool.close()
    for one in emits:
        typer.echo(f"< {one.type} { ({name: text(value) for name, value in one.facts.items()}) }")
    if not emits:
        typer.echo("< no event")


def _try_mail(subscription: Subscription, event_type: str | None, to: str | None) -> None:
    assert subscription.email is not None
    address = to or next(iter(subscription.email.to), None)
    if address is None or not is_address(address):
        names = ", ".join(subscription.email.to_parameters)
        message = f"the addresses come with the events ({names}); say where the sample goes, as in --to me@example.com"
        raise typer.BadParameter(message if address is None else f"{address!r} is no address", param_hint="--to")
    event = sample(subscription, event_type, datetime.now(UTC))
    mailer = email_sender(Settings(), _WallClock())
    try:
        exchange = asyncio.run(mailer.send(subscription, event.event_id, address, event))
    finally:
        mailer.close()
    for line in exchange.request_body.decode().splitlines():
        typer.echo(f"> {line}")
    _show_answer(exchange, without="not sent")


def _show_answer(exchange: Exchange, *, without: str) -> None:
    """What came back (``without``: the words for nothing); exit code 1 unless it was accepted."""
    answer = f"{exchange.status} after {exchange.latency_ms} ms" if exchange.status is not None else without
    typer.echo(f"< {answer}{f': {exchange.detail}' if exchange.detail else ''}")
    if exchange.body:
        typer.echo(f"< {exchange.body}")
    if exchange.verdict is not Verdict.DELIVERED:
        raise typer.Exit(Exit.FAILURE)


def sample(subscription: Subscription, event_type: str | None, now: datetime) -> Event:
    """An event as the subscription could get it, with its parameters' names as their values."""
    wanted = event_type or (exact_types(subscription.event_types) or ("service.state_transitioned",))[0]
    if wanted not in CATALOGUE:
        message = f"there is no event type {wanted!r}{nearest_types(wanted)}; see `curfew events list`"
        raise typer.BadParameter(message, param_hint="--type")
    known = CATALOGUE[wanted]
    names = subscription.parameters or known.defaults
    return Event(
        event_id=derive("sample", subscription.id, instant_text(now)),
        type=wanted,
        occurred_at=now,
        subject_kind=known.kind,
        subject_id="sample",
        sequence=1,
        facts={"sample": True},
        audience=known.audience,
        parameters={name: f"<{name}>" for name in names},
    )


async def _try(subscription: Subscription, event: Event) -> Exchange:
    settings = Settings()
    sender = WebhookSender(
        secrets=_secrets(settings),
        clock=_WallClock(),
        development=settings.environment == "development",
        networks=settings.webhook_allow_networks,
    )
    try:
        return await sender.send(subscription, event.event_id, 1, event)
    finally:
        await sender.close()


def _secrets(settings: Settings) -> Secrets:
    return Secrets(settings.webhook_secrets)


def _live() -> dict[str, Subscription]:
    settings = Settings()
    return read_records(settings, Codec(Registry(settings.schema_registry_url)), SUBSCRIPTIONS, Subscription)


def _one(name: str) -> Subscription:
    live = _live()
    if name not in live:
        choices.refuse(choices.unknown("subscription", name, live))
    return live[name]


def _row(subscription: Subscription, status: Status) -> dict[str, Any]:
    if subscription.forward is not None:
        action = f"forward to {subscription.forward.queue}"
    else:
        action = "webhook" if subscription.webhook is not None else "email"
    if subscription.calculation is not None:
        action = f"calculation {subscription.calculation.name}"
    return {
        **msgspec.to_builtins(subscription),
        "state": status.state.value,
        "reason": status.reason,
        "event_types": list(subscription.event_types) or ["all"],
        "action": action,
    }
